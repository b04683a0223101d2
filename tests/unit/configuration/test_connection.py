"""A connection, however it was written down, becomes settings; a wrong one says what to do."""

from __future__ import annotations

import importlib
import json
import logging
from typing import Any, cast

import pytest

from airflow_provider_fluxomail import __version__
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.recipient_guard import RecipientGuard
from airflow_provider_fluxomail.configuration.connection import FluxomailConnection
from airflow_provider_fluxomail.configuration.extras import GUARDS, read_extras
from airflow_provider_fluxomail.configuration.form import CONNECTION_FIELDS
from tests.support.airflow_names import Connection


def connection(**fields: Any) -> FluxomailConnection:
    extra = fields.pop("extra", {})
    return FluxomailConnection.of(
        Connection(
            **{
                "conn_id": "mail",
                "conn_type": "fluxomail",
                "password": "fm_key",
                "extra": extra if isinstance(extra, str) else json.dumps(extra),
                **fields,
            }
        )
    )


def test_a_key_is_enough() -> None:
    options = connection()
    assert options.settings.api_key == "fm_key"
    assert options.settings.base_url == "https://api.fluxomail.com"
    assert (options.settings.timeout, options.settings.max_attempts, options.settings.max_wait) == (15, 4, 60)
    assert (options.key_retention_hours, options.poll_share, options.idempotency_namespace) == (24, 0.5, "")
    assert (options.settings.api_version, options.settings.verify) == ("2025-09-01", True)
    assert options.settings.user_agent.startswith(f"airflow-provider-fluxomail/{__version__} apache-airflow/")


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "127.0.0.1", "port": 8026}, "http://127.0.0.1:8026"),
        ({"host": "http://127.0.0.1", "port": 8026}, "http://127.0.0.1:8026"),
        ({"host": "http://127.0.0.1:8026", "port": 9}, "http://127.0.0.1:8026"),
        ({"host": "https://mail.example/api/v1", "port": 8443}, "https://mail.example:8443"),
        ({"host": "[::1]", "port": 8026}, "http://[::1]:8026"),
        ({"host": "::1", "port": 8026}, "http://[::1]:8026"),
        ({"host": "localhost", "schema": "http", "port": 8026}, "http://localhost:8026"),
    ],
)
def test_host_port_and_schema(fields: dict[str, Any], url: str) -> None:
    assert connection(**fields).settings.base_url == url


