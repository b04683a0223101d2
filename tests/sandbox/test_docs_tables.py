"""The tables of the sandbox's page are those of its models."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from airflow_provider_fluxomail.sandbox.app import openapi_document
from airflow_provider_fluxomail.sandbox.cli import build_parser
from airflow_provider_fluxomail.sandbox.faults.models import MODELS, Fault
from airflow_provider_fluxomail.sandbox.switches import Switches

ROOT = Path(__file__).parents[2]
pytest.importorskip("sphinx", reason="the documentation is built on one Airflow only")


CONF = f"""\
import sys
sys.path.insert(0, {str(ROOT / "docs" / "_ext")!r})
extensions = ["myst_parser", "sandbox_docs"]
html_theme = "basic"
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The rows by their first cell, from a documentation that has nothing but the tables of the sandbox's page."""
    (page,) = (ROOT / "docs").rglob("sandbox.md")
    tables = re.findall(r"```\{sandbox-table\} .*?```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(tables) == 4
    folder = tmp_path_factory.mktemp("docs")
    (folder / "index.md").write_text("# Tables\n\n" + "\n\n".join(tables) + "\n\n[copy](/openapi.json)\n")
    (folder / "conf.py").write_text(CONF)
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(folder), str(folder / "out")]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert json.loads((folder / "openapi.json").read_text()) == openapi_document()
    text = (folder / "out" / "index.html").read_text()
    found = {}
    for row in re.findall(r"<tr.*?</tr>", text, re.DOTALL):
        cells = re.findall(r"<td>(.*?)</td>", row, re.DOTALL)
        if cells:
            name, *rest = (" ".join(html.unescape(re.sub(r"<.*?>", "", cell)).split()) for cell in cells)
            found[name] = rest
    return found


def test_every_name_has_a_row(rows: dict[str, list[str]]) -> None:
    kinds = {get_args(model.model_fields["kind"].annotation)[0]: model for model in MODELS}
    options = {action.option_strings[0] for action in build_parser()._actions if action.dest != "help"}
    assert {name.split()[0] for name in rows} == set(kinds) | set(Switches.model_fields) | options
    for kind, model in kinds.items():
        for name in set(model.model_fields) - set(Fault.model_fields):
            assert name in rows[kind][-1]


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("idempotency_life", ["seconds", "86400"]),
        ("stream_life", ["seconds, null", "null"]),
        ("validation_status", ["400, 422", "400"]),
        ("attachments_in_plan", ["true, false", "true"]),
        ("page_size", ["number", "100", "Most rows of a page; a larger limit gets these."]),
        ("error_before_store", ["A 500.", "no", ""]),
        ("cut_in_body", ["The connection is cut in the middle of the response’s body.", "yes", ""]),  # noqa: RUF001
        ("proxy_error_page", ["The HTML page of a proxy in front of the API.", "by after_store"]),
        ("stream_drop", ["The connection of the stream is cut.", "after_events: events that are sent first"]),
        ("--port", ["TCP port; 0 picks a free one", "8026"]),
        ("--data FILE", ["SQLite file that keeps the state across restarts; in memory without it", ""]),
    ],
)
def test_rows(rows: dict[str, list[str]], name: str, cells: list[str]) -> None:
    assert rows[name][: len(cells)] == cells
