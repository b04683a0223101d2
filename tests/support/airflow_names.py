"""Names that test Dags and tests import, from where each Airflow has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import DAG, Connection, Param, task
    from airflow.sdk.exceptions import TaskDeferred
    from airflow.sdk.log import mask_secret
else:
    try:
        from airflow.sdk import DAG, Connection, Param, task
        from airflow.sdk.log import mask_secret
    except ImportError:  # Airflow 2.11
        from airflow.decorators import task
        from airflow.models.connection import Connection
        from airflow.models.dag import DAG
        from airflow.models.param import Param
        from airflow.utils.log.secrets_masker import mask_secret
    try:
        from airflow.sdk.exceptions import TaskDeferred
    except ImportError:  # before Airflow 3.2
        from airflow.exceptions import TaskDeferred

__all__ = ["DAG", "Connection", "Param", "TaskDeferred", "mask_secret", "task"]
