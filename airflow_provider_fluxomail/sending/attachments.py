"""Reads files to attach, from local paths and object storage."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.messages import MAX_ATTACHMENT_BYTES, Attachment, check_attachment_limits
from airflow_provider_fluxomail.client.private import private

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import ObjectStoragePath


@private
def read_attachments(items: object) -> list[Attachment]:
    """Read attachments that are paths (see :func:`open_path`); return others unchanged.

    No more than the allowed size is read: a wrong path to a 40 GB dump must not fill a worker's memory.
    """
    if items is None:
        return []
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise FluxomailValidationError("attachments must be a list of paths or attachments")
    files: list[Attachment] = []
    size = 0
    listed = list(items)
    check_attachment_limits([0] * len(listed))
    for index, item in enumerate(listed):
        field = f"attachments[{index}]"
        if isinstance(item, str | os.PathLike) or hasattr(item, "open"):
            file = _read(item, field, size)
        else:
            file = Attachment.of(item, field)
        size += len(file.data)
        check_attachment_limits([size])
        files.append(file)
    return files


def _read(item: Any, field: str, taken: int) -> Attachment:
    path = open_path(item, field)
    try:
        if not path.is_file():
            raise FluxomailValidationError(  # noqa: TRY301 - re-raised unchanged below
                f"{field}: there is no file {str(path)!r} on this worker: give a path that every worker sees, such as "
                "a shared volume or an ObjectStoragePath"
            )
        with path.open("rb") as file:
            # One byte more than allowed reveals a file that is too large, whatever size was reported for it.
            content = file.read(MAX_ATTACHMENT_BYTES - taken + 1)
        if taken + len(content) > MAX_ATTACHMENT_BYTES:
            # The error names the file's whole size; the caller only knows how much was read.
            check_attachment_limits([taken, path.stat().st_size])
    except FluxomailValidationError:
        raise
    except (OSError, ValueError, TypeError, ImportError) as error:
        # A file system without its package, or an unknown scheme, only fails when it is used.
        why = getattr(error, "strerror", None) or error
        raise FluxomailValidationError(f"{field}: cannot read {str(item)!r}: {why}") from error
    return Attachment(filename=path.name, content=content, content_type=mimetypes.guess_type(path.name)[0])


def open_path(item: Any, field: str) -> Path | ObjectStoragePath:
    """Return the path of a text (with ``://``: a URL that ``ObjectStoragePath`` opens) or a path object."""
    if isinstance(item, str) and not item.strip():
        raise FluxomailValidationError(f"{field} is empty: give a path")
    if isinstance(item, str) and "://" in item:
        from airflow_provider_fluxomail.airflow_compat import ObjectStoragePath

        try:
            return ObjectStoragePath(item)
        except (ValueError, TypeError, ImportError) as error:
            raise FluxomailValidationError(f"{field}: cannot read {item!r}: {error}") from error
    return Path(item) if isinstance(item, str) else item