@pytest.mark.parametrize(
    ("extra", "path", "value"),
    [
        ({"timeout": "2.5"}, "settings.timeout", 2.5),
        ({"timeout": ""}, "settings.timeout", 15),
        ({"max_attempts": "2"}, "settings.max_attempts", 2),
        ({"max_wait": 0}, "settings.max_wait", 0),
        ({"api_version": "-"}, "settings.api_version", ""),
        ({"verify": "false"}, "settings.verify", False),
        ({"verify": __file__}, "settings.verify", __file__),
        ({"proxies": '{"https": "http://p:1"}'}, "settings.proxies", {"https": "http://p:1"}),
        ({"allow_http": "true"}, "settings.allow_http", True),
        ({"idempotency_namespace": "eu"}, "idempotency_namespace", "eu"),
        ({"key_retention_hours": "48"}, "key_retention_hours", 48),
        ({"poll_share": "0.25"}, "poll_share", 0.25),
        ({"redirect_to": "qa@a.example"}, "settings.guard.redirect_to", "qa@a.example"),
        ({"allowed_recipient_domains": "A.org, @b.org."}, "settings.guard.allowed_domains", ("a.org", "b.org")),
        ({"allowed_recipient_domains": ["a.org"]}, "settings.guard.allowed_domains", ("a.org",)),
    ],
)
def test_extras_as_text_or_as_what_they_are(extra: dict[str, Any], path: str, value: object) -> None:
    found: Any = connection(extra=extra)
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"password": None}, "no API key: put it into the connection's password"),
        ({"conn_type": "http"}, "its type is 'http': make it 'fluxomail'"),
        # A guard in another field.
        ({"schema": "redirect_to=qa@a.example"}, "its schema holds 'redirect_to': make that an extra"),
        ({"host": "api.fluxomail.com&redirect_to=qa@a.example"}, "its host holds 'redirect_to'"),
        ({"login": "redirect_to=qa@a.example"}, "its login holds 'redirect_to'"),
        ({"password": "fm_key&allowed_recipient_domains=a.example"}, "its password holds 'allowed_recipient_domains'"),
        # An extra that is given twice.
        ({"extra": '{"redirect_to": "qa@a.example", "REDIRECT_TO": "b@a.example"}'}, "redirect_to is given twice"),
        ({"extra": '{"redirect_to": "qa@a.example", "redirect_to": ""}'}, "redirect_to is given twice"),
        ({"extra": '{"timeout": 1, "timeout": 1}'}, "timeout is given twice"),
    ],
)
def test_bad_connections_name_field_and_cure(fields: dict[str, Any], shown: str) -> None:
    with pytest.raises(FluxomailValidationError) as caught:
        connection(**fields)
    assert shown in str(caught.value)
    assert str(caught.value).startswith("connection 'mail': ")
    for private in ("fm_key", "qa@a.example"):
        assert private not in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "shown"),
    [
        ({"timeout": "soon"}, "extra timeout must be a number"),
        ({"timeout": True}, "extra timeout must be a number"),
        ({"max_attempts": 1.5}, "extra max_attempts must be a whole number"),
        ({"allow_http": "perhaps"}, "extra allow_http must be true or false"),
        ({"proxies": "http://p:1"}, "extra proxies must be a JSON object"),
        ({"proxies": {"https": 1}}, "extra proxies must be a JSON object"),
        ({"verify": "/no/such.pem"}, "verify names '/no/such.pem', which does not exist"),
        ({"poll_share": 0}, "poll_share must be above 0"),
        ({"poll_share": 1.1}, "at most 1"),
        ({"key_retention_hours": -1}, "key_retention_hours must be 0 or more"),
        ({"redirect_to": "nobody"}, "extra redirect_to must be one address, such as"),
        ({"allowed_recipient_domains": 5}, "must be a list of domains"),
        *(
            ({"allowed_recipient_domains": value}, "must hold domains such as example.com")
            for value in ("example", [","], "*.example.com", "a.b;c.d", "qa@a.example", "a.example b.example", "a..b")
        ),
        # A guard within another extra.
        *(
            (extra, "put that beside")
            for extra in (
                {"extra": {"redirect_to": "qa@a.example"}},
                {"extra": {"whitelist": "a.example"}},
                {"fluxomail": [{"redirect_to": "qa@a.example"}]},
                {"notes": {"deep": {"deeper": {"allowed recipient domains": "a.example"}}}},
                {"notes": json.dumps(json.dumps({"redirect_to": "qa@a.example"}))},
                {"notes": "redirect_to: qa@a.example"},
                {"proxies": {"https": "http://p:1", "redirect_to": "http://p:1"}},
                {"idempotency_namespace": "prod;redirect_to=qa@a.example"},
                {"api_version": "2025-09-01 redirectTo=qa@a.example"},
            )
        ),
        # Which extra an unknown one may mean.
        *(({"mail_to": "x"}, "it does not hold email back"), ({"proxy_to": "x"}, "it does not hold email back")),
        *(({"redirect_adress": "x"}, "mean 'redirect_to'"), ({"redirectto": "x"}, "mean 'redirect_to'")),
        ({"alowed_recipient_domains": "x"}, "did you mean 'allowed_recipient_domains'"),
        ({"recipient_domains": "x"}, "did you mean 'allowed_recipient_domains'"),
        *(({"time_out_": 5}, "did you mean 'timeout'"), ({"verfy": True}, "did you mean 'verify'")),
    ],
)
def test_bad_extras_name_field_and_cure(extra: dict[str, Any], shown: str) -> None:
    with pytest.raises(FluxomailValidationError) as caught:
        connection(extra=extra)
    assert shown in str(caught.value)
    assert "qa@a.example" not in str(caught.value)


@pytest.mark.parametrize("name", ["environment", "reply_to", "from_email", ""])
def test_an_unknown_extra_is_warned_of(name: str, caplog: pytest.LogCaptureFixture) -> None:
    connection(extra={name: "data"})
    assert f"Unknown connection extra {name!r} ignored; known extras: timeout, max_attempts" in caplog.text
    assert "'data'" not in caplog.text


