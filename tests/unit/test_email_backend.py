"""What the backend makes of a subject that holds Airflow's record of a task."""

from __future__ import annotations

import pytest

from airflow_provider_fluxomail.email_backend import readable_subject
from tests.support.failure_mails import INSTANCE, RECORD, RUN


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        ({}, f"Airflow alert: alerts.fails {RUN} [failed] try 2"),
        ({"Airflow alert: ": ""}, f"alerts.fails {RUN} [failed] try 2"),
        ({"map_index=-1": "map_index=3"}, f"Airflow alert: alerts.fails {RUN} map_index=3 [failed] try 2"),
        ({"state=<TaskInstanceState.FAILED: 'failed'>": "state=None"}, f"Airflow alert: alerts.fails {RUN} try 2"),
        ({"'fails'": '"it\'s"'}, f"Airflow alert: alerts.it's {RUN} [failed] try 2"),
        ({"'fails'": r"'it\'s \"so\"'"}, f"Airflow alert: alerts.it's \"so\" {RUN} [failed] try 2"),
        ({"'alerts'": "'übung'"}, f"Airflow alert: übung.fails {RUN} [failed] try 2"),
        ({"'default'": "' state=<X: '"}, f"Airflow alert: alerts.fails {RUN} [failed] try 2"),
        ({"context_carrier=None": "context_carrier={'a': 'b}'}"}, f"Airflow alert: alerts.fails {RUN} [failed] try 2"),
        ({"sentry_integration=''": "sentry_integration='' to all"},
         f"Airflow alert: alerts.fails {RUN} [failed] try 2 to all"),
        # What cannot be read ends the record, and what was read by then counts.
        ({"task=<Task(": "task=<<Task("}, f"Airflow alert: alerts.fails {RUN} try 2"),
    ],
)  # fmt: skip
def test_the_record_of_a_task_becomes_its_name(change: dict[str, str], subject: str) -> None:
    given = f"Airflow alert: {RECORD}"
    for old, new in change.items():
        assert old in given
        given = given.replace(old, new)
    assert readable_subject(given) == subject


@pytest.mark.parametrize(
    "subject",
    [
        "Rows loaded",
        "",
        "Airflow alert: <TaskInstance: alerts.fails manual__2026 [failed]>",
        f"Airflow alert: id=UUID('{INSTANCE}') task_id='fails'",
        f"Airflow alert: id=UUID('{INSTANCE}') task_id=None dag_id='d' run_id='r' try_number=x",
    ],
)
def test_other_subjects_stay(subject: str) -> None:
    assert readable_subject(subject) == subject
