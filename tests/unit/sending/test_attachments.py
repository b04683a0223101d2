"""Files to attach, read from wherever a Dag names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_fluxomail.airflow_compat import ObjectStoragePath
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.messages import MAX_ATTACHMENT_BYTES, Attachment
from airflow_provider_fluxomail.sending.attachments import read_attachments
from tests.support.attachments import rows

__all__ = ["rows"]


def test_every_way_to_name_a_file(rows: Path) -> None:
    wanted = Attachment("rows.csv", b"id\n1\n", "text/csv")
    items = [str(rows), rows, f"file://{rows}", ObjectStoragePath(f"file://{rows}"), wanted]
    assert read_attachments(items) == [wanted] * 5
    assert read_attachments([{"filename": "a", "content": "b"}]) == [Attachment("a", "b")]
    assert read_attachments(None) == []


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path) -> None:
    huge = tmp_path / "dump"
    with huge.open("wb") as file:
        file.truncate(50 * 2**30)  # sparse: takes no room on the disk, but would in memory
    with pytest.raises(FluxomailValidationError, match=r"51200\.0 MiB together, at most 10 MiB"):
        read_attachments([str(huge)])


def test_the_total_counts(tmp_path: Path) -> None:
    half = tmp_path / "half"
    half.write_bytes(b"x" * (MAX_ATTACHMENT_BYTES // 2))
    assert len(read_attachments([half, half])) == 2
    with pytest.raises(FluxomailValidationError, match="at most 10 MiB"):
        read_attachments([half, half, Attachment("one", b"x")])
