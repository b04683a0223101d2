"""One thread shuts what is late, and nothing else: not what was in time, and not in a process that was forked."""

from __future__ import annotations

import concurrent.futures
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest
from urllib3.util.ssltransport import SSLTransport

from airflow_provider_fluxomail.client import read_deadline
from airflow_provider_fluxomail.client.read_deadline import Deadline

LATE = "the head of the response came too slowly"
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Callable[[], Pair]]:
    """Makes connected sockets: the one to watch, and its other side. Reads wait for 10 s at most."""
    made: list[socket.socket] = []

    def connect() -> Pair:
        ours, theirs = socket.socketpair()
        made.extend((ours, theirs))
        ours.settimeout(10)
        theirs.settimeout(10)
        return ours, theirs

    yield connect
    for sock in made:
        sock.close()


def usable(ours: socket.socket, theirs: socket.socket) -> bool:
    try:
        theirs.sendall(b"x")
        return ours.recv(1) == b"x"
    except OSError:
        return False


def wait_until_shut(sock: socket.socket, seconds: float, *, watched: Any = None, then: Exception | None = None) -> None:
    """Read until the watchdog shuts the socket, and check how the block ends.

    :param watched: what to watch in place of the socket.
    :param then: what the block raises.
    """

    def read() -> None:
        with Deadline(watched or sock, seconds):
            assert sock.recv(1) == b"", "shut; else it raises its own timeout, with another text"
            if then:
                raise then

    with pytest.raises(TimeoutError, match=LATE):
        read()


@pytest.mark.parametrize("then", [None, ConnectionResetError()])
def test_a_late_socket_is_shut_and_raises_a_timeout(pair: Callable[[], Pair], then: Exception | None) -> None:
    ours, theirs = pair()
    wait_until_shut(ours, 0.05, then=then)
    assert theirs.recv(1) == b"", "both directions"


def test_what_is_in_time_stays_open_and_its_errors_are_its_own(pair: Callable[[], Pair]) -> None:
    ours, theirs = pair()
    with Deadline(ours, 60):
        assert usable(ours, theirs)
    with pytest.raises(ConnectionResetError), Deadline(ours, 60):
        raise ConnectionResetError
    assert usable(ours, theirs)


def test_a_deadline_that_is_over_does_not_shut_the_socket_that_the_next_request_uses(pair: Callable[[], Pair]) -> None:
    (kept, theirs), (later, _), (earlier, _) = pair(), pair(), pair()
    with Deadline(kept, 0.05):
        pass
    with Deadline(kept, 60):
        wait_until_shut(later, 0.2)
        wait_until_shut(earlier, 0.05)
        # The first deadline has passed by now, for the later ones have.
        assert usable(kept, theirs)


def test_many_at_once_each_by_its_own_deadline(pair: Callable[[], Pair]) -> None:
    def is_late(number: int, ours: socket.socket) -> bool:
        try:
            with Deadline(ours, 60 if number % 2 else 0.05 + 0.002 * (number % 17)):
                return ours.recv(1) == b"shut without a timeout"
        except TimeoutError as error:
            return LATE in str(error)

    pairs = [pair() for _ in range(60)]
    with ThreadPoolExecutor(len(pairs)) as pool:
        calls = [pool.submit(is_late, number, ours) for number, (ours, _) in enumerate(pairs)]
        concurrent.futures.wait(calls[::2], 10)
        for _, theirs in pairs[1::2]:
            theirs.sendall(b"x")
        assert [call.result(10) for call in calls] == [True, False] * 30


def test_one_thread_for_all_which_ends_when_there_is_nothing_left(
    pair: Callable[[], Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_deadline, "_watchdog", read_deadline._Watchdog())
    before = set(threading.enumerate())
    (held, _), (ours, theirs) = pair(), pair()
    started: set[threading.Thread] = set()
    with Deadline(held, 60):
        for _ in range(30):
            with Deadline(ours, 30):
                started |= set(threading.enumerate()) - before
    (thread,) = started
    assert usable(ours, theirs)
    for _ in range(2):  # the second starts another thread
        late, _ = pair()
        wait_until_shut(late, 0.05)
        thread.join(10)
        assert not thread.is_alive()


def test_a_thread_that_cannot_be_started_leaves_nothing_behind(
    pair: Callable[[], Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_deadline, "_watchdog", read_deadline._Watchdog())
    ours, _ = pair()
    cannot_start = mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread"))
    with cannot_start, pytest.raises(RuntimeError, match="new thread"), Deadline(ours, 0.05):
        pass
    wait_until_shut(ours, 0.05)


def test_tls_in_the_tls_of_a_proxy_is_shut_too(pair: Callable[[], Pair]) -> None:
    """There, what urllib3 reads from is no socket."""
    ours, _ = pair()
    inner = SSLTransport.__new__(SSLTransport)
    inner.socket = ours
    wait_until_shut(ours, 0.05, watched=inner)


def run(code: str) -> None:
    setup = (
        "import os, signal, socket, threading\n"
        "from airflow_provider_fluxomail.client import read_deadline\n"
        "from airflow_provider_fluxomail.client.read_deadline import Deadline\n"
        "ours, theirs = socket.socketpair()\n"
        "ours.settimeout(10)\n"
    )
    subprocess.run([sys.executable, "-c", setup + textwrap.dedent(code)], timeout=60, check=True)


def test_a_forked_process_has_a_watchdog_of_its_own() -> None:
    """Airflow forks a process for each task. A fork takes no threads along, but the locks that they hold."""
    run("""
        with Deadline(theirs, 60):
            locked, forked = threading.Event(), threading.Event()

            def hold():
                with read_deadline._watchdog._earlier:
                    locked.set()
                    forked.wait(10)

            threading.Thread(target=hold).start()
            assert locked.wait(10)
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # kills a child that waits for a lock for ever
                try:
                    with Deadline(ours, 0.05):
                        closed = ours.recv(1) == b""
                except TimeoutError:
                    os._exit(0 if closed else 1)
                os._exit(2)
            forked.set()
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """)


def test_a_process_ends_without_waiting_for_it() -> None:
    run("""
        # Never left: as when the interpreter ends while a thread that was given up waits for a response.
        watched = Deadline(ours, 3600)
        watched.__enter__()
    """)
