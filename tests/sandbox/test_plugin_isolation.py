"""While the fixture is active, no client reaches another Fluxomail, and frozen time does not stop the sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_fluxomail.client.settings import TEST_SERVER_VARIABLE
from airflow_provider_fluxomail.sandbox import SandboxServer
from airflow_provider_fluxomail.sandbox.testing import sandbox as testing

from .helpers import Api
from .test_pytest_plugin import WITHOUT

ROOT = Path(__file__).parent.parent.parent

VAULT = """
    import json
    import os

    from airflow.secrets import BaseSecretsBackend

    class Vault(BaseSecretsBackend):
        def get_conn_value(self, conn_id, team_name=None):  # Airflow 3.2 passes it
            if conn_id in ("fluxomail_default", "marketing"):
                extra = {"proxies": {"http": "http://127.0.0.1:9"}} if conn_id == "marketing" else {}
                fields = {"conn_type": "fluxomail", "host": os.environ["PRODUCTION"], "password": "real-key"}
                return json.dumps({**fields, "extra": extra})
"""

USERS_TESTS = """
    import asyncio
    import os
    import subprocess
    import sys
    from unittest import mock

    import pytest

    from airflow_provider_fluxomail.client import (
        AsyncFluxomailClient, ClientSettings, EmailMessage, EventFilter, FluxomailClient, FluxomailValidationError,
    )
    from airflow_provider_fluxomail.hooks import FluxomailHook

    FIELDS = {"to": "customer@example.com", "subject": "Invoice", "content": "Text"}
    MESSAGE = EmailMessage(**FIELDS)
    PRODUCTION = ClientSettings(api_key="real-key", base_url=os.environ["PRODUCTION"])
    OLD_CLIENT = FluxomailClient(PRODUCTION)
    OLD_HOOK = FluxomailHook("marketing")
    OLD_HOOK.get_conn()

    def settings():
        return ClientSettings(api_key="real-key", base_url=os.environ["PRODUCTION"])

    def is_production(found):
        return (found.base_url, found.api_key) == (os.environ["PRODUCTION"], "real-key")

    def test_the_backend_outranks_the_environment():
        for conn_id in ("fluxomail_default", "marketing"):
            assert is_production(FluxomailHook(conn_id).get_options().settings)

    @pytest.mark.parametrize("conn_id", ["fluxomail_default", "marketing"])
    def test_connections(fluxomail_sandbox, conn_id, caplog):
        hook = FluxomailHook(conn_id)
        hook.send(FIELDS, idempotency_key="k1")
        hook.close()
        asyncio.run(FluxomailHook(conn_id).asend(FIELDS, idempotency_key="k2"))
        fluxomail_sandbox.assert_sent(2, "customer@example.com")
        assert "real-key" not in caplog.text

    def test_bare_clients(fluxomail_sandbox):
        with FluxomailClient(settings()) as client:
            client.send(MESSAGE, idempotency_key="k1")

        async def run():
            async with AsyncFluxomailClient(settings()) as client:
                await client.send(MESSAGE, idempotency_key="k2")
                async with client.stream_events(EventFilter(), silence=30):
                    pass

        asyncio.run(run())
        fluxomail_sandbox.assert_sent(2)
        assert len(fluxomail_sandbox.requests("GET", "/api/v1/events/stream")) == 1

    def test_clients_that_are_older_than_the_fixture(fluxomail_sandbox):
        with pytest.raises(FluxomailValidationError, match="created before"):
            OLD_CLIENT.send(MESSAGE, idempotency_key="k1")
        with pytest.raises(FluxomailValidationError, match="created before"):
            OLD_HOOK.send(FIELDS, idempotency_key="k1")
        with pytest.raises(FluxomailValidationError, match="created before"):
            asyncio.run(AsyncFluxomailClient(PRODUCTION).send(MESSAGE, idempotency_key="k1"))
        fluxomail_sandbox.assert_sent(0)
        assert fluxomail_sandbox.requests() == []

    def test_a_test_that_clears_its_environment(fluxomail_sandbox, monkeypatch):
        with mock.patch.dict(os.environ, {"PRODUCTION": os.environ["PRODUCTION"]}, clear=True):
            with FluxomailClient(settings()) as client:
                client.send(MESSAGE, idempotency_key="k1")
            with pytest.raises(FluxomailValidationError, match="created before"):
                OLD_CLIENT.send(MESSAGE, idempotency_key="k1")
        monkeypatch.delenv("FLUXOMAIL_TEST_SERVER_URL")
        with FluxomailClient(settings()) as client:
            client.send(MESSAGE, idempotency_key="k2")
        fluxomail_sandbox.assert_sent(2)

    def test_subprocesses(fluxomail_sandbox):
        code = '''if True:
            import os
            from airflow_provider_fluxomail.client import ClientSettings, EmailMessage, FluxomailClient
            from airflow_provider_fluxomail.hooks import FluxomailHook
            fields = {"to": "customer@example.com", "subject": "Invoice", "content": "Text"}
            for conn_id in ("fluxomail_default", "marketing"):
                hook = FluxomailHook(conn_id)
                hook.send(fields, idempotency_key=conn_id)
                hook.close()
            with FluxomailClient(ClientSettings(api_key="real-key", base_url=os.environ["PRODUCTION"])) as client:
                client.send(EmailMessage(**fields), idempotency_key="k1")
        '''
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        fluxomail_sandbox.assert_sent(3, "customer@example.com")

    def test_another_server_of_the_test_stays_reachable(fluxomail_sandbox):
        from airflow_provider_fluxomail.sandbox import SandboxServer

        with SandboxServer(api_key="other") as other:
            fluxomail_sandbox.connect("other", host=other.url, key="other")
            hook = FluxomailHook("other")
            hook.send(FIELDS, idempotency_key="k1")
            hook.close()
            fluxomail_sandbox.assert_sent(0)
            # Not one of the network, even by name.
            fluxomail_sandbox.connect("far", host="https://api.fluxomail.com", key="real-key")
            hook = FluxomailHook("far")
            hook.send(FIELDS, idempotency_key="k1")
            hook.close()
            fluxomail_sandbox.assert_sent(1)

    def test_afterwards():
        assert is_production(settings())
        OLD_HOOK.close()
        OLD_CLIENT.close()
