"""A task state store that behaves as Airflow's, which exists from 3.3 on."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any


class StateError(Exception):
    """As Airflow reports what its API server said."""

    def __init__(self, status: int) -> None:
        super().__init__(f"API_SERVER_ERROR: {status}")
        self.error = SimpleNamespace(detail={"status_code": status})


class Store(dict[str, Any]):
    """It outlives the tries and clears of a task.

    :ivar error: raised by every write, if set.
    """

    error: Exception | None = None

    def set(self, key: str, value: Any) -> None:
        if self.error:
            raise self.error
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        if self.error:
            raise self.error
        self.pop(key, None)
