"""Functions that return what is sent, in tasks that fail once after all was sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.airflow_names import DAG, task


def fail_once(context: Any, _: Any = None) -> None:
    """End the first try as a failure, before its result is kept."""
    if context["ti"].try_number == 1:
        raise RuntimeError("lost after it was sent")


def mail(to: str) -> dict[str, Any]:
    """A message to one recipient."""
    return {"to": f"{to}@example.org", "subject": "Reminder", "content": "Friday at noon."}


with DAG(
    "taskflow",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retry_delay": timedelta(0)},
):

    @task.fluxomail_send(post_execute=fail_once, retries=1)
    def single(run_id: str | None = None) -> dict[str, Any]:
        """One message."""
        return {**mail("single"), "subject": f"Report of {run_id}"}

    @task.fluxomail_send(post_execute=fail_once, retries=1)
    def several(ti: Any = None) -> list[dict[str, Any]]:
        """A list, in another order when it is made again."""
        people = ["several-1", "several-2", "several-3"]
        return [mail(person) for person in (people if ti.try_number == 1 else reversed(people))]

    @task.fluxomail_send(post_execute=fail_once, retries=1)
    def each(person: str) -> dict[str, Any]:
        """One message of each of mapped tasks."""
        return mail(person)

    @task.fluxomail_send(retries=1)
    def some() -> list[dict[str, Any]]:
        """A list of which not everything is sent in the first try."""
        return [mail(person) for person in ("some-1", "some-2", "some-3")]

    single()
    several()
    each.expand(person=["each-0", "each-1", "each-2"])
    some()
