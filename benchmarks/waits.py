"""Many waits on one capped key: requests, refusals, delay, CPU and memory, against Airflow's deferrable HTTP sensor.

Three processes: the server, the waits (:mod:`benchmarks.waiting`), and this one, which makes the sends beforehand and
then delivers them. A delay counts from the moment before a delivery is asked for to that at which ``run()`` yields.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import httpx

from airflow_provider_fluxomail.sandbox.limits import DEFAULT_API_KEY
from benchmarks.protocol import Result, Task, connection_id
from benchmarks.report import Row, at_most, percentile
from benchmarks.sandbox import serving
from benchmarks.server import BUSY, COUNTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CAP: Final = 600
"""Requests per minute of the waits' key."""
PATIENCE: Final = 90.0
"""Seconds after which a wait counts as unresolved."""
POKE_SECONDS: Final = 60.0
"""Of the peer: the default of every Airflow sensor. With 5 s, the trigger's own default, it is refused as often: once
the cap is used up, it asks again without any pause."""
ROUNDS: Final = 3
POLL_SHARE: Final = 0.5
"""The default of the connection."""
_SHARED: Final = "benchmarks.shared_stream"
KEY: Final = "fm_waits"
_CONNECTIONS: Final = 8
_PAGE: Final = 1_000
_READY_SECONDS: Final = 120.0


@dataclasses.dataclass(frozen=True)
class Figures:
    """What one run of waits has shown.

    :param delays: event to fire, in seconds, of the waits that fired; the greatest last.
    :param cpu: seconds of the process that waits.
    :param received: bytes of the responses' bodies.
    :param lags: of the event loop, see :class:`.Result`.
    """

    requests: int
    refused: int
    delays: list[float]
    unresolved: int
    cpu: float
    received: int
    lags: list[float]

    @property
    def p99(self) -> float:
        """The delay that 99 of 100 waits do not exceed; those that never fired have none."""
        return percentile(self.delays, 99) if self.delays else float("inf")