@pytest.mark.parametrize("name", CONNECTION_FIELDS)
def test_every_spelling_of_an_extra_is_the_extra(name: str) -> None:
    spaced = name.title().replace("_", " ")
    camel = spaced[0].lower() + spaced[1:].replace(" ", "")
    for spelling in (
        *(name.upper(), spaced.replace(" ", "_"), name.replace("_", "-"), spaced, f" {name} ", name.replace("_", "__")),
        *(name.replace("_", "."), camel, spaced.replace(" ", ""), f"extra__fluxomail__{name}"),
        *(f"EXTRA__FLUXOMAIL__{name.upper()}", f"extra__fluxomail__{camel}"),
        "".join(chr(ord(sign) + 0xFEE0) if sign.isalpha() else sign for sign in name.upper()),  # full-width letters
    ):
        assert read_extras(json.dumps({spelling: "1"})) == {name: "1"}, spelling


@pytest.mark.parametrize(
    "name",
    [
        *("redirect", "redirectto", "REDIRECTTO", "redirect_too", "redirects_to", "redirect_mail_to", "redrect_to"),
        *("rediret_to", "rediretto", "redir", "alwdrecpntdmns", "redirct", "ridirect_to", "redirect_adress"),
        *("_redirect_to", "#redirect_to", "//redirect_to", "redirect_to_"),
        *("redirect_to\u200b", "redi\u200brect_to", "r\u0435direct_to", "redirect\u2011to", "amp;redirect_to"),
        *("extra__http__redirect_to", "extra__redirect_to", "fluxomail_redirect_to", "fluxomail.redirectTo"),
        *("reroute_to", "forward_to", "divert", "staging_to", "stagingTo", "staging", "send_to", "sendto", "to", "cc"),
        *("mail_to", "deliver_all_to", "only", "only_to", "catch_all", "catchall", "override_recipient", "sandbox"),
        *("allowed_domains", "allow_recipient_domain", "allowed_recipient_domain", "allowedrecipientdomains"),
        *("Allow Recipient Domains", "recipients_allowed", "recipients", "recipient", "recipeint_domains", "alowed"),
        *("domains", "domian", "domain", "whitelist", "white-list", "White List", "safelist", "allowlist", "permitted"),
        *("blocked_recipients", "restrict_to", "guard", "dry_run", "dryRun", "test_mode", "receivers", "rcpt"),
        *("test_email", "devEmail", "no_send", "suppress_all", "black_hole"),
    ],
)
def test_what_may_be_meant_as_a_guard_is_an_error(name: str) -> None:
    for value in ("qa@a.example", "", None):
        with pytest.raises(FluxomailValidationError, match=r"unknown extra .*(did you mean|does not hold)") as caught:
            connection(extra={name: value})
        assert "qa@a.example" not in str(caught.value)


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_an_empty_spelling_hides_no_guard(empty: str | None) -> None:
    """A form writes its empty fields beside what it does not know."""
    for first, second in (("REDIRECT_TO", "redirect_to"), ("redirect_to", "redirectTo")):
        made = connection(extra={first: "qa@a.example", second: empty})
        assert made == connection(extra={second: empty, first: "qa@a.example"})
        assert made.settings.guard.redirect_to == "qa@a.example"
    assert connection(extra=dict.fromkeys(GUARDS, empty)).settings.guard == RecipientGuard()


@pytest.mark.parametrize("extra", [json.dumps(json.dumps({"redirect_to": "qa@a.example"})), "null", "[{}]", "{"])
def test_extras_that_are_no_object_are_an_error(extra: str) -> None:
    with pytest.raises(FluxomailValidationError, match="not a JSON object"):
        FluxomailConnection.of(cast("Connection", Stored(extra)))


class Stored:
    """What a secrets backend may hand over, past the checks of Airflow's own class."""

    conn_id, conn_type, host, schema, login, password, port = "mail", "fluxomail", None, None, None, "fm_key", None

    def __init__(self, extra: str) -> None:
        self.extra = extra


