"""The tables of the migration guides name every argument and setting of the real old classes, and say what is true."""

from __future__ import annotations

import importlib
import importlib.resources
import inspect
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_fluxomail.configuration.old_arguments import OLD_ARGUMENTS
from airflow_provider_fluxomail.email_backend import send_email
from airflow_provider_fluxomail.notifications import FluxomailNotifier
from airflow_provider_fluxomail.operators import FluxomailSendOperator

DOCS = Path(__file__).parents[2] / "docs" / "guides"
SMTP, SENDGRID, SES = (f"migrating-from-{name}.md" for name in ("smtp", "sendgrid", "ses"))
REASON = "needs the dependency group migrating"


def rows(page: str, heading: str) -> dict[str, str]:
    """What becomes of each name in the tables of a section, by name."""
    section = (DOCS / page).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found: dict[str, str] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|") and not cells[0].startswith(("Old ", "---")):
            for name in re.findall(r"`([^`]+)`", cells[0]) or [cells[0]]:
                assert name not in found, f"{name} is there twice"
                found[name] = cells[1].removesuffix("|").strip()
    return found


def parameters(function: Any) -> set[str]:
    named = inspect.signature(inspect.unwrap(function)).parameters.values()
    return {item.name for item in named if item.kind is not item.VAR_KEYWORD} - {"self", "args"}


def old(path: str) -> Any:
    module, _, name = path.partition(":")
    found: Any = pytest.importorskip(module, reason=REASON)
    for part in name.split("."):
        found = getattr(found, part)
    return found


BACKEND = "`email_on_failure` and `send_email`"
IN_TASKS = "In place of `send_email`: operator and decorator"
SMTP_HOOK = "airflow.providers.smtp.hooks.smtp:SmtpHook"
SENDGRID_EMAIL = "airflow.providers.sendgrid.utils.emailer:send_email"
AMAZON = "airflow.providers.amazon.aws"
#: Sections, and the old functions whose arguments their tables name.
TABLES = [
    (SMTP, "`EmailOperator`", ["airflow.providers.smtp.operators.smtp:EmailOperator.__init__"]),
    (SMTP, "`SmtpNotifier`", ["airflow.providers.smtp.notifications.smtp:SmtpNotifier.__init__"]),
    (SMTP, BACKEND, ["airflow.utils.email:send_email", "airflow.utils.email:send_email_smtp"]),
    (SMTP, "`SmtpHook`", [f"{SMTP_HOOK}.__init__", f"{SMTP_HOOK}.send_email_smtp"]),
    (SENDGRID, "`send_email`", [SENDGRID_EMAIL]),
    (SENDGRID, IN_TASKS, [SENDGRID_EMAIL]),
    (SES, "`SesEmailOperator`",
     [f"{AMAZON}.operators.ses:SesEmailOperator.__init__", f"{AMAZON}.operators.base_aws:AwsBaseOperator.__init__"]),
    (SES, "`SesNotifier`", [f"{AMAZON}.notifications.ses:SesNotifier.__init__"]),
    (SES, "`send_email`", [f"{AMAZON}.utils.emailer:send_email"]),
    (SES, "`SesHook`", [f"{AMAZON}.hooks.ses:SesHook.send_email", f"{AMAZON}.hooks.base_aws:AwsGenericHook.__init__"]),
]  # fmt: skip


@pytest.mark.parametrize(("page", "heading", "paths"), TABLES)
def test_every_argument_of_the_old_class_is_in_its_table(page: str, heading: str, paths: list[str]) -> None:
    names: set[str] = set()
    for path in paths:
        names |= parameters(old(path))
    assert len(names) >= 2
    assert names - rows(page, heading).keys() == set()


def test_every_further_argument_and_variable_of_sendgrid_is_in_its_tables() -> None:
    source = inspect.getsource(old(SENDGRID_EMAIL))
    further = set(re.findall(r'kwargs\.get\("(\w+)"', source))
    variables = set(re.findall(r'environ\.get\("(\w+)"', source))
    assert {"from_email", "categories"} <= further
    assert variables
    assert further <= rows(SENDGRID, "`send_email`").keys()
    assert further <= rows(SENDGRID, IN_TASKS).keys()
    assert variables <= rows(SENDGRID, "Configuration").keys()


