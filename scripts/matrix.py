"""``make matrix``: ``make test`` on each supported Airflow, with one table at the end.

The table goes into the README, between its markers: a row for each release that was tested, with the date; the rows of
the others stay. Exits with 1 if a test failed.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Final

from scripts.installs import Release, find_python, releases

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = ROOT / "README.md"
MARKERS: Final = ("<!-- supported versions: written by make matrix -->\n", "<!-- end of supported versions -->")
#: Of what differs most between deployments.
PACKAGES: Final = ("apache-airflow-providers-common-compat", "requests", "httpx", "fastapi")


@dataclasses.dataclass
class Row:
    """What the tests came to on one Airflow."""

    airflow: str
    python: str
    packages: dict[str, str]
    passed: int = 0
    failed: int = 0
    skipped: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


def main() -> int:
    """Run the tests on each, print the table, and write it into the README."""
    known = [release for release in releases() if release.name != "3.3.0"]
    parser = argparse.ArgumentParser(prog="make matrix")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(one.name for one in known)}; all of them by default")
    names = parser.parse_args().names
    rows = []
    for release in known:
        if not names or release.name in names:
            rows.append(test(release))
            # Each at once: what is interrupted later has been tested all the same.
            write(table(rows[-1:]))
    print("\n" + "\n".join(table(rows)))
    for row in rows:
        print(f"\nSkipped on Airflow {row.airflow}:")
        for reason, count in row.skipped.most_common():
            print(f"  {count} x {reason}")
    print(f"\nWritten to {README.name}.")
    return 1 if any(row.failed or not row.passed for row in rows) else 0


def test(release: Release) -> Row:
    """Run ``make test`` for one line of releases."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        make = ["make", "test", f"AIRFLOW={release.name}", f"PYTHON={find_python(release)}"]
        subprocess.run(make, cwd=ROOT, check=False, env=os.environ | {"PYTEST_ADDOPTS": f"--junitxml={report}"})
        venv = ROOT / (".venv" if release.day == "today" else f".venv-{release.name}")
        row = Row(*versions(venv / "bin" / "python"))
        if report.exists():
            count(report, row)
    return row


def versions(python: Path) -> tuple[str, str, dict[str, str]]:
    """Versions of Airflow, Python and what differs most."""
    program = """
import importlib.metadata, json, platform
installed = {one.name.lower(): one.version for one in importlib.metadata.distributions()}
print(json.dumps([platform.python_version(), installed]))
"""
    output = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout
    number, installed = json.loads(output)
    return installed["apache-airflow"], number, {name: installed.get(name, "-") for name in PACKAGES}


def count(report: Path, row: Row) -> None:
    """Count a JUnit report of pytest."""
    for case in ET.parse(report).getroot().iter("testcase"):
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            row.failed += 1
        elif skipped is not None:
            row.skipped[str(skipped.get("message"))] += 1
        else:
            row.passed += 1


def table(rows: list[Row]) -> list[str]:
    """The lines of the table, as Markdown."""
    packages = [name.removeprefix("apache-airflow-providers-") for name in PACKAGES]
    head = ["Apache Airflow", "Python", *packages, "Passed", "Failed", "Skipped", "Tested on"]
    today = f"{datetime.datetime.now(datetime.UTC).date():%d %B %Y}"
    lines = [head, ["---"] * len(head)]
    for row in rows:
        counts = (row.passed, row.failed, sum(row.skipped.values()))
        lines.append([row.airflow, row.python, *row.packages.values(), *(f"{number:,}" for number in counts), today])
    return [f"| {' | '.join(line)} |" for line in lines]


def write(lines: list[str]) -> None:
    """Put the rows into the README's table; those of releases that were not tested now stay."""
    begin, end = MARKERS
    head, new = lines[:2], {minor(line): line for line in lines[2:]}
    text = README.read_text(encoding="utf-8")
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"{README} has no place for the table: {begin.strip()} ... {end}")
    before, _, rest = text.partition(begin)
    found, _, after = rest.partition(end)
    old = {minor(line): line for line in found.splitlines() if re.match(r"\| \d", line)}
    rows = dict(sorted((old | new).items())).values()
    body = "\n".join(["", *head, *rows, ""])
    README.write_text(f"{before}{begin}{body}\n{end}{after}", encoding="utf-8")


def minor(line: str) -> tuple[int, ...]:
    """Major and minor of the Airflow in a row's first cell."""
    return tuple(int(number) for number in line.split("|")[1].split(".")[:2])


if __name__ == "__main__":
    sys.exit(main())