"""


def test_the_client_obeys_the_variable_of_the_plugin() -> None:
    assert testing.TEST_SERVER_VARIABLE == TEST_SERVER_VARIABLE


def test_nothing_reaches_another_fluxomail(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one is a sandbox with the key of production: it would accept everything."""
    home = pytester.path / "airflow"
    monkeypatch.setenv("AIRFLOW_HOME", str(home))
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{home}/airflow.db")
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", "vault.Vault")
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # elsewhere Airflow 3 has workers' secrets backends
    monkeypatch.setenv("PYTHONPATH", str(pytester.path))
    pytester.makepyfile(vault=VAULT)
    pytester.makepyfile(USERS_TESTS)
    with SandboxServer(api_key="real-key") as production, Api(production.url) as api:
        monkeypatch.setenv("PRODUCTION", production.url)
        result = pytester.runpytest_subprocess(*WITHOUT)
        result.assert_outcomes(passed=9)
        assert api.get("requests")["requests"] == []
        # It is a Fluxomail that a test could have reached.
        assert api.send(api_key="real-key").status_code == 200


FROZEN = """
    import asyncio
    import time

    import freezegun
    import pytest
    import time_machine

    from airflow_provider_fluxomail.hooks import FluxomailHook

    FIELDS = {"to": "ops@example.org", "subject": "Load done", "content": "20 rows"}

    @pytest.fixture
    def freezer():
        with freezegun.freeze_time("2020-01-01"):
            yield

    @pytest.fixture
    def traveller():
        with time_machine.travel("2020-01-01", tick=False):
            yield

    def check(sandbox, *, frozen=True):
        before = time.time()
        sandbox.settings(event_delay=0.1)
        sandbox.fail_next("delay", path="/api/v1/sends", seconds=0.3)
        hook = FluxomailHook()
        send_id = hook.send(FIELDS, idempotency_key="k1").send_id
        timeline = hook.get_timeline(send_id)
        hook.close()
        assert sandbox.message().event_types == ["sent", "delivered"]
        assert timeline.events[-1].type == "delivered"
        assert (time.time() == before) is frozen
        assert sandbox.message().created_at > 1_700_000_000, "the sandbox is elsewhere, where time goes on"
        assert sandbox.requests().gaps[0] > 0

    # The first of each kind starts the server on a frozen clock.
    def test_frozen_before(freezer, fluxomail_sandbox):
        check(fluxomail_sandbox)

    def test_innocent_1(fluxomail_sandbox):
        check(fluxomail_sandbox, frozen=False)

    @pytest.mark.fluxomail_sandbox(host="localhost")
    def test_travelled_before(traveller, fluxomail_sandbox):
        check(fluxomail_sandbox)

    @freezegun.freeze_time("2020-01-01")
    def test_frozen(fluxomail_sandbox):
        check(fluxomail_sandbox)

    def test_innocent_2(fluxomail_sandbox):
        check(fluxomail_sandbox, frozen=False)

    @time_machine.travel("2020-01-01", tick=False)
    def test_travelled(fluxomail_sandbox):
        check(fluxomail_sandbox)

    def test_innocent_3(fluxomail_sandbox):
        check(fluxomail_sandbox, frozen=False)

    # The last test of the session: the server stops on a frozen clock.
    def test_left_frozen(fluxomail_sandbox):
        freezegun.freeze_time("2020-01-01").start()
        check(fluxomail_sandbox)
"""


def test_frozen_time_stops_neither_the_sandbox_nor_another_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FROZEN)
    result = pytester.runpytest_subprocess(
        *WITHOUT, "-W", "error::pytest.PytestUnhandledThreadExceptionWarning", timeout=120
    )
    result.assert_outcomes(passed=8)


def test_the_example_of_the_documentation_runs_as_it_is(pytester: pytest.Pytester, airflow_db: Path) -> None:
    example = (ROOT / "docs" / "guides" / "sandbox_test_example.py").read_text()
    pytester.makepyfile(test_copied=example)
    pytester.runpytest_subprocess(*WITHOUT, timeout=170).assert_outcomes(passed=4)
