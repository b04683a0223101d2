"""Which Airflow this is."""

from __future__ import annotations

from airflow import __version__ as airflow_version
from packaging.version import Version

#: A release candidate counts as its release.
AIRFLOW_VERSION = Version(Version(airflow_version).base_version).release[:2]
AIRFLOW_V_3_3_PLUS = AIRFLOW_VERSION >= (3, 3)


def is_unmapped(task: object) -> bool:
    """Tell whether Airflow has just made this operator, in a worker, out of a mapped one. Private to all releases."""
    return bool(getattr(task, "_BaseOperator__from_mapped", False))
