"""Copies an installed wheel's example Dags by the commands of docs/start/installing.md, and lets Airflow parse them.

``cd /elsewhere && PYTHON -P CHECKOUT/scripts/installed_examples.py``, with the Python that has Airflow and the wheel:
outside the checkout, and without its folder on the path, what is imported must be the wheel. An example fails to import
if and only if its docstring says that it needs a later Airflow, or a package that is not here.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "start" / "installing.md"
HEADING: Final = "## The example Dags"


def documented_commands() -> str:
    """The first shell commands of the page's section."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n{HEADING}\n")[1].split("\n## ")[0]
    found = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
    if found is None:
        raise SystemExit(f"{PAGE} has no commands under {HEADING}")
    return found[1]


def release(text: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(number) for number in text.split(".")[:2])


def lacks(docstring: str, airflow: str) -> str:
    """What an example needs, by its docstring, that is not here: ``Needs Airflow 3.3`` or ``Needs PACKAGE``."""
    needs = re.search(r"Needs (Airflow ([\d.]*\d)|apache-airflow-[\w-]+)", docstring)
    if needs is None:
        return ""
    if needs[2]:
        here = release(airflow) >= release(needs[2])
    else:
        here = any(found.name == needs[1] for found in importlib.metadata.distributions())
    return "" if here else needs[1]


def main() -> int:
    """Copy, parse, compare.

    :return: 0 if all examples parse that this Airflow can run.
    """
    package = importlib.util.find_spec("airflow_provider_fluxomail")
    if package is None or package.origin is None or Path(package.origin).is_relative_to(ROOT / package.name):
        raise SystemExit("Install the wheel first: this Python has none, or has the checkout itself.")
    with tempfile.TemporaryDirectory() as home:
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        os.environ |= {"HOME": home, "AIRFLOW_HOME": f"{home}/airflow", "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        subprocess.run(["sh", "-euc", documented_commands()], check=True, cwd=home)
        return parse(Path(home, "airflow", "dags"))


def parse(folder: Path) -> int:
    """Let Airflow parse a Dags folder, and print what it found."""
    examples = sorted(path.relative_to(ROOT / "example_dags") for path in (ROOT / "example_dags").rglob("*.py"))
    where = "airflow.dag_processing.dagbag"
    if importlib.util.find_spec(where) is None:
        where = "airflow.models.dagbag"
    bag = importlib.import_module(where).DagBag(str(folder))
    parsed = {Path(dag.fileloc).resolve() for dag in bag.dags.values()}
    errors = {Path(path).resolve(): text for path, text in bag.import_errors.items()}
    airflow = importlib.metadata.version("apache-airflow")
    wrong = 0
    for name in examples:
        (copy,) = [path.resolve() for path in folder.rglob(name.name) if path.parts[-len(name.parts) :] == name.parts]
        lacking = lacks(copy.read_text(encoding="utf-8").split('"""')[1], airflow)
        # Dags of other providers: .airflowignore, which is copied along, keeps them out.
        ignored = name.stem.endswith("_before")
        result = "parsed" if copy in parsed else "ignored" if ignored else f"needs {lacking}"
        if (copy in parsed) == bool(lacking or ignored) or (ignored and copy in errors):
            result = f"WRONG, {errors.get(copy, result)}"
            wrong += 1
        print(f"  {name}: {result}")
    print(f"{len(examples)} example Dag files on Airflow {airflow}, {wrong} wrong")
    return 1 if wrong or not examples else 0


if __name__ == "__main__":
    sys.exit(main())
