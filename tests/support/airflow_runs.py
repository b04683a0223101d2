"""Runs Dags with ``dag.test()`` and reads what Airflow stored of it, on Airflow 2.11 and 3."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from pathlib import Path
from typing import Any


class DagRuns:
    """The Dags of a folder, to be run in this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._database = folder.parent / "airflow.db"

    def run(self, dag_id: str, conf: dict[str, Any]) -> DagRunResult:
        """Run a Dag to its end."""
        run = self.load(dag_id).test(run_conf=conf)
        return DagRunResult(self, dag_id, run.run_id)

    def load(self, dag_id: str) -> Any:
        """The Dag out of the folder."""
        where = "airflow.dag_processing.dagbag"
        if importlib.util.find_spec(where) is None:  # Airflow 2.11
            where = "airflow.models.dagbag"
        bag = importlib.import_module(where).DagBag(str(self._folder))
        assert not bag.import_errors, bag.import_errors
        return bag.dags[dag_id]

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read the metadata database. Its rows are what Airflow kept, whatever its models call them."""
        connection = sqlite3.connect(self._database, timeout=30)
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    def rendered_fields(self, run: DagRunResult) -> dict[str, str]:
        """Stored rendered fields by task, as text."""
        rows = self.query(
            "SELECT task_id, rendered_fields FROM rendered_task_instance_fields WHERE dag_id = ? AND run_id = ?",
            run.dag_id,
            run.run_id,
        )
        return {task: str(fields) for task, fields in rows}

    def database_dump(self) -> str:
        """Everything in the metadata database, as text."""
        connection = sqlite3.connect(self._database, timeout=30)
        try:
            return "\n".join(connection.iterdump())
        finally:
            connection.close()


class DagRunResult:
    """The result of a Dag run."""

    def __init__(self, dags: DagRuns, dag_id: str, run_id: str) -> None:
        self._dags, self.dag_id, self.run_id = dags, dag_id, run_id

    def _tasks(self, column: str) -> dict[str, Any]:
        rows = self._dags.query(
            f"SELECT task_id, map_index, {column} FROM task_instance WHERE dag_id = ? AND run_id = ?",
            self.dag_id,
            self.run_id,
        )
        return {task if index < 0 else f"{task}[{index}]": value for task, index, value in rows}

    @property
    def states(self) -> dict[str, str]:
        """State by task; mapped ones as ``task[index]``."""
        return self._tasks("state")

    def tries(self, task: str) -> int:
        """How often a task was tried."""
        return int(self._tasks("try_number")[task])

    def xcom(self, task: str, key: str = "return_value") -> Any:
        """A value that a task returned."""
        ((value,),) = self._dags.query(
            "SELECT value FROM xcom WHERE dag_id = ? AND run_id = ? AND task_id = ? AND key = ?",
            self.dag_id,
            self.run_id,
            task,
            key,
        )
        value = json.loads(value)
        return json.loads(value) if isinstance(value, str) and value[:1] in '{["tf' else value
