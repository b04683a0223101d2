"""The pytest fixture ``fluxomail_sandbox``: a local Fluxomail server, and an Airflow connection to it.

pytest imports this module in every project that has the package installed, so it imports nothing but the standard
library and pytest; the rest is imported when a test uses the fixture.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_fluxomail.sandbox import SandboxServer
    from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox


@pytest.fixture(scope="session")
def _fluxomail_server() -> Iterator[SandboxServer]:
    """One server for all tests of this process, on a free port; messages are delivered at once."""
    from airflow_provider_fluxomail.sandbox import SandboxServer

    server = SandboxServer(port=0, event_delay=0)
    try:
        server.start()
    except ImportError as error:
        pytest.fail(f"{error} ({error.__cause__})", pytrace=False)
    yield server
    server.stop()


@pytest.fixture
def fluxomail_sandbox(_fluxomail_server: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> FluxomailSandbox:
    """A fresh Fluxomail sandbox, and the Airflow connection ``fluxomail_default`` to it.

    ::

        def test_the_alert_is_sent(fluxomail_sandbox):
            message = {"to": "ops@example.org", "subject": "Load failed", "content": "See the log."}
            FluxomailHook().send(message, idempotency_key="load-1")
            assert fluxomail_sandbox.message("ops@example.org").subject == "Load failed"

    The server is shared by all tests of the session (with pytest-xdist: of the worker) and reset for each of them.
    The connection is in the environment, as ``AIRFLOW_CONN_FLUXOMAIL_DEFAULT``, until the test ends. Its ``timeout``
    is 2 seconds. Requests to 127.0.0.1 bypass any proxy.

    Needs the ``sandbox`` extra: ``pip install 'airflow-provider-fluxomail[sandbox]'``.

    :return: a :class:`~airflow_provider_fluxomail.sandbox.testing.FluxomailSandbox`.
    """
    from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox

    # If both spellings are set, HTTP libraries read the lower-case one.
    past = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if past.strip() != "*":
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, ",".join(filter(None, (past, "127.0.0.1"))))
    sandbox = FluxomailSandbox(_fluxomail_server.url, _fluxomail_server.api_key, monkeypatch.setenv)
    sandbox.reset()
    sandbox.connect()
    return sandbox
