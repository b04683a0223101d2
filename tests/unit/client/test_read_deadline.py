"""One thread shuts what is late, and nothing else: not what was in time, and not in a process that was forked."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

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


def is_shut_after(sock: socket.socket, seconds: float, *, watched: Any = None, then: Exception | None = None) -> None:
    """Wait until the watchdog shuts the socket, and look how the block ends.

    :param watched: what to watch in place of the socket.
    :param then: what the block raises.
    """

    def block() -> None:
        with Deadline(watched or sock, seconds):
            assert sock.recv(1) == b"", "shut; else it raises a time-out of its own, with another text"
            if then:
                raise then

    with pytest.raises(TimeoutError, match=LATE):
        block()


@pytest.mark.parametrize("then", [None, ConnectionResetError()])
def test_what_is_late_is_shut_and_told(pair: Callable[[], Pair], then: Exception | None) -> None:
    ours, theirs = pair()
    is_shut_after(ours, 0.05, then=then)
    assert theirs.recv(1) == b"", "both directions"


def test_what_is_in_time_stays_open_and_its_errors_are_its_own(pair: Callable[[], Pair]) -> None:
    ours, theirs = pair()
    with Deadline(ours, 60):
        assert usable(ours, theirs)
    with pytest.raises(ConnectionResetError), Deadline(ours, 60):
        raise ConnectionResetError
    assert usable(ours, theirs)


def test_a_deadline_that_is_over_does_not_shut_the_socket_that_the_next_request_uses(pair: Callable[[], Pair]) -> None:
    kept, theirs = pair()
    later, _ = pair()
    with Deadline(kept, 0.05):
        pass
    with Deadline(kept, 60):
        is_shut_after(later, 0.2)
        # The first deadline has passed by now, for the later one has.
        assert usable(kept, theirs)


def test_an_earlier_deadline_is_kept_while_a_later_one_is_waited_for(pair: Callable[[], Pair]) -> None:
    kept, theirs = pair()
    with Deadline(kept, 60):
        for seconds in (0.2, 0.1, 0.05):
            ours, _ = pair()
            is_shut_after(ours, seconds)
    assert usable(kept, theirs)


def test_many_at_once_each_by_its_own_deadline(pair: Callable[[], Pair]) -> None:
    late: list[int] = []
    intact: list[int] = []

    def request(number: int, ours: socket.socket) -> None:
        nonlocal late
        is_late = number % 2 == 0
        try:
            with Deadline(ours, 0.05 + 0.002 * (number % 17) if is_late else 60):
                ours.recv(1)
        except TimeoutError as error:
            late += [number] if LATE in str(error) else []
        else:
            intact.append(number)

    pairs = [pair() for _ in range(60)]
    threads = [threading.Thread(target=request, args=(number, ours)) for number, (ours, _) in enumerate(pairs)]
    for thread in threads:
        thread.start()
    for thread in threads[::2]:
        thread.join(10)
    for _, theirs in pairs[1::2]:
        theirs.sendall(b"x")
    for thread in threads:
        thread.join(10)
    assert sorted(late) == list(range(0, 60, 2))
    assert sorted(intact) == list(range(1, 60, 2))


def test_one_thread_for_all_which_ends_when_there_is_nothing_left(
    pair: Callable[[], Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_deadline, "_watchdog", read_deadline._Watchdog())
    before = set(threading.enumerate())
    (held, _), (ours, theirs) = pair(), pair()
    started: set[threading.Thread] = set()
    with Deadline(held, 60):
        for _ in range(300):
            with Deadline(ours, 30):
                started |= {thread for thread in threading.enumerate() if thread.name == "fluxomail-watchdog"} - before
    (thread,) = started
    assert usable(ours, theirs)
    for _ in range(2):  # the second starts a thread anew
        late, _ = pair()
        is_shut_after(late, 0.05)
        thread.join(10)
        assert not thread.is_alive()


def test_a_thread_that_cannot_be_started_leaves_nothing_behind(
    pair: Callable[[], Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_deadline, "_watchdog", read_deadline._Watchdog())
    ours, _ = pair()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"), Deadline(ours, 0.05):
            pass
    is_shut_after(ours, 0.05)


def test_tls_in_the_tls_of_a_proxy_is_shut_too(pair: Callable[[], Pair]) -> None:
    """There, what urllib3 reads from is no socket."""
    ours, _ = pair()
    inner = SSLTransport.__new__(SSLTransport)
    inner.socket = ours
    is_shut_after(ours, 0.05, watched=inner)


def run(code: str) -> None:
    setup = (
        "import os, socket, sys, threading, time\n"
        "from airflow_provider_fluxomail.client import read_deadline\n"
        "from airflow_provider_fluxomail.client.read_deadline import Deadline\n"
        "ours, theirs = socket.socketpair()\n"
        "ours.settimeout(10)\n"
    )
    subprocess.run([sys.executable, "-c", setup + textwrap.dedent(code)], timeout=60, check=True)


@pytest.mark.parametrize("held", [False, True], ids=["idle", "with the lock held"])
def test_a_forked_process_has_a_watchdog_of_its_own(held: bool) -> None:
    """Airflow forks a process for each task, and a fork takes no threads along, but the locks that they hold."""
    run(f"""
        held = {held}
        with Deadline(theirs, 60):
            locked, forked = threading.Event(), threading.Event()

            def hold():
                with read_deadline._read_deadline._earlier:
                    locked.set()
                    forked.wait(10)

            if held:
                threading.Thread(target=hold).start()
                locked.wait(10)
            child = os.fork()
            if child == 0:
                try:
                    with Deadline(ours, 0.05):
                        closed = ours.recv(1) == b""
                except TimeoutError:
                    os._exit(0 if closed else 1)
                os._exit(2)
            forked.set()
            # A child that waits for a lock for ever is ended, and is a failure.
            until = time.monotonic() + 20
            while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
                time.sleep(0.01)
            if ended == (0, 0):
                os.kill(child, 9)
                os.waitpid(child, 0)
                sys.exit("the child hangs")
            assert os.waitstatus_to_exitcode(ended[1]) == 0
    """)


def test_a_process_ends_without_waiting_for_it() -> None:
    run("""
        # Never left: as when the interpreter ends while a thread that was given up waits for an answer.
        watched = Deadline(ours, 3600)
        watched.__enter__()
    """)
