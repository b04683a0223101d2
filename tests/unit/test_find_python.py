"""The Makefile's search for a Python, and what it says when there is none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "find_python.sh"


def search(folder: Path, **pythons: str) -> subprocess.CompletedProcess[str]:
    """Search among programs that name a version, or ``"broken"`` ones, or ``"bare"`` ones without venv."""
    candidates = []
    for name, version in pythons.items():
        program = folder / name
        number, _, lacks = version.partition(" ")
        program.write_text(
            "#!/bin/sh\n"
            f'case "$2" in *version_info*) [ {number} != broken ] && echo {number} ;; *) [ -z "{lacks}" ] ;; esac\n'
        )
        program.chmod(0o755)
        candidates.append(str(program))
    command = ["sh", str(SCRIPT), "3.0", "3.13", *candidates, str(folder / "missing")]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("pythons", "found"),
    [
        ({"a": "3.12.1", "b": "3.11.7"}, "a"),
        ({"a": "3.10.13", "b": "3.13.0", "c": "3.11.7"}, "c"),
        ({"a": "broken", "b": "2.7.18", "c": "3.12.0"}, "c"),
        ({"a": "3.12.1 novenv", "b": "3.11.7"}, "b"),
    ],
)
def test_the_first_that_fits(tmp_path: Path, pythons: dict[str, str], found: str) -> None:
    done = search(tmp_path, **pythons)
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / found))


def test_none_fits(tmp_path: Path) -> None:
    done = search(tmp_path, a="3.10.13", b="3.13.0", c="3.12.1 novenv", d="broken", e="2.7.18")
    assert (done.returncode, done.stdout) == (1, "")
    first, tried, cure = done.stderr.splitlines()
    assert "needs Python 3.11 or newer, and Airflow 3.0 runs on Python below 3.13." in first
    for text in ("a is 3.10.13;", "b is 3.13.0;", "c is 3.12.1 without its venv module", "e is 2.7.18."):
        assert f"{tmp_path}/{text}" in tried
    assert f"{tmp_path}/d is" not in tried, "it does not run"
    assert "PYTHON=/path/to/python" in cure