@pytest.mark.parametrize("name", GUARDS)
@pytest.mark.parametrize(
    "value", [[], {}, False, True, 0, [None], [5], {"a": "b"}, "none", "[]", "*", "\u200b", ["a", "b"], [[]]]
)
def test_a_guard_of_another_kind_is_an_error(name: str, value: object) -> None:
    with pytest.raises(FluxomailValidationError, match=f"extra {name}"):
        connection(extra={name: value})


@pytest.mark.parametrize(
    ("rest", "shown"),
    [
        ("?REDIRECT-TO=qa%40a.example", None),
        ("?redirect%20to=qa%40a.example", None),
        ("?__extra__=%7B%22redirectTo%22%3A%20%22qa%40a.example%22%7D", None),
        ("?timeout=5&amp;redirect_to=qa%40a.example", "did you mean 'redirect_to'"),
        ("?idempotency_namespace=n;redirect_to=qa%40a.example", "put that beside"),
        ("redirect_to=qa%40a.example", "its schema holds 'redirect_to'"),
        ("?extra=%7B%22redirect_to%22%3A%20%22qa%40a.example%22%7D", "put that beside"),
        ("?redirect_to=qa+x%40a.example", "extra redirect_to"),
    ],
)
def test_a_guard_in_a_uri(rest: str, shown: str | None) -> None:
    uri = f"fluxomail://:fm_key_of_a_test@/{rest}"
    if hasattr(Connection, "from_uri"):
        made: Any = Connection.from_uri(uri, conn_id="mail")
    else:  # before Airflow 3.1
        made = importlib.import_module("airflow.models.connection").Connection(conn_id="mail", uri=uri)
    if shown is None:
        assert FluxomailConnection.of(made).settings.guard.redirect_to == "qa@a.example"
    else:
        with pytest.raises(FluxomailValidationError, match=shown):
            FluxomailConnection.of(made)


#: What the form of an earlier version stored for a connection whose fields were left alone, on 3.3 and on 2.11.
_STORED: dict[str, Any] = {
    "timeout": 15, "max_attempts": 4, "max_wait": 60, "key_retention_hours": 24, "allow_http": False, "poll_share": 0.5,
}  # fmt: skip
FORMS: dict[str, dict[str, Any]] = {
    "3.3": dict.fromkeys(CONNECTION_FIELDS) | _STORED,
    "2.11": _STORED | {"timeout": "15", "max_wait": "60", "key_retention_hours": "24", "poll_share": "0.5"},
    "now on 3.3": dict.fromkeys(CONNECTION_FIELDS),
    "now on 2.11": {"max_attempts": None, "allow_http": False},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_connection_of_a_form_leaves_the_section_on(
    form: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert connection(extra=FORMS[form]) == connection()
    monkeypatch.setenv("AIRFLOW__FLUXOMAIL__MAX_WAIT", "20")
    monkeypatch.setenv("AIRFLOW__FLUXOMAIL__POLL_SHARE", "0.25")
    with caplog.at_level(logging.INFO):
        options = connection(extra=FORMS[form])
    assert (options.settings.max_wait, options.poll_share) == (20, 0.25)
    said = "extra max_wait is the default, 60, and counts as not set: using [fluxomail] max_wait = 20"
    assert (said in caplog.text) is not form.startswith("now")
    own = connection(extra={**FORMS[form], "max_wait": 60.001, "poll_share": "0.501"})
    assert (own.settings.max_wait, own.poll_share) == (60.001, 0.501)


def test_a_section_that_is_wrong_harms_no_connection_that_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__FLUXOMAIL__MAX_WAIT", "soon")
    assert connection(extra={"max_wait": 5}).settings.max_wait == 5
    with pytest.raises(Exception, match="max_wait"):
        connection(extra={"max_wait": 60})


def test_every_field_of_the_form_is_read() -> None:
    values = {"boolean": True, "number": 0.25, "integer": 2}
    special = {
        "redirect_to": "a@b.example", "allowed_recipient_domains": "b.example", "proxies": '{"https": "http://p"}',
        "verify": __file__,
    }  # fmt: skip
    for name, field in CONNECTION_FIELDS.items():
        value = special.get(name, values.get(field["schema"]["type"][0], "some"))
        assert connection(extra={name: value}) != connection(), name
