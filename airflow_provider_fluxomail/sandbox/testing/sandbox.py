"""The sandbox for a test: what was sent, what happens to it next, what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote, urlsplit

from airflow_provider_fluxomail.sandbox.testing.faults import Faults
from airflow_provider_fluxomail.sandbox.testing.mail import Mail
from airflow_provider_fluxomail.sandbox.testing.recipients import Recipients
from airflow_provider_fluxomail.sandbox.testing.records import given

TEST_SERVER_VARIABLE: Final = "FLUXOMAIL_TEST_SERVER_URL"
"""Read by the client, which is apart from the sandbox: ``client/settings.py`` says what it does."""


class FluxomailSandbox(Mail, Recipients, Faults):
    """A local Fluxomail server that a test controls; the pytest fixture ``fluxomail_sandbox`` returns one.

    ::

        def test_a_lost_response(fluxomail_sandbox):
            fluxomail_sandbox.fail_next("response_lost_after_store")
            message = {"to": "ops@example.org", "subject": "Load finished", "content": "20 rows."}
            FluxomailHook().send(message, idempotency_key="load-1")
            assert fluxomail_sandbox.message("ops@example.org").subject == "Load finished"
            assert len(fluxomail_sandbox.requests("POST")) == 2

    It may be used from several threads. Every method raises :class:`ValueError` with the sandbox's text if the sandbox
    refuses the call, for example because of a misspelt switch.

    :param url: base URL of the server.
    :param api_key: the key that exists from the start, with all scopes and no rate limit.
    :param setenv: sets an environment variable until the end of the test.
    :param switches: those of each fresh start, besides the server's own.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        setenv: Callable[[str, str], None],
        switches: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(url)
        self.api_key = api_key
        self._setenv = setenv
        self._switches = dict(switches)
        self._servers = [f"{self._address.scheme}://{quote(api_key, safe='')}@{self._address.netloc}"]

    def connect(
        self, conn_id: str = "fluxomail_default", *, key: str | None = None, host: str | None = None, **extras: Any
    ) -> None:
        """Define or redefine an Airflow connection in the environment.

        :param key: the API key, which need not exist; default :attr:`api_key`.
        :param host: base URL; default the sandbox's. Of another server of this machine, which the test has started:
            requests to any other host go to the sandbox, see :meth:`isolate`.
        :param extras: extras of the connection, such as ``max_wait``. The default of ``timeout`` is 10 seconds.
        """
        password, host = self.api_key if key is None else key, self.url if host is None else host
        if host != self.url and (server := _local_server(host)):
            self.isolate(server)
        value = {"conn_type": "fluxomail", "host": host, "password": password, "extra": {"timeout": 10, **extras}}
        self._setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(value))

    def isolate(self, *others: str) -> None:
        """Keep every Fluxomail client of this process, and of its subprocesses, on this sandbox.

        A client or a connection for another server uses the sandbox, with :attr:`api_key`, and logs a warning; a client
        that was created before makes no request. The fixture does this first.

        :param others: base URLs of servers of this machine that clients may reach too.
        """
        self._servers += others
        self._setenv(TEST_SERVER_VARIABLE, " ".join(self._servers))

    # Clock, switches, keys

    def now(self) -> float:
        """The sandbox clock, in seconds since the epoch."""
        return float(self._get("health")["now"])

    def advance(self, seconds: float) -> float:
        """Move the clock forward: events happen, rate limits reset, keys expire.

        :return: the new time, in seconds since the epoch.
        """
        return float(self._post("clock", {"advance_seconds": seconds})["now"])

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Change switches of the sandbox until the next test; if one of them is invalid, none.

        :return: all switches.
        """
        switches: dict[str, Any] = self._post("settings", changes)
        return switches

    def key(
        self,
        name: str,
        *,
        scopes: Iterable[str] | None = None,
        rate_limit_per_minute: int | None = None,
        organization: str | None = None,
        expires_in: float | None = None,
    ) -> str:
        """Create an API key, or replace it.

        :param scopes: None for all of them.
        :param rate_limit_per_minute: requests; None for no rate limit.
        :param organization: default that of :attr:`api_key`.
        :param expires_in: seconds of the sandbox clock until it expires.
        :return: its name, which is the key itself.
        """
        limits = {"rate_limit_per_minute": rate_limit_per_minute, "expires_in": expires_in}
        shown = {"scopes": None if scopes is None else list(scopes), "organization": organization}
        self._post("keys", {"key": name, **given(limits | shown)})
        return name

    def revoke(self, name: str) -> None:
        """Delete an API key."""
        self._call("DELETE", f"keys/{quote(name, safe='')}")

    def pause(self, organization: str | None = None) -> None:
        """Pause an organization, by default that of :attr:`api_key`: its sends are refused."""
        self._post("pause", {"paused": True, **given({"organization": organization})})

    def resume(self, organization: str | None = None) -> None:
        """Resume a paused organization."""
        self._post("pause", {"paused": False, **given({"organization": organization})})

    def reset(self) -> None:
        """Back to a fresh start, with only :attr:`api_key`; the fixture does this before each test."""
        self._post("reset", {})
        if self._switches:
            self.settings(**self._switches)


def is_loopback(host: str) -> bool:
    """Whether it is an address, or the name, of this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _local_server(host: str) -> str | None:
    """The URL of a server of this machine; None for any other."""
    url = host if "://" in host else f"http://{host}"
    try:
        parts = urlsplit(url)
        local = is_loopback(parts.hostname or "") and not set(url) & set("@ \t\n")
    except ValueError:
        return None
    return url if local else None
