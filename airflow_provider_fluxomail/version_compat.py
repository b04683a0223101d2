"""Which Airflow this is."""

from __future__ import annotations

from airflow import __version__ as airflow_version
from packaging.version import Version

#: A release candidate counts as its release.
AIRFLOW_VERSION = Version(Version(airflow_version).base_version).release[:2]
AIRFLOW_V_3_3_PLUS = AIRFLOW_VERSION >= (3, 3)
