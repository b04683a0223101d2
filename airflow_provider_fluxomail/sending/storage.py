"""Paths on this machine and in object storage, and which of their errors a retry may fix."""

from __future__ import annotations

import contextlib
import errno
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from airflow_provider_fluxomail.airflow_compat import is_local
from airflow_provider_fluxomail.client.errors import FluxomailError, FluxomailStorageError, FluxomailValidationError
from airflow_provider_fluxomail.client.redaction import redact

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import ObjectStoragePath

#: Errors that a later try would meet again. Anything else that a file system or storage library raises is transient.
_LASTING: Final = (
    FileExistsError, FileNotFoundError, ImportError, IsADirectoryError, NotADirectoryError, NotImplementedError,
    PermissionError,
)  # fmt: skip
_LASTING_CODES: Final = frozenset({errno.ELOOP, errno.ENAMETOOLONG, errno.EROFS})
#: Of S3, for which its library raises ``PermissionError``: credentials are renewed, and a clock is set.
_PASSING_CODES: Final = frozenset({"ExpiredToken", "RequestExpired", "RequestTimeTooSkewed"})


@contextlib.contextmanager
def storage_errors(field: str, path: object, verb: str = "read") -> Iterator[None]:
    """Turn errors of a storage into one that names field and path, permanent only if a later try would meet it again.

    :raises FluxomailValidationError: no such file, not a file, no permission, no library for this storage.
    :raises FluxomailStorageError: anything else. Every storage has its own classes for resets and timeouts.
    """
    try:
        yield
    except FluxomailError:
        raise
    except Exception as error:
        why = getattr(error, "strerror", None) or f"{type(error).__name__}: {redact(str(error))}"
        kind = FluxomailValidationError if _is_lasting(error) else FluxomailStorageError
        raise kind(f"{field}: cannot {verb} {shown(path)!r}: {why}") from error


def _is_lasting(error: Exception) -> bool:
    response = getattr(error.__cause__, "response", None)
    details = response.get("Error") if isinstance(response, Mapping) else None
    if isinstance(details, Mapping) and details.get("Code") in _PASSING_CODES:
        return False
    return isinstance(error, _LASTING) or getattr(error, "errno", None) in _LASTING_CODES


def shown(path: object) -> str:
    """Return a path for an error: without addresses, and without a user and password before the host."""
    return redact(re.sub(r"//[^/]*@", "//", str(path)))


def open_path(item: Any, field: str) -> Path | ObjectStoragePath:
    """Return the path of a text (with ``://``: a URL that ``ObjectStoragePath`` opens) or a path object."""
    _check_text(item, field)
    given = shown(item)
    with storage_errors(field, given):
        try:
            if isinstance(item, str) and "://" in item:
                from airflow_provider_fluxomail.airflow_compat import ObjectStoragePath

                item = ObjectStoragePath(item)
            # Finds a storage without its library, and an unknown one, which would only fail when it is used.
            getattr(item, "fs", None)
            path: Path | ObjectStoragePath = item if hasattr(item, "open") else Path(item)
        except (ValueError, TypeError) as error:
            raise FluxomailValidationError(f"{field}: cannot read {given!r}: {error}") from error
    return path


def open_below(item: Any, folder: Any, field: str, folder_field: str) -> Path | ObjectStoragePath:
    """Return the path of a file below a folder, where relative paths begin; a path that leads out of it is an error.

    Local paths are followed through symbolic links.
    """
    base: Any = open_path(folder, folder_field)
    text = str(item)
    _check_text(text, field)
    if not is_local(base) and getattr(base, "protocol", "") in ("file", "local"):
        base = Path(base.path)
    if is_local(base):
        with storage_errors(field, text):
            base = base.resolve()
            found: Path = (base / re.sub("^(file|local)://(?=/)", "", text)).resolve()
        if found != base and found.is_relative_to(base):
            return found
    else:
        if text.startswith(f"{base.protocol}://"):
            # As the folder is written: Airflow 2.11 adds a slash.
            text = str(type(base)(text))
        rest = text.removeprefix(str(base).rstrip("/") + "/")
        if not {"", ".", ".."}.intersection(re.split(r"[/\\]", unquote(rest))) and "::" not in rest:
            below: ObjectStoragePath = base / rest
            return below
    raise FluxomailValidationError(
        f"{field} is not below {folder_field}: give a path below it, or filename and content of the file"
    )


def _check_text(item: object, field: str) -> None:
    if isinstance(item, str) and (not item.strip() or "\0" in item):
        raise FluxomailValidationError(f"{field} is empty or holds a NUL character: give a path")


def check_is_file(path: Path | ObjectStoragePath, field: str) -> None:
    """Check that there is a file. If its storage does not respond, it does not count as missing."""
    with storage_errors(field, path):
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            mode = stat.S_IFDIR
        # Some storages report no kind. A device or a pipe on this machine could be read without end.
        if stat.S_ISDIR(mode) or (is_local(path) and not stat.S_ISREG(mode)):
            raise FluxomailValidationError(
                f"{field}: there is no file {shown(path)!r} on this worker: give a path that every worker sees, such "
                "as a shared volume or an ObjectStoragePath"
            )
