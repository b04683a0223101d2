"""The command line: ``fluxomail-sandbox``."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from airflow_provider_fluxomail.sandbox.limits import (
    DEFAULT_API_KEY,
    DEFAULT_EVENT_DELAY,
    DEFAULT_HOST,
    DEFAULT_PORT,
    Bounds,
)
from airflow_provider_fluxomail.sandbox.server import SandboxServer, SandboxStartError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

PROGRAM = "fluxomail-sandbox"


class _Parser(argparse.ArgumentParser):
    """One line per error: the usage text would bury it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{PROGRAM}: error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser: options, defaults and help."""
    bounds = Bounds()
    parser = _Parser(
        prog=PROGRAM,
        description="A local Fluxomail server: API under /api/v1, controls under /_sandbox, an inbox at /inbox.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default=DEFAULT_HOST, help="address to listen on")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="TCP port; 0 picks a free one")
    parser.add_argument("--api-key", default=DEFAULT_API_KEY, help="API key with all scopes and no rate limit")
    parser.add_argument(
        "--data", metavar="FILE", help="SQLite file that keeps the state across restarts; in memory without it"
    )
    parser.add_argument(
        "--event-delay",
        metavar="SECONDS",
        type=float,
        default=DEFAULT_EVENT_DELAY,
        help="time from a send to its outcome",
    )
    parser.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a host name for control calls and the inbox, besides addresses and localhost; can be repeated",
    )
    parser.add_argument(
        "--max-messages",
        metavar="N",
        type=int,
        default=bounds.messages,
        help="messages kept",
    )
    parser.add_argument("--max-requests", metavar="N", type=int, default=bounds.requests, help="logged requests kept")
    parser.add_argument("--max-streams", metavar="N", type=int, default=bounds.streams, help="open event streams")
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
    for name in ("max_messages", "max_requests", "max_streams"):
        if getattr(options, name) < 1:
            return _complain(f"--{name.replace('_', '-')} must be at least 1, not {getattr(options, name)}")
    stop = threading.Event()
    with _signals_set(stop), _warnings_shown():
        try:
            server = SandboxServer(
                api_key=options.api_key,
                data=options.data,
                event_delay=options.event_delay,
                host=options.host,
                port=options.port,
                bounds=Bounds(
                    messages=options.max_messages, requests=options.max_requests, streams=options.max_streams
                ),
                allow_hosts=options.allow_host,
            ).start()
        except (ValueError, ImportError, SandboxStartError) as error:
            return _complain(_as_options(str(error)))
        with server:
            return _serve(server, stop)


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


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """Send the log of the sandbox to stderr, until the end of the block."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{PROGRAM}: %(level)s: %(message)s"))
    handler.addFilter(_lower_level)
    logger = logging.getLogger("airflow_provider_fluxomail.sandbox")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _lower_level(record: logging.LogRecord) -> bool:
    record.level = record.levelname.lower()
    return True


@contextmanager
def _signals_set(stop: threading.Event) -> Iterator[None]:
    """Make Ctrl-C and SIGTERM set an event, until the end of the block."""

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stop.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _as_options(message: str) -> str:
    """Name the option in place of the argument."""
    for argument, option in (
        ("api_key", "--api-key"),
        ("event_delay", "--event-delay"),
        ("port must", "--port must"),
        ("allow_hosts", "--allow-host"),
    ):
        if message.startswith(argument):
            return option + message.removeprefix(argument)
    return message


def _complain(message: str) -> int:
    sys.stderr.write(f"{PROGRAM}: error: {message}\n")
    return 2
