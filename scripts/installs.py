"""``make installs``: the wheel beside each Airflow as deployments pin it, and the example Dags run on it.

For each release of ``constraints/releases.txt``: a clean environment with Airflow and its constraints; then the wheel,
which must change no package that was there; then ``scripts/installed.py`` in it. With ``--constraints FOLDER`` another
set of files is used, one ``airflow-RELEASE*.txt`` each, such as Airflow's own published constraints.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
CONSTRAINTS: Final = ROOT / "constraints"
#: What runs in the environment; copied, so that what is imported there is the wheel and not the checkout.
SCRIPTS: Final = (
    "__init__.py", "installed.py", "testbed/__init__.py", "testbed/airflow2_runner.py", "testbed/airflow_runner.py",
    "testbed/processes.py", "testbed/sandbox.py",
)  # fmt: skip
PYTHONS: Final = ("3.12", "3.11", "3.13", "3.14")


@dataclasses.dataclass(frozen=True)
class Release:
    """A row of ``constraints/releases.txt``."""

    name: str
    version: str
    day: str
    below: str


def releases() -> list[Release]:
    """The supported releases, oldest first."""
    lines = (CONSTRAINTS / "releases.txt").read_text(encoding="utf-8").splitlines()
    rows = [Release(*line.split()) for line in lines if line and not line.startswith("#")]
    return [row for row in rows if row.name != "lowest"]


class InstallError(Exception):
    """A release on which the wheel does not do what it should."""


def main() -> int:
    """Check the releases that are named, or all."""
    known = {release.name: release for release in releases()}
    parser = argparse.ArgumentParser(prog="make installs")
    parser.add_argument("names", nargs="*", default=list(known), help=f"of {', '.join(known)}")
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--constraints", type=Path, default=CONSTRAINTS)
    parser.add_argument("--uv", default="uv")
    # Each waits for Airflow's processes half of the time.
    parser.add_argument("--jobs", type=int, default=2, help="releases at once (2)")
    arguments = parser.parse_args()

    def try_release(name: str) -> bool:
        release = known[name]
        began = time.monotonic()
        log: list[str] = []
        print(f"==> Airflow {release.version}: installing and running", flush=True)
        try:
            check(release, arguments.wheel.resolve(), constraints_of(release, arguments.constraints), arguments.uv, log)
            result = "ok"
        except InstallError as error:
            result = f"FAILED: {error}"
        log.append(f"==> Airflow {release.version}: {result}, {time.monotonic() - began:.0f} s\n")
        print("".join(log), end="", flush=True)
        return result == "ok"

    with ThreadPoolExecutor(arguments.jobs) as pool:
        return 0 if all(list(pool.map(try_release, arguments.names))) else 1


def constraints_of(release: Release, folder: Path) -> Path:
    """The constraints file of a release in a folder."""
    if folder == CONSTRAINTS:
        return folder / f"airflow-{release.name}.txt"
    found = sorted(folder.glob(f"airflow-{release.version}*.txt"))
    if len(found) != 1:
        raise SystemExit(f"{folder} has {len(found)} files named airflow-{release.version}*.txt, not one")
    return found[0]


def check(release: Release, wheel: Path, constraints: Path, uv: str, log: list[str]) -> None:
    """Install, compare, run.

    :param log: receives what is printed.
    :raises InstallError: the wheel could not be installed, changed what was there, or does not work.
    """
    run = functools.partial(run_command, log=log)
    with tempfile.TemporaryDirectory(prefix="fluxomail-install-") as scratch:
        folder = Path(scratch)
        python = folder / "venv" / "bin" / "python"
        run(uv, "venv", "--quiet", "--python", find_python(release), str(folder / "venv"))
        install = (
            uv,
            "pip",
            "install",
            "--quiet",
            "--compile-bytecode",
            "--python",
            str(python),
            "--constraint",
            str(constraints),
        )
        airflow = f"apache-airflow=={release.version}"
        run(*install, airflow)
        before = freeze(uv, python)
        run(*install, airflow, f"airflow-provider-fluxomail[sandbox] @ {wheel.as_uri()}")
        after = freeze(uv, python)
        if changed := sorted(before - after):
            raise InstallError(f"the wheel changed {', '.join(changed)}")
        added = sorted(line.partition(" @ ")[0] for line in after - before)
        log.append(f"==> Airflow {release.version} with {len(before)} packages; added {', '.join(added)}\n")
        run(uv, "pip", "check", "--quiet", "--python", str(python))
        for name in SCRIPTS:
            copy = folder / "scripts" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / "scripts" / name, copy)
        run(str(python), "-m", "scripts.installed", cwd=folder)


def find_python(release: Release) -> str:
    """An interpreter that the release runs on: of PATH, or one that pyenv keeps."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [
        path for minor in PYTHONS for path in (f"python{minor}", *map(str, sorted(kept.glob(f"{minor}.*/bin/python"))))
    ]
    found = subprocess.run(
        ["sh", str(ROOT / "scripts" / "find_python.sh"), release.version, release.below, *candidates, "python3"],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return found.stdout.strip()


def freeze(uv: str, python: Path) -> set[str]:
    """What is installed."""
    done = subprocess.run([uv, "pip", "freeze", "--python", str(python)], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())


def run_command(*command: str, log: list[str], cwd: Path | None = None) -> None:
    """Run a command without the settings of another Airflow.

    :raises InstallError: it failed.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV") and not name.startswith("AIRFLOW_")
    }
    if cwd is not None:
        environment["AIRFLOW_HOME"] = str(cwd / "home")
    done = subprocess.run(
        command, check=False, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    log.append(done.stdout)
    if done.returncode:
        raise InstallError(f"{command[0]} {' '.join(command[1:4])} ended with {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
