"""Airflow's failure emails."""

from __future__ import annotations

INSTANCE = "01a215d1-d71e-7bcb-a3cb-1a8a57477fae"
RUN = "manual__2026-11-26T03:06:43.162776+00:00"
#: As Airflow 3.3.2 writes it.
RECORD = (
    f"id=UUID('{INSTANCE}') task_id='fails' dag_id='alerts' run_id='{RUN}' try_number=2 "
    "dag_version_id=UUID('01a215d1-d704-7048-a8d4-ded869c29f7e') map_index=-1 hostname='vm' context_carrier=None "
    "queue='default' task=<Task(_PythonDecoratedOperator): fails> max_tries=1 "
    "start_date=datetime.datetime(2026, 11, 26, 3, 6, 44, 221455, tzinfo=datetime.timezone.utc) end_date=None "
    "state=<TaskInstanceState.FAILED: 'failed'> is_mapped=False rendered_map_index=None sentry_integration=''"
)
