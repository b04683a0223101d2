"""A connection, however it was written down, becomes settings; a wrong one says what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_fluxomail import CONNECTION_FIELDS, __version__
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.connections import FluxomailConnection
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
        ({"host": "mail.example", "schema": "https"}, "https://mail.example"),
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


def as_uri(conn_id: str, uri: str) -> Any:
    if hasattr(Connection, "from_uri"):
        return Connection.from_uri(uri, conn_id=conn_id)
    anything: Any = Connection
    return anything(conn_id=conn_id, uri=uri)


def test_as_uri() -> None:
    uri = "fluxomail://:fm_key@http%3A%2F%2F127.0.0.1%3A8026/?timeout=3&allowed_recipient_domains=a.example%2Cb.example"
    options = FluxomailConnection.of(as_uri("mail", uri))
    assert options.settings.base_url == "http://127.0.0.1:8026"
    assert options.settings.timeout == 3
    assert options.settings.guard.allowed_domains == ("a.example", "b.example")


@pytest.mark.parametrize(
    ("extra", "path", "value"),
    [
        ({"timeout": "2.5"}, "settings.timeout", 2.5),
        ({"timeout": ""}, "settings.timeout", 15),
        ({"timeout": None}, "settings.timeout", 15),
        ({"max_attempts": "2"}, "settings.max_attempts", 2),
        ({"max_wait": 0}, "settings.max_wait", 0),
        ({"api_version": "2030-01-01"}, "settings.api_version", "2030-01-01"),
        ({"api_version": "-"}, "settings.api_version", ""),
        ({"verify": "false"}, "settings.verify", False),
        ({"verify": True}, "settings.verify", True),
        ({"verify": __file__}, "settings.verify", __file__),
        ({"proxies": {"https": "http://p:1"}}, "settings.proxies", {"https": "http://p:1"}),
        ({"proxies": '{"https": "http://p:1"}'}, "settings.proxies", {"https": "http://p:1"}),
        ({"allow_http": "true"}, "settings.allow_http", True),
        ({"idempotency_namespace": "eu"}, "idempotency_namespace", "eu"),
        ({"key_retention_hours": "48"}, "key_retention_hours", 48),
        ({"poll_share": "0.25"}, "poll_share", 0.25),
        ({"redirect_to": "qa@a.example"}, "settings.guard.redirect_to", "qa@a.example"),
        (
            {"allowed_recipient_domains": "A.example, @b.example."},
            "settings.guard.allowed_domains",
            ("a.example", "b.example"),
        ),
        ({"allowed_recipient_domains": ["a.example"]}, "settings.guard.allowed_domains", ("a.example",)),
    ],
)
def test_extras_as_text_or_as_what_they_are(extra: dict[str, Any], path: str, value: object) -> None:
    found: Any = connection(extra=extra)
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"password": None}, "no API key: put it into the connection's password"),
        ({"host": "http://api.fluxomail.com"}, "unencrypted"),
        ({"host": "https://a b"}, "not a URL"),
        ({"conn_type": "http"}, "its type is 'http': make it 'fluxomail'"),
        ({"extra": "{"}, "extras are not a JSON object"),
        ({"extra": "[]"}, "extras are not a JSON object"),
        ({"extra": {"timeout": "soon"}}, "extra timeout must be a number"),
        ({"extra": {"timeout": True}}, "extra timeout must be a number"),
        ({"extra": {"timeout": -1}}, "timeout must be a number of seconds, 0 or more"),
        ({"extra": {"max_attempts": 1.5}}, "extra max_attempts must be a whole number"),
        ({"extra": {"max_attempts": 0}}, "max_attempts must be 1 or more"),
        ({"extra": {"allow_http": "perhaps"}}, "extra allow_http must be true or false"),
        ({"extra": {"proxies": "http://p:1"}}, "extra proxies must be a JSON object"),
        ({"extra": {"proxies": {"https": 1}}}, "extra proxies must be a JSON object"),
        ({"extra": {"verify": "/no/such.pem"}}, "verify names '/no/such.pem', which does not exist"),
        ({"extra": {"poll_share": 0}}, "poll_share must be above 0"),
        ({"extra": {"poll_share": 1.1}}, "at most 1"),
        ({"extra": {"key_retention_hours": -1}}, "key_retention_hours must be 0 or more"),
        ({"extra": {"redirect_to": "nobody"}}, "extra redirect_to: to is not an e-mail address"),
        ({"extra": {"redirect_to": "a@b.example, c@d.example"}}, "extra redirect_to: to holds more than one address"),
        ({"extra": {"allowed_recipient_domains": 5}}, "must be a list of domains"),
        ({"extra": {"allowed_recipient_domains": "example"}}, "must hold domains such as example.com"),
        ({"extra": {"allowed_recipient_domains": [","]}}, "must hold domains such as example.com"),
        ({"extra": {"alowed_recipient_domains": "a.example"}}, "did you mean 'allowed_recipient_domains'"),
        ({"extra": {"redirect_adress": "a@b.example"}}, "did you mean 'redirect_to'"),
        ({"extra": {"recipient_domains": "b.example"}}, "did you mean 'allowed_recipient_domains'"),
        ({"extra": {"redirectto": "a@b.example"}}, "did you mean 'redirect_to'"),
    ],
)
def test_bad_connections_name_field_and_cure(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(FluxomailValidationError) as caught:
        connection(**fields)
    assert told in str(caught.value)
    assert str(caught.value).startswith("connection 'mail': ")
    assert "fm_key" not in str(caught.value)


def test_an_extra_of_somebody_else_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    connection(extra={"team": "data"})
    assert "extra 'team' means nothing to Fluxomail" in caplog.text


def test_every_field_of_the_form_is_read() -> None:
    values = {"boolean": True, "number": 0.5, "integer": 2}
    special = {
        "redirect_to": "a@b.example",
        "allowed_recipient_domains": "b.example",
        "proxies": '{"https": "http://p"}',
        "verify": __file__,
    }
    default = connection()
    for name, field in CONNECTION_FIELDS.items():
        value = special.get(name, values.get(field["schema"]["type"][0], "some"))
        if name == "poll_share":
            value = 0.25
        assert connection(extra={name: value}) != default, name