def test_every_option_of_airflow_is_in_the_table() -> None:
    text = importlib.resources.files("airflow").joinpath("config_templates/config.yml").read_text(encoding="utf-8")
    yaml: Any = importlib.import_module("yaml")
    options = yaml.safe_load(text)
    names = {*options["email"]["options"], *options["smtp"]["options"]}
    assert {"email_backend", "smtp_host"} <= names
    assert names <= rows(SMTP, "Configuration").keys()


def test_every_field_of_an_old_connection_is_in_the_table() -> None:
    source = inspect.getsource(old(SMTP_HOOK))
    extras = set(re.findall(r'extra(?:_dejson)?\.get\("(\w+)"', source)) | {"scope", "tenant_id"}
    assert {"from_email", "retry_limit", "auth_type"} <= extras
    assert extras <= rows(SMTP, "Connection").keys()
    wrapper = old(f"{AMAZON}.utils.connection_wrapper:AwsConnectionWrapper")
    common = {"conn", "conn_id", "conn_type", "login", "password", "schema", "extra_config"}
    fields = set(wrapper.__dataclass_fields__) - common
    assert {"region_name", "role_arn"} <= fields
    assert fields <= rows(SES, "Connection").keys()


@pytest.mark.parametrize(
    ("page", "heading", "new"),
    [
        (SMTP, "`EmailOperator`", FluxomailSendOperator),
        (SENDGRID, IN_TASKS, FluxomailSendOperator),
        (SES, "`SesEmailOperator`", FluxomailSendOperator),
        (SMTP, "`SmtpNotifier`", FluxomailNotifier),
        (SES, "`SesNotifier`", FluxomailNotifier),
    ],
)
def test_what_becomes_an_argument_is_one_and_what_is_refused_is_refused(page: str, heading: str, new: Any) -> None:
    table = rows(page, heading)
    assert len(table) >= 10
    for name, verdict in table.items():
        if verdict == "refused":
            with pytest.raises(TypeError, match=f"{name!r}: (leave it out|use )"):
                new(**{name: "x"})
            continue
        becomes = re.fullmatch(r"becomes `(\w+)`", verdict)
        assert becomes, verdict
        assert becomes[1] in parameters(new.__init__)
        if becomes[1] != name:
            with pytest.raises(TypeError, match=f"{name!r}: use {becomes[1]!r}"):
                new(**{name: "x"})


@pytest.mark.parametrize(("page", "heading"), [(SMTP, BACKEND), (SENDGRID, "`send_email`"), (SES, "`send_email`")])
def test_what_the_email_backend_ignores_it_names(page: str, heading: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    table = rows(page, heading)
    given = {name: "x" for name, verdict in table.items() if verdict == "ignored"}
    assert len(given) >= 3
    kept = {name for name, verdict in table.items() if verdict == f"becomes `{name}`"}
    assert kept <= parameters(send_email)
    assert kept | given.keys() == table.keys()
    send_email("ops@example.org", "Hi", "<p>Text</p>", dryrun=True, **given)  # type: ignore[arg-type]
    (line,) = [text for text in caplog.messages if text.startswith("Ignored arguments: ")]
    assert set(line.removeprefix("Ignored arguments: ").split(". ")[0].split(", ")) == given.keys()


def test_all_that_the_guides_say_is_refused_has_its_advice() -> None:
    text = "".join((DOCS / page).read_text(encoding="utf-8") for page in (SMTP, SENDGRID, SES))
    assert {*re.findall(r"^\| `(\w+)` \| refused \|", text, re.MULTILINE)} <= OLD_ARGUMENTS.keys()


@pytest.mark.parametrize("page", [SMTP, SENDGRID, SES])
def test_the_guides_say_where_meaning_changes(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for words in (
        "get an email each",
        "do not see each other",
        "`cc` and `bcc` go with",
        "From identity",
        "inline images",
    ):
        assert words in text.split("## What changes in meaning")[1].split("\n## ")[0], words
