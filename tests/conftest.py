"""An Airflow of its own for the tests. Set up before anything imports Airflow, which reads it once."""

from __future__ import annotations

import fcntl
import importlib
import logging
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from importlib import metadata
from pathlib import Path

import hypothesis
import pytest
from packaging.version import Version

from airflow_provider_fluxomail.client import settings
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
from tests.support.airflow_runs import DagRuns

# How fast examples are made and run depends on the machine's load, not on the test.
hypothesis.settings.register_profile(
    "fluxomail", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("fluxomail")

ROOT = Path(__file__).parent.parent
_HOME = Path(tempfile.mkdtemp(prefix="fluxomail-tests-"))
_DAGS = _HOME / "dags"
#: What all processes of pytest-xdist share; they inherit the name from the one that starts them.
_SHARED = Path(os.environ.get("FLUXOMAIL_TESTS_SHARED") or tempfile.mkdtemp(prefix="fluxomail-tests-shared-"))
_OWNS_SHARED = "FLUXOMAIL_TESTS_SHARED" not in os.environ
_AIRFLOW = tuple(int(part) for part in metadata.version("apache-airflow").split(".")[:2])
#: Airflow 2 has no asset watchers, and none before 3.3 has retry policies.
_NOT_FOR_THIS_AIRFLOW = [
    name
    for name, since in (("fluxomail_suppression_list.py", (3, 0)), ("fluxomail_retries.py", (3, 3)))
    if since > _AIRFLOW
]


def _is_installed(provider: str, file: str) -> bool:
    try:
        package = metadata.distribution(f"apache-airflow-providers-{provider}")
    except metadata.PackageNotFoundError:
        return False
    return Path(str(package.locate_file(f"airflow/providers/{file}"))).exists()


#: The Dags of other providers, which are not everywhere (dependency group ``migrating``), or too old.
_NOT_INSTALLED = [
    dag
    for dag, provider, file in (
        ("smtp_before.py", "smtp", "smtp/notifications/smtp.py"),
        ("sendgrid_before.py", "sendgrid", "sendgrid/utils/emailer.py"),
        ("ses_before.py", "amazon", "amazon/aws/operators/ses.py"),
    )
    if not _is_installed(provider, file)
]

for _name in [name for name in os.environ if name.startswith(("AIRFLOW_", "AIRFLOW__"))]:
    del os.environ[_name]
os.environ |= {
    "FLUXOMAIL_TESTS_SHARED": str(_SHARED),
    "AIRFLOW_HOME": str(_HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(_DAGS),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME}/airflow.db",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    "NO_PROXY": "127.0.0.1,localhost",
}


def _import_all() -> None:
    """Import what pytest would otherwise parse in a server's thread, in the middle of a test.

    It rewrites the modules of every distribution that has a plugin, and ast.parse fails at times if it runs in two
    threads (python/cpython#106905).
    """
    importlib.import_module("anyio._backends._asyncio")
    path = str(ROOT / "airflow_provider_fluxomail")
    for module in pkgutil.walk_packages([path], "airflow_provider_fluxomail."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def pytest_configure(config: pytest.Config) -> None:
    _import_all()
    # A connection that is cancelled while it is being made stays open until it is collected, which may be in any later
    # test: so anyio 4.10 and 4.13 leave it (Airflow 2.11 to 3.2 as deployments pin them).
    if Version(metadata.version("anyio")) < Version("4.14"):
        config.addinivalue_line("filterwarnings", "ignore::pytest.PytestUnraisableExceptionWarning")


def pytest_sessionfinish() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)
    if _OWNS_SHARED:
        shutil.rmtree(_SHARED, ignore_errors=True)


# Airflow 2.11 logs at INFO from the root down; what the tests themselves request is not worth a line.
logging.getLogger("httpx").setLevel(logging.WARNING)


@pytest.fixture
def monkeypatch(request: pytest.FixtureRequest) -> Iterator[pytest.MonkeyPatch]:
    """pytest's own, which begins after the sandbox and so restores the sandbox's environment, not the one after it."""
    if "fluxomail_sandbox" in request.fixturenames:
        request.getfixturevalue("fluxomail_sandbox")
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None]:
    """Let a test fail whose sandbox outlives it: the next one would send to that."""
    yield
    kept = {name for name in os.environ if name.startswith(("AIRFLOW_CONN_", settings.TEST_SERVER_VARIABLE))}
    if settings.kept_test_server:
        kept.add("kept_test_server")
        settings.kept_test_server = ""
    for name in kept:
        os.environ.pop(name, None)
    assert not kept, f"left in the process: {', '.join(sorted(kept))}"


@pytest.fixture
def sandbox(fluxomail_sandbox: FluxomailSandbox) -> FluxomailSandbox:
    """The fixture of the package's own pytest plugin, by a shorter name."""
    return fluxomail_sandbox


@pytest.fixture(scope="session")
def airflow_db() -> Path:
    """A migrated metadata database, and the folder that Dags must lie in. The first Dag run needs both."""
    unwanted = shutil.ignore_patterns(*_NOT_FOR_THIS_AIRFLOW, *_NOT_INSTALLED, ".airflowignore")
    shutil.copytree(ROOT / "example_dags", _DAGS, ignore=unwanted)
    shutil.copytree(ROOT / "tests" / "wire" / "dags", _DAGS, dirs_exist_ok=True)
    # Takes ten seconds and more: the first process that needs a database makes it, the others copy it.
    migrated = _SHARED / "airflow.db"
    with (_SHARED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not migrated.exists():
            subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True, timeout=300
            )
            shutil.copy(_HOME / "airflow.db", _SHARED / "copy.db")
            (_SHARED / "copy.db").rename(migrated)
    shutil.copy(migrated, _HOME / "airflow.db")
    return _DAGS


@pytest.fixture
def dags(airflow_db: Path, sandbox: FluxomailSandbox) -> DagRuns:
    """The Dags of the examples and of the tests, which send to the sandbox."""
    return DagRuns(airflow_db)
