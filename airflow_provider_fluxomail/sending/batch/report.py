"""The report of a batch: one line of JSON for each message as soon as its outcome is known."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_fluxomail.airflow_compat import is_local, lines_of
from airflow_provider_fluxomail.sending.storage import open_path, storage_errors

if TYPE_CHECKING:
    from types import TracebackType


log = logging.getLogger(__name__)


class Report:
    """A file of JSON Lines, on this machine or wherever ``ObjectStoragePath`` writes. A context manager.

    A local file grows line by line. Object storage takes whole objects only: there all lines are written when the batch
    ends or pauses.

    :param path: text, ``Path`` or ``ObjectStoragePath``; ``None`` writes nothing.
    :param fresh: start a new file; otherwise append to the lines of earlier tries.
    :raises FluxomailValidationError: it cannot be written; only a warning once messages are being sent.
    :raises FluxomailStorageError: it cannot be written now, but perhaps by a later try.
    """

    def __init__(self, path: object, *, fresh: bool) -> None:
        # Not annotated by Airflow: its storage paths are ``universal_pathlib``'s.
        self._path: Any = None if path is None else open_path(path, "report_path")
        self._fresh = fresh
        self._lines: IO[str] | None = None
        self._broken = False

    @property
    def path(self) -> str | None:
        return None if self._path is None else str(self._path)

    def sent(self) -> dict[str, str]:
        """Return what earlier tries sent: digests of recipients by idempotency key."""
        known: dict[str, str] = {}
        if self._path is not None and not self._fresh:
            with (
                self._named_errors(),
                contextlib.suppress(FileNotFoundError),
                self._read() as file,
            ):
                for line in lines_of(file):
                    # The last line of a try that was killed may be incomplete.
                    with contextlib.suppress(ValueError, AttributeError):
                        row = json.loads(line)
                        if row.get("outcome") in ("sent", "replayed"):
                            known[str(row.get("idempotency_key"))] = str(row.get("recipient_digest"))
        return known

    def __enter__(self) -> Report:
        if self._path is None:
            return self
        with self._named_errors(), contextlib.ExitStack() as opened:
            if is_local(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._lines = self._path.open("w" if self._fresh else "a", encoding="utf-8")
            else:
                self._lines = opened.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
                if not self._fresh:
                    with contextlib.suppress(FileNotFoundError), self._read() as earlier:
                        shutil.copyfileobj(earlier, self._lines)
                # Also written at the start, so that a path that cannot be written is known before the first send.
                self._upload()
                opened.pop_all()
        return self

    def write(self, line: dict[str, Any]) -> None:
        """Add a line."""
        if self._lines is not None and not self._broken:
            try:
                self._lines.write(json.dumps(line, ensure_ascii=False) + "\n")
                self._lines.flush()
            except OSError as why:
                self._breaks(why)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lines is None:
            return
        try:
            with self._lines:
                if not is_local(self._path):
                    self._upload()
        except Exception as why:  # noqa: BLE001 - every storage has its own classes
            self._breaks(why)

    def _breaks(self, why: Exception) -> None:
        if not self._broken:
            log.warning("The report %s is incomplete, it can no longer be written: %s", self._path, why)
        self._broken = True

    def _upload(self) -> None:
        assert self._lines is not None, "belongs to an open report"
        self._lines.seek(0)
        with self._path.open("w", encoding="utf-8") as target:
            shutil.copyfileobj(self._lines, target)

    def _read(self) -> Any:
        # A try that was killed may have left half a character.
        return self._path.open("r", encoding="utf-8", errors="replace")

    def _named_errors(self) -> contextlib.AbstractContextManager[None]:
        return storage_errors("report_path", self._path, "write")
