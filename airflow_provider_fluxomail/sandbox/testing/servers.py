"""The servers of one test process: one for each set of arguments, started when a test needs it."""

from __future__ import annotations

import inspect
import ipaddress
import logging
import os
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from airflow_provider_fluxomail.sandbox.server import SandboxServer
from airflow_provider_fluxomail.sandbox.testing.sandbox import TEST_SERVER_VARIABLE, FluxomailSandbox, is_loopback

if TYPE_CHECKING:
    import pytest

logger = logging.getLogger(__name__)

_ARGUMENTS: Final = frozenset(inspect.signature(SandboxServer).parameters) - {"event_delay"}
"""Options that are arguments of the server; the others are switches, and the delay is one of them."""


class Servers:
    """Running sandboxes; leaving the ``with`` stops them."""

    def __init__(self) -> None:
        self._running: list[tuple[dict[str, Any], SandboxServer]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, server in self._running:
            try:
                server.stop()
            except TimeoutError as late:
                # Not an error: pytest would report it as one of the test that happens to be the last.
                logger.warning("%s", late)

    def open(self, options: Mapping[str, Any], patch: pytest.MonkeyPatch) -> FluxomailSandbox:
        """A fresh sandbox with a connection to it, to which all clients of the process are kept.

        :param options: arguments of :class:`SandboxServer` and switches.
        :param patch: undoes changes of the environment at the end.
        :raises ImportError: the ``sandbox`` extra is not installed.
        :raises ValueError: an option is wrong.
        """
        arguments = {name: value for name, value in options.items() if name in _ARGUMENTS}
        server = self._server(arguments)
        switches = {name: value for name, value in options.items() if name not in _ARGUMENTS}
        host, _ = server.address
        url = _local_url(server)
        # If both spellings are set, HTTP libraries read the lower-case one.
        past = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        if past.strip() != "*":
            for name in ("NO_PROXY", "no_proxy"):
                patch.setenv(name, ",".join(filter(None, (past, "127.0.0.1", *{host, server.host} - {"127.0.0.1"}))))

        def setenv(name: str, value: str) -> None:
            patch.setenv(name, value)
            if name == TEST_SERVER_VARIABLE:
                # By its name: the sandbox imports nothing of the client.
                patch.setattr("airflow_provider_fluxomail.client.settings.kept_test_server", value)

        sandbox = FluxomailSandbox(url, server.api_key, setenv, switches)
        sandbox.isolate()
        sandbox.reset()
        sandbox.connect()
        return sandbox

    def _server(self, arguments: dict[str, Any]) -> SandboxServer:
        """The running server with these arguments; a test may have ended it, or forked."""
        for known, server in self._running:
            if known == arguments:
                return server.start()
        server = SandboxServer(**{"port": 0, "event_delay": 0, **arguments})
        server.start()
        self._running.append((arguments, server))
        return server


def _local_url(server: SandboxServer) -> str:
    """Its URL for this machine.

    :raises ValueError: it listens on an address of the network alone.
    """
    address = ipaddress.ip_address(server.address[0].partition("%")[0])
    if address.is_unspecified:
        return f"http://{'127.0.0.1' if address.version == 4 else '[::1]'}:{server.port}"
    if not address.is_loopback:
        raise ValueError(
            f"host {server.host!r} is an address of the network: tests send to this machine only. Use 127.0.0.1, or "
            "0.0.0.0 for containers that the test starts"
        )
    return server.url if is_loopback(server.host) else f"http://127.0.0.1:{server.port}"
