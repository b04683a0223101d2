"""Object storage that fails: files of this machine behind Airflow's storage paths, with an error at a chosen moment."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from fsspec.implementations.local import LocalFileSystem

_numbers: Final = itertools.count()


class StorageResetError(Exception):
    """What a storage's library raises: no ``OSError``."""


@dataclasses.dataclass
class FlakyStorage:
    """Fails with ``error`` on the operation ``at``: ``info``, ``open``, or ``read`` after so many bytes.

    :param opens: files that may be opened before.
    """

    conn_id: str
    error: Exception | None = None
    at: str = "read"
    after: int = 0
    opens: int = 0

    def url(self, path: Path) -> str:
        return f"file://{self.conn_id}@{path}"

    def reach(self, operation: str) -> None:
        if self.error is not None and self.at == operation and self.opens <= 0:
            raise self.error


class _Files(LocalFileSystem):  # type: ignore[misc]
    cachable = False

    def __init__(self, storage: FlakyStorage) -> None:
        super().__init__()
        self.storage = storage

    def info(self, path: Any, **kwargs: Any) -> Any:
        self.storage.reach("info")
        return super().info(path, **kwargs)

    def _open(self, path: Any, mode: str = "rb", **kwargs: Any) -> Any:
        self.storage.reach("open")
        if "r" not in mode:
            return super()._open(path, mode, **kwargs)
        raw = _Body(Path(self._strip_protocol(path)).read_bytes(), self.storage, failing=self.storage.opens <= 0)
        self.storage.opens -= 1
        return io.BufferedReader(raw, 64)


class _Body(io.RawIOBase):
    def __init__(self, content: bytes, storage: FlakyStorage, *, failing: bool) -> None:
        self._content, self._storage, self._failing, self._at = content, storage, failing, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._failing and self._at >= self._storage.after:
            self._storage.reach("read")
        piece = self._content[self._at : self._at + min(len(buffer), 64)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


@contextlib.contextmanager
def attached(protocol: str, conn_id: str | None, files: Any) -> Iterator[None]:
    """Let Airflow's storage paths of a protocol and connection use a file system."""
    try:
        store = importlib.import_module("airflow.sdk.io.store")
    except ImportError:
        store = importlib.import_module("airflow.io.store")
    store.attach(protocol, conn_id, fs=files)
    try:
        yield
    finally:
        del store._STORE_CACHE[f"{protocol}-{conn_id}" if conn_id else protocol]


@pytest.fixture
def flaky_storage() -> Iterator[FlakyStorage]:
    """Object storage without a fault yet."""
    storage = FlakyStorage(f"flaky{next(_numbers)}")
    with attached("file", storage.conn_id, _Files(storage)):
        yield storage
