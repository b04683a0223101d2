"""The command line: ``fluxomail-sandbox``."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from airflow_provider_fluxomail.sandbox.limits import (
    DEFAULT_API_KEY,
    DEFAULT_EVENT_DELAY,
    DEFAULT_HOST,
    DEFAULT_PORT,
    Bounds,
)
from airflow_provider_fluxomail.sandbox.server import SandboxServer, SandboxStartError

PROGRAM = "fluxomail-sandbox"
_OPTIONS = {
    "api_key": "--api-key",
    "event_delay": "--event-delay",
    "port": "--port",
    "allow_hosts": "--allow-host",
    "root_path": "--root-path",
    "messages": "--max-messages",
    "requests": "--max-requests",
    "streams": "--max-streams",
    "webhook_url": "--webhook-url",
}
"""The options of arguments, as errors name them."""


class _Parser(argparse.ArgumentParser):
    """One line per error: the usage text would bury it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{PROGRAM}: error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    bounds = Bounds()
    parser = _Parser(
        prog=PROGRAM,
        description="A local Fluxomail server: API under /api/v1, controls under /_sandbox, an inbox at /inbox.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default=DEFAULT_HOST, help="address to listen on")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="TCP port; 0 picks a free one")
    parser.add_argument("--api-key", default=DEFAULT_API_KEY, help="API key with all scopes and no rate limit")
    text = "SQLite file that keeps the state across restarts; in memory without it"
    parser.add_argument("--data", metavar="FILE", help=text)
    text = "time from a send to its outcome"
    parser.add_argument("--event-delay", metavar="SECONDS", type=float, default=DEFAULT_EVENT_DELAY, help=text)
    text = "a host name for control calls and the inbox, besides addresses and localhost; can be repeated"
    parser.add_argument("--allow-host", metavar="NAME", action="append", default=[], help=text)
    text = "where signed webhooks are sent, as an http or https URL"
    parser.add_argument("--webhook-url", metavar="URL", help=text)
    parser.add_argument("--webhook-secret", metavar="SECRET", help="what signs webhooks; whsec_sandbox without it")
    text = "path prefix under which a proxy serves the sandbox, such as /mail"
    parser.add_argument("--root-path", metavar="PATH", default="", help=text)
    for name, default, text in (
        ("messages", bounds.messages, "messages kept"),
        ("requests", bounds.requests, "logged requests kept"),
        ("streams", bounds.streams, "open event streams"),
    ):
        parser.add_argument(f"--max-{name}", metavar="N", type=int, default=default, help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM.

    ::

        sys.exit(main(["--port", "8026", "--data", "sandbox.sqlite"]))

    The first line on stdout is ``Fluxomail sandbox ready at http://HOST:PORT``, written when connections are
    accepted: scripts wait for it. The second line is the URL of the inbox.

    :param argv: arguments without the program's name; None uses those of the process.
    :return: 0 after a clean stop, 1 if the server stopped unexpectedly, 2 if it could not start.
    """
    options = build_parser().parse_args(argv)
    log = logging.StreamHandler()
    log.setFormatter(logging.Formatter(f"{PROGRAM}: %(levelname)s: %(message)s"))
    logging.getLogger("airflow_provider_fluxomail.sandbox").addHandler(log)
    stop = threading.Event()
    handlers = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server = SandboxServer(
            api_key=options.api_key,
            data=options.data,
            event_delay=options.event_delay,
            host=options.host,
            port=options.port,
            bounds=Bounds(messages=options.max_messages, requests=options.max_requests, streams=options.max_streams),
            allow_hosts=options.allow_host,
            webhook_url=options.webhook_url,
            webhook_secret=options.webhook_secret,
            root_path=options.root_path,
        )
        with server:
            return _serve(server, stop)
    except (ValueError, ImportError, SandboxStartError) as error:
        sys.stderr.write(f"{PROGRAM}: error: {_as_options(str(error))}\n")
        return 2
    finally:
        logging.getLogger("airflow_provider_fluxomail.sandbox").removeHandler(log)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _serve(server: SandboxServer, stop: threading.Event) -> int:
    # Both lines at once: a script that waits with head -n 1 closes the pipe after the first.
    sys.stdout.write(f"Fluxomail sandbox ready at {server.url}\nInbox: {server.url}/inbox\n")
    sys.stdout.flush()
    # In short steps: on some systems Ctrl-C does not interrupt a wait without a timeout.
    while not stop.wait(0.5):
        if not server.running:
            sys.stderr.write(f"{PROGRAM}: error: the server stopped unexpectedly\n")
            return 1
    return 0


def _as_options(message: str) -> str:
    """Name the option in place of the argument."""
    argument, _, rest = message.partition(" ")
    return f"{_OPTIONS[argument]} {rest}" if argument in _OPTIONS else message
