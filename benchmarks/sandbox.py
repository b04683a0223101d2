"""How much one sandbox process takes: sends per second over keep-alive, and 200 event streams at once.

The peer is a bare uvicorn application on the same HTTP implementation, which reads each request and answers with
constant bytes: what is left of the ratio is what the sandbox does with a message.

    python -m benchmarks.sandbox [sends] [sends-html] [sends-file] [streams] [rewriting]
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.report import Row, at_least, at_most, percentile, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.queues import Queue

ROUNDS: Final = 3
SENDERS: Final = 2
"""Processes that send."""
CONNECTIONS: Final = 8
"""Connections of each."""
SECONDS: Final = 4.0
STREAMS: Final = 200
STREAM_SENDS: Final = 400
STREAM_RATE: Final = 100
"""Sends per second while the streams are open."""

REWRITTEN: Final = 1_000_000
"""Characters of the HTML that is rewritten."""

Body = dict[str, str]
_TEXT: Final[Body] = {"to": "ops@example.org", "subject": "Nightly load finished", "content": "Loaded 20 rows."}
_HTML: Final[Body] = _TEXT | {
    "htmlContent": "<html><body><p>Loaded <b>20</b> rows: <a href='https://example.org/report?run=1&amp;part=2'>report"
    "</a>, <a href='https://example.org/log'>log</a>.</p></body></html>"
}
_ROW: Final = (
    "<tr><td style='padding:4px'>Loaded <b>20</b> rows &amp; checked them, for the table of the orders of one region."
    '</td><td><a href="https://example.org/report?run=1&amp;part=2">report</a></td></tr>\n'
)


def request(port: int, key: str, content: Body = _TEXT) -> bytes:
    """A send as bytes."""
    body = json.dumps(content).encode()
    head = (
        f"POST /api/v1/emails/send HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer fm_sandbox\r\n"
        f"Idempotency-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> None:
    """Send one request and read its response, which must be a 200."""
    writer.write(sent)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode())
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))


async def _send_for(port: int, name: str, seconds: float, content: Body) -> int:
    count = 0
    end = time.monotonic() + seconds

    async def connection(number: int) -> None:
        nonlocal count
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        own = 0
        while time.monotonic() < end:
            await exchange(reader, writer, request(port, f"{name}-{number}-{own}", content))
            own += 1
        count += own
        writer.close()

    await asyncio.gather(*(connection(number) for number in range(CONNECTIONS)))
    return count


def _sender(port: int, name: str, content: Body, counts: Queue[int]) -> None:
    counts.put(asyncio.run(_send_for(port, name, SECONDS, content)))


def sends_per_second(port: int, name: str, content: Body = _TEXT) -> float:
    """Sends over keep-alive connections, from several processes."""
    context = multiprocessing.get_context("fork")
    counts: Queue[int] = context.Queue()
    began = time.monotonic()
    senders = [context.Process(target=_sender, args=(port, f"{name}-{n}", content, counts)) for n in range(SENDERS)]
    for sender in senders:
        sender.start()
    total = sum(counts.get(timeout=SECONDS + 30) for _ in senders)
    for sender in senders:
        sender.join()
    return total / (time.monotonic() - began)


@contextmanager
def serving(*command: str) -> Iterator[int]:
    """A server process; its first line ends with its URL."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().rpartition(":")[2])
    finally:
        process.terminate()
        process.wait(10)


def sandbox(*options: str) -> Callable[[], Any]:
    """A sandbox in a process of its own."""
    return lambda: serving("-m", "airflow_provider_fluxomail.sandbox", "--port", "0", "--event-delay", "0", *options)


def peer() -> Any:
    """The bare application in a process of its own."""
    return serving("-m", "benchmarks.bare")


def bench_sends(case: str, content: Body) -> list[Row]:
    """Sends per second, against the peer in turns."""
    own, theirs = [], []
    for number in range(ROUNDS):
        with sandbox()() as port:
            own.append(sends_per_second(port, f"{number}", content))
        with peer() as port:
            theirs.append(sends_per_second(port, f"{number}", content))
    return [at_least(case, "sends/s", statistics.median(own), 500, statistics.median(theirs))]


