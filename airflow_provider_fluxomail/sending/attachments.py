"""Reads files to attach, from local paths and object storage."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.messages import MAX_ATTACHMENT_BYTES, Attachment, check_attachment_limits
from airflow_provider_fluxomail.client.private import private
from airflow_provider_fluxomail.sending.storage import check_is_file, open_below, open_path, storage_errors

#: In place of a folder: no file may be attached by its path.
NO_PATHS: Final = ""


@private
def read_attachments(items: object, *, folder: object = None) -> list[Attachment]:
    """Read attachments that are paths (see :func:`.open_path`); return others unchanged.

    No more than the allowed size is read: a wrong path to a 40 GB dump must not fill a worker's memory.

    :param folder: paths must lie below it (see :func:`.open_below`); by default the author of the Dag wrote them.
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
            file = _read(item, field, size, folder)
        else:
            file = Attachment.of(item, field)
        size += len(file.data)
        check_attachment_limits([size])
        files.append(file)
    return files


def _read(item: Any, field: str, taken: int, folder: Any) -> Attachment:
    if folder is None:
        path = open_path(item, field)
    elif not str(folder).strip():
        raise FluxomailValidationError(
            f"{field} is a path, and this message was not written in the Dag: set attachment_folder to the folder that "
            "such files are below, or give filename and content of the file"
        )
    else:
        path = open_below(item, folder, field, "attachment_folder")
    check_is_file(path, field)
    with storage_errors(field, path):
        with path.open("rb") as file:
            # One byte more than allowed reveals a file that is too large, whatever size was reported for it.
            content = file.read(MAX_ATTACHMENT_BYTES - taken + 1)
        if taken + len(content) > MAX_ATTACHMENT_BYTES:
            # The error names the file's whole size; the caller only knows how much was read.
            check_attachment_limits([taken, path.stat().st_size])
    return Attachment(filename=path.name, content=content, content_type=mimetypes.guess_type(path.name)[0])