class Server:
    """The server of a benchmark, and what is asked of it besides the waits."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def control(self, path: str, **fields: Any) -> None:
        """Make one control call."""
        httpx.post(f"{self.url}/_sandbox/{path}", json=fields, trust_env=False).raise_for_status()

    def put_key(self, key: str = KEY, **fields: Any) -> None:
        """Make the key of the waits."""
        self.control("keys", key=key, rate_limit_per_minute=CAP, **fields)

    def counts(self, *keys: str) -> tuple[int, int, int, int]:
        """Requests, refusals, bytes and event streams of some keys, by default of that of the waits."""
        counted = httpx.get(self.url + COUNTS, trust_env=False).json()
        requests, refused, received, streams = (
            sum(counted[name].get(key, 0) for key in keys or (KEY,))
            for name in ("requests", "refused", "bytes", "streams")
        )
        return requests, refused, received, streams

    def make_busy(self, rate: float) -> None:
        """Let this many events a second happen to the organization, to its oldest messages."""
        httpx.post(f"{self.url}{BUSY}?rate={rate}", trust_env=False).raise_for_status()

    def make_sends(self, count: int, *, key: str = DEFAULT_API_KEY, name: str = "wait") -> list[str]:
        """Make this many sends, by default with a key of their own, and return their ids."""
        return asyncio.run(self._make_sends(count, key, name))

    async def _make_sends(self, count: int, key: str, name: str) -> list[str]:
        body = {"to": "ops@example.org", "subject": "Nightly load finished", "content": "Loaded 20 rows."}
        sends: list[str] = []

        async def connection(start: int) -> None:
            async with _Connection(self.port, key) as server:
                for number in range(start, count, _CONNECTIONS):
                    answer = await server.post("/api/v1/emails/send", body | {"idempotencyKey": f"{name}-{number}"})
                    sends.append(answer["sendId"])

        await asyncio.gather(*(connection(start) for start in range(_CONNECTIONS)))
        return sends

    def delivered_at(self, sends: list[str]) -> dict[str, float]:
        """When each of these sends was delivered, by its timeline."""
        found: dict[str, float] = {}
        for offset in itertools.count(0, _PAGE):
            query = {"limit": _PAGE, "offset": offset}
            page = httpx.get(f"{self.url}/_sandbox/messages", params=query, trust_env=False).json()["messages"]
            for message in page:
                events = {event["type"]: event["at"] for event in message["events"]}
                if message["send_id"] in sends:
                    found[message["send_id"]] = events["delivered"]
            if len(page) < _PAGE:
                return found
        raise AssertionError

    async def deliver(self, sends: list[str], seconds: float) -> dict[str, float]:
        """Deliver the sends in random order, evenly over this many seconds, and return when each was requested."""
        order = random.Random(5).sample(sends, len(sends))
        asked: dict[str, float] = {}
        began = time.monotonic()

        async def connection(start: int) -> None:
            async with _Connection(self.port) as server:
                for number in range(start, len(order), _CONNECTIONS):
                    await asyncio.sleep(max(0.0, began + number * seconds / len(order) - time.monotonic()))
                    asked[order[number]] = time.time()
                    await server.post(f"/_sandbox/messages/{order[number]}/events", {"type": "delivered"})

        await asyncio.gather(*(connection(start) for start in range(_CONNECTIONS)))
        return asked


class _Connection:
    """One connection that is kept alive. An HTTP library would take more of the machine than the server does."""

    def __init__(self, port: int, key: str = DEFAULT_API_KEY) -> None:
        self._port = port
        self._key = key

    async def __aenter__(self) -> _Connection:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def post(self, path: str, fields: dict[str, Any]) -> Any:
        body = json.dumps(fields).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        told = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = next(line for line in told.split(b"\r\n") if line.startswith(b"content-length:"))
        answer = await self._reader.readexactly(int(length.partition(b":")[2]))
        if not told.startswith(b"http/1.1 200"):
            raise RuntimeError(answer.decode())
        return json.loads(answer)


@contextmanager
def server() -> Iterator[Server]:
    """A fresh server with the key of the waits."""
    with serving("-m", "benchmarks.server") as port:
        found = Server(port)
        found.put_key()
        yield found


class Waiting:
    """The process of the waits, from ready to its result."""

    def __init__(
        self,
        server: Server,
        task: Task,
        module: str = "benchmarks.waiting",
        keys: Sequence[str] = (KEY,),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        connections = {
            connection_id(number).upper(): {"conn_type": "fluxomail", "host": server.url, "password": key}
            for number, key in enumerate(keys)
        } | {
            "HTTP_DEFAULT": {"conn_type": "http", "host": server.url, "extra": {"Authorization": f"Bearer {KEY}"}},
        }
        variables = os.environ | {f"AIRFLOW_CONN_{name}": json.dumps(one) for name, one in connections.items()}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # What Airflow logs is not read: whatever goes wrong is in the result.
            stderr=subprocess.DEVNULL if not os.environ.get("BENCH_STDERR") else None,
            text=True,
            env=variables | dict(environment or {}) | {"AIRFLOW_HOME": self._folder.name, "NO_PROXY": "127.0.0.1"},
        )
        self._tell(json.dumps(dataclasses.asdict(task)))
        self._expect("ready")

    def begin(self) -> None:
        """Let the waits begin; returns when all of them run."""
        self._tell("begin")
        self._expect("begun")

    def result(self) -> Result:
        """Wait for the end."""
        try:
            return Result(**json.loads(self._line()))
        finally:
            self._process.wait(_READY_SECONDS)

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _expect(self, line: str) -> None:
        if (found := self._line().strip()) != line:
            raise RuntimeError(f"the process of the waits said {found!r} instead of {line!r}")

    def _line(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"the process of the waits ended with {self._process.wait(10)}")
        return line


def measure(
    server: Server,
    sends: list[str],
    kind: str,
    *,
    spread: float,
    seconds: float,
    delay: float = 0.0,
    left: int = 0,
    lag: bool = False,
    module: str = "benchmarks.waiting",
    keys: Sequence[str] = (KEY,),
    environment: Mapping[str, str] | None = None,
) -> Figures:
    """Let waits begin, deliver their sends, and see what they do.

    :param spread: seconds over which the deliveries are spread.
    :param seconds: the longest that the waits are waited for.
    :param delay: seconds before the first delivery.
    :param left: so many of the waits are never delivered.
    :param lag: measure that of the event loop.
    :param keys: of the connections over which the waits are spread.
    :param environment: variables for the process of the waits.
    """
    before = server.counts(*keys)
    task = Task(kind, sends, seconds, poke_interval=POKE_SECONDS, connections=len(keys), lag=lag)
    with Waiting(server, task, module, keys, environment) as waiting:
        waiting.begin()
        time.sleep(delay)
        asked = asyncio.run(server.deliver(sends[left:], spread))
        result = waiting.result()
    if result.wrong and kind == "fluxomail":
        raise RuntimeError(f"{len(result.wrong)} waits went wrong, such as: {result.wrong[0]}")
    fired = [(send_id, at) for send_id, at in zip(sends, result.fired, strict=True) if at is not None]
    requests, refused, received, _ = (now - then for now, then in zip(server.counts(*keys), before, strict=True))
    delays = sorted(at - asked[send_id] for send_id, at in fired)
    return Figures(requests, refused, delays, len(sends) - len(fired), result.cpu, received, result.lags)


def _round(kind: str, count: int, spread: float) -> Figures:
    with server() as one:
        figures = measure(one, one.make_sends(count), kind, spread=spread, seconds=PATIENCE)
    print(
        f"    {kind}: {figures.requests} requests, {figures.refused} refused, p99 {figures.p99:.2f} s, "
        f"{figures.unresolved} unresolved, {figures.cpu:.2f} s CPU",
        file=sys.stderr,
    )
    return figures


def bench_1000() -> list[Row]:
    """1,000 waits whose sends are delivered within 30 s."""
    own, peer = [], []
    for _ in range(ROUNDS):
        own.append(_round("fluxomail", 1_000, 30.0))
        peer.append(_round("http", 1_000, 30.0))
    case = "1,000 waits"
    middle = statistics.median
    cpu, peer_cpu = middle(one.cpu for one in own), middle(one.cpu for one in peer)
    return [
        at_most(case, "requests", middle(x.requests for x in own), 20, middle(x.requests for x in peer)),
        at_most(case, "refused", max(x.refused for x in own), 0, middle(x.refused for x in peer)),
        at_most(case, "event to fire, p99 s", middle(x.p99 for x in own), 1.0, middle(x.p99 for x in peer)),
        at_most(case, "unresolved after 90 s", max(x.unresolved for x in own), 0, middle(x.unresolved for x in peer)),
        Row(case, "CPU s", cpu, peer_cpu, "<= 1/60", cpu <= peer_cpu / 60),
    ]


def bench_10000() -> list[Row]:
    """10,000 waits within 60 s, their memory, and how the CPU time grows from 1,000 on."""
    case = "10,000 waits"
    middle = statistics.median
    small = [_round("fluxomail", 1_000, 30.0)]
    with server() as one:
        sends = one.make_sends(10_000)
        memory, nothing = (_memory(one, sends, kind) for kind in ("fluxomail", "nothing"))
        large = [measure(one, sends, "fluxomail", spread=60.0, seconds=PATIENCE)]
    growth = middle(x.cpu for x in large) / middle(x.cpu for x in small)
    return [
        at_most(case, "requests", middle(x.requests for x in large), 150),
        at_most(case, "refused", max(x.refused for x in large), 0),
        at_most(case, "event to fire, p99 s", middle(x.p99 for x in large), 2.0),
        at_most(case, "unresolved after 90 s", max(x.unresolved for x in large), 0),
        Row(case, "memory per wait, KB", memory, nothing, "<= peer + 4", memory <= nothing + 4),
        at_most(case, "CPU, times that of 1,000", growth, 12),
    ]


def bench_shared_stream() -> list[Row]:
    """1,000 waits by one watcher, against as many on a shared stream of Airflow's. For information."""
    case, count, spread = "1,000 waits, watcher against a shared stream", 1_000, 30.0
    with server() as one:
        sends = one.make_sends(count)
        memory, peer_memory = _memory(one, sends, "fluxomail"), _memory(one, sends, "shared", _SHARED)
        own = measure(one, sends, "fluxomail", spread=spread, seconds=PATIENCE)
    with server() as one:
        # What has not come by then never comes.
        peer = measure(one, one.make_sends(count), "shared", spread=spread, seconds=1.5 * spread, module=_SHARED)
    return [
        Row(case, "CPU s", own.cpu, peer.cpu),
        Row(case, "event to fire, p99 s", own.p99, peer.p99),
        Row(case, "unresolved", own.unresolved, peer.unresolved),
        Row(case, "memory per wait, KB", memory, peer_memory),
    ]


def _memory(server: Server, sends: list[str], kind: str, module: str = "benchmarks.waiting") -> float:
    """Resident KB of one wait, measured as what waits beyond the first tenth add. A process of its own."""
    some = len(sends) // 10
    with Waiting(server, Task(kind, sends, 0.0, memory=some), module) as waiting:
        waiting.begin()
        _, before, after = waiting.result().rss
    return (after - before) / 1024 / (len(sends) - some)


def bench_timeline() -> list[Row]:
    """1,000 waits on a plan without the events API: each is read as fast as the share of the cap for waiting allows."""
    case, count, spread = "1,000 waits, no events API", 1_000, 30.0
    # Each wait is due once in this many seconds. Worst for one that was read just before its event.
    theory = count / (POLL_SHARE * CAP / 60)
    with server() as one:
        one.control("settings", events_in_plan=False)
        figures = measure(one, one.make_sends(count), "fluxomail", spread=spread, seconds=2 * theory)
    return [
        at_most(case, "refused, % of requests", 100 * figures.refused / figures.requests, 1),
        at_most(case, "slowest event to fire, times theory", figures.delays[-1] / theory, 1.3),
        at_most(case, "unresolved", figures.unresolved, 0),
        Row(case, "requests", figures.requests),
    ]