def bench_sends_in_file() -> list[Row]:
    """The same with a data file."""
    with tempfile.TemporaryDirectory() as folder:
        own = []
        for number in range(ROUNDS):
            with sandbox("--data", str(Path(folder, f"{number}.db")))() as port:
                own.append(sends_per_second(port, f"{number}"))
    return [at_least("sends, data file", "sends/s", statistics.median(own), 500)]


class Stream:
    """One event stream that counts what it gets."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.events: dict[tuple[str, str], float] = {}
        self.repeated = 0

    async def follow(self, port: int, until: int) -> None:
        """Read until this many events have arrived."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        writer.write(
            f"GET /api/v1/events/stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer fm_sandbox\r\n"
            "Accept: text/event-stream\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        self.opened.set()
        while len(self.events) < until:
            line = await reader.readline()
            if line.startswith(b"data: "):
                event = json.loads(line[6:])
                name = (event["data"]["sendId"], event["type"])
                self.repeated += name in self.events
                self.events[name] = time.time()
        writer.close()


async def _streams(port: int) -> tuple[list[float], int, float]:
    """Delays from event to client in seconds, of all streams; events that came twice; sends per second meanwhile."""
    streams = [Stream() for _ in range(STREAMS)]
    expected = STREAM_SENDS * 2
    followers = [asyncio.create_task(stream.follow(port, expected)) for stream in streams]
    await asyncio.gather(*(stream.opened.wait() for stream in streams))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    for number in range(STREAM_SENDS):
        await asyncio.sleep(max(0.0, began + number / STREAM_RATE - time.monotonic()))
        await exchange(reader, writer, request(port, f"stream-{number}"))
    rate = STREAM_SENDS / (time.monotonic() - began)
    writer.close()
    await asyncio.wait_for(asyncio.gather(*followers), 60)
    first = {name: min(stream.events[name] for stream in streams) for name in streams[0].events}
    delays = [at - first[name] for stream in streams for name, at in stream.events.items()]
    return delays, sum(stream.repeated for stream in streams), rate


def bench_streams() -> list[Row]:
    """Every stream gets every event, once, and soon."""
    with sandbox()() as port:
        delays, repeated, rate = asyncio.run(_streams(port))
    case = f"{STREAMS} streams"
    return [
        at_least(case, "events received", len(delays), STREAMS * STREAM_SENDS * 2),
        at_most(case, "events received twice", repeated, 0),
        at_most(case, "first to last stream, p99 s", percentile(delays, 99), 1.0),
        at_least(case, f"sends/s meanwhile, of {STREAM_RATE}", rate, STREAM_RATE * 0.9),
    ]


def bench_rewriting() -> list[Row]:
    """CPU time to track the links of a document, after the first, which imports lxml."""
    from airflow_provider_fluxomail.sandbox.tracking.delivery import deliver, urls

    html = f"<html><body><table>{_ROW * (REWRITTEN // len(_ROW))}</table></body></html>"
    url = urls("http://127.0.0.1:8026", b"secret", "sends_000000000000000000000000")
    times = []
    for _ in range(ROUNDS * 3 + 1):
        began = time.process_time()
        delivery = deliver(html, url, tracked=True, unsubscribe=True, footer=True)
        times.append((time.process_time() - began) * 1000)
    case = f"rewriting {REWRITTEN / 1e6:.0f} MB of HTML with {len(delivery.links)} links"
    return [at_most(case, "CPU ms", statistics.median(times[1:]), 50)]


CASES: Final[dict[str, Callable[[], list[Row]]]] = {
    "sends": lambda: bench_sends("sends, memory", _TEXT),
    "sends-html": lambda: bench_sends("sends of HTML, memory", _HTML),
    "sends-file": bench_sends_in_file,
    "streams": bench_streams,
    "rewriting": bench_rewriting,
}


def main(names: list[str]) -> int:
    """Run the cases that are named, else all."""
    unknown = set(names) - set(CASES)
    if unknown:
        print(f"no case {', '.join(sorted(unknown))}: there are {', '.join(CASES)}", file=sys.stderr)
        return 2
    rows = [row for name in names or CASES for row in CASES[name]()]
    return show("Sandbox, one process", rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
