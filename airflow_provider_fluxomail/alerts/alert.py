"""What an alert is and says: its fields, its default subject and bodies, and the texts that they are made of."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airflow_provider_fluxomail.client import text_fields

if TYPE_CHECKING:
    from jinja2 import Environment

#: The kinds of alerts, and their titles in subjects. Kinds are part of idempotency keys: they never change.
TITLES: Final = {
    "failure": "failed",
    "retry": "up for retry",
    "success": "succeeded",
    "execute": "started",
    "skipped": "skipped",
    "input": "input needed",
    "dag_failure": "Dag failed",
    "dag_success": "Dag succeeded",
    "deadline": "deadline missed",
    "sla": "SLA missed",
    "other": "alert",
}
#: The tone of each kind, which decides the color of the HTML; the others are neutral.
TONES: Final = {
    **dict.fromkeys(("failure", "dag_failure", "deadline", "sla"), "bad"),
    **dict.fromkeys(("retry", "input"), "warning"),
    **dict.fromkeys(("success", "dag_success"), "good"),
}
#: Most characters of a subject, of an exception, and of the body of a question to a person.
MAX_SUBJECT: Final = 240
MAX_EXCEPTION: Final = 2_000
MAX_BODY: Final = 4_000
#: Most characters of a fact, and of each body of an alert or a failure email.
MAX_FACT: Final = 1_000
MAX_ALERT_BODY: Final = 256 * 1024
#: Where to find the rest of a body that is shortened.
SEE_LOG: Final = "see the log of the task"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alert:
    """What an alert is about. Templates get it as ``alert``::

        FluxomailNotifier(to="ops@example.org", subject="{{ alert.title }}: {{ alert.name }}")

    .. seealso:: :doc:`/guides/alerts`

    :param kind: kind of the callback, one of :data:`TITLES`.
    :param task_id: empty for an alert about a run.
    :param map_index: -1 for a task that is not mapped.
    :param try_number: try of the task; ``None`` where Airflow does not provide it.
    :param tries: most tries that the task can have.
    :param occasion: tells apart alerts of one kind about the same task or run: the try, the run's number of clears, the
        id of the deadline.
    :param exception: cut, without addresses and without the secrets that Airflow masks.
    :param reason: why a run ended, in Airflow's words.
    :param failed_tasks: failed tasks of a run, as far as Airflow tells callbacks about them.
    :param question: subject of a task that waits for a person, on one line.
    :param body: body of a task that waits for a person.
    :param url: page of the task's log, of the run, or where a person responds.
    :param rows: label and value of each known fact.
    """

    kind: str = "other"
    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1
    try_number: int | None = None
    tries: int | None = None
    occasion: int | str = ""
    exception: str = ""
    reason: str = ""
    failed_tasks: tuple[str, ...] = ()
    question: str = ""
    body: str = ""
    url: str = ""
    rows: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """What happened, in one to three words."""
        return TITLES[self.kind]

    @property
    def tone(self) -> str:
        """``bad``, ``warning``, ``good`` or ``neutral``."""
        return TONES.get(self.kind, "neutral")

    @property
    def name(self) -> str:
        """``dag.task[map index]``, or the Dag alone."""
        index = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"{self.dag_id}.{self.task_id}{index}" if self.task_id else self.dag_id or "Airflow"

    @property
    def link_text(self) -> str:
        """Text of the link to :attr:`url`."""
        return "Answer" if self.kind == "input" else "Open the log" if self.task_id else "Open the run"

    @property
    def subject(self) -> str:
        """The default subject: one line, never empty."""
        if self.question:
            detail = f": {self.question}"
        elif self.try_number is not None and self.tries is not None and self.tries > 1:
            detail = f" (try {self.try_number} of {self.tries})"
        else:
            detail = f" ({self.run_id})" if self.run_id and not self.task_id else ""
        return one_line(f"[Airflow] {self.title}: {self.name}{detail}")

    def render(self, template: str) -> str:
        """Return a default body, ``alert.html`` or ``alert.txt``."""
        return _templates().get_template(template).render(alert=self)


def one_line(text: str) -> str:
    """Return ``text`` as a subject: one line of at most :data:`MAX_SUBJECT` characters."""
    return cut(text_fields.one_line(text), MAX_SUBJECT)


def cut(text: str, most: int) -> str:
    """Return at most ``most`` characters of ``text``."""
    return text if len(text) <= most else text[: most - 1] + "…"


def masked(text: str, *, otherwise: str = "(not shown: Airflow has no secrets masker here)") -> str:
    """Return ``text`` without the secrets that Airflow masks in logs; ``otherwise`` where Airflow cannot mask them."""
    from airflow_provider_fluxomail.airflow_compat import redact
    from airflow_provider_fluxomail.client.html_text import without_surrogates

    # Airflow 2's masker fails on a lone surrogate, and logs the whole text at WARNING.
    text = without_surrogates(text)
    try:
        return str(redact(text))
    except Exception:  # noqa: BLE001 - a deployment whose logging has no masker
        return otherwise


@functools.cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    folder = Path(__file__).parent / "templates"
    return Environment(
        loader=FileSystemLoader(folder), autoescape=select_autoescape(("html",)), trim_blocks=True, lstrip_blocks=True
    )
