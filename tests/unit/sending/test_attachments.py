"""Files to attach, read from wherever a Dag names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_fluxomail.airflow_compat import ObjectStoragePath
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.messages import MAX_ATTACHMENT_BYTES, Attachment
from airflow_provider_fluxomail.sending.attachments import read_attachments


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"id\n1\n")
    return path


def test_every_way_to_name_a_file(rows: Path) -> None:
    wanted = Attachment("rows.csv", b"id\n1\n", "text/csv")
    items = [str(rows), rows, f"file://{rows}", ObjectStoragePath(f"file://{rows}"), wanted]
    assert read_attachments(items) == [wanted] * 5
    assert read_attachments([{"filename": "a", "content": "b"}]) == [Attachment("a", "b")]
    assert read_attachments(None) == []


@pytest.mark.parametrize(
    ("items", "told"),
    [
        (["/no/such/file"], "attachments[0]: there is no file '/no/such/file' on this worker"),
        (["/tmp"], "there is no file '/tmp'"),
        ([""], "attachments[0] is empty"),
        (["nosuchscheme://x/y"], "attachments[0]: cannot read 'nosuchscheme://x/y'"),
        ("rows.csv", "attachments must be a list"),
        ({"filename": "a"}, "attachments must be a list"),
        (5, "attachments must be a list"),
        ([5], "attachments[0] must be an Attachment"),
        ([{"path": "x"}], "attachments[0] must be an Attachment"),
        (["a"] * 6, "6 files, at most 5"),
    ],
)
def test_bad_attachments(items: Any, told: str) -> None:
    with pytest.raises(FluxomailValidationError) as caught:
        read_attachments(items)
    assert told in str(caught.value)


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


def test_a_file_that_cannot_be_read(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(FluxomailValidationError, match=r"cannot read .*rows\.csv.*: Permission denied"):
        read_attachments([rows])
