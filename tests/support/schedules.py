"""Random schedules of events, faults and restarts for many waits."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from typing import Any, Final

from hypothesis import strategies as st

from airflow_provider_fluxomail.client.watching.wait import WaitOutcome, now
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from tests.support.watching import Mail, Waits, outcome, send, timing, watching

EXAMPLES: Final = int(os.environ.get("FLUXOMAIL_SCHEDULE_EXAMPLES", "8"))
WAITS: Final = 8
CAP: Final = 1200
EVENTS: Final = ("delivered", "opened", "clicked", "bounced", "complained", "dropped", "failed", "delayed")
STREAM_FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"kind": "stream_drop"},
    {"kind": "stream_drop", "after_events": 2},
    {"kind": "stream_stall"},
    {"kind": "stream_stall", "after_events": 1},
    {"kind": "stream_duplicate"},
    {"kind": "stream_out_of_order", "events": 3, "seconds": 0.1},
    {"kind": "stream_gap"},
)
REQUEST_FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"kind": 500},
    {"kind": 503, "retry_after": 1},
    {"kind": 429, "retry_after": 1},
    {"kind": 404},
    {"kind": "cut_in_body"},
    {"kind": "malformed_json"},
    {"kind": "proxy_error_page"},
    {"kind": "gzip_garbage"},
)
PATHS: Final = ("/api/v1/sends", "/api/v1/events", "/api/v1/events/stream", "/api/v1")


@dataclasses.dataclass(frozen=True)
class Event:
    """Something happens to a message."""

    kind: str
    number: int


@dataclasses.dataclass(frozen=True)
class Start:
    """More waits begin, some of which no worker has seen."""

    numbers: frozenset[int]
    seen: bool
    target: str


@dataclasses.dataclass(frozen=True)
class Fault:
    """The next requests go wrong."""

    options: tuple[tuple[str, Any], ...]
    path: str | None
    times: int


@dataclasses.dataclass(frozen=True)
class Restart:
    """The triggerer ends, and another one takes over."""


@dataclasses.dataclass(frozen=True)
class Pause:
    """Some time passes."""

    seconds: float


def fault(options: dict[str, Any], path: str | None, times: int) -> Fault:
    return Fault(tuple(options.items()), path, times)


STEPS: Final = st.lists(
    st.one_of(
        st.builds(Event, st.sampled_from(EVENTS), st.integers(0, WAITS - 1)),
        st.builds(Event, st.sampled_from(EVENTS), st.integers(0, WAITS - 1)),
        st.builds(
            Start,
            st.frozensets(st.integers(0, WAITS - 1), min_size=1),
            st.booleans(),
            st.sampled_from(("delivered", "opened", "clicked")),
        ),
        st.builds(fault, st.sampled_from(STREAM_FAULTS), st.none(), st.integers(1, 2)),
        st.builds(fault, st.sampled_from(REQUEST_FAULTS), st.sampled_from(PATHS), st.integers(1, 3)),
        st.just(Restart()),
        st.builds(Pause, st.floats(0, 0.5)),
    ),
    min_size=3,
    max_size=25,
)


class Play:
    """One schedule: what was started, and how it ended."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.sent = send(sandbox, WAITS)
        self.mail = Mail(sandbox)
        self.started: dict[str, tuple[str, float | None]] = {}
        self.ended: dict[str, list[Any]] = {}

    async def until_restart(self, steps: list[Any], *, last: bool) -> None:
        """One triggerer's life. Waits left by the one before it continue, their last poll as old as it was."""
        when = timing(silence=0.5, patience=1.0, retry_events=1.0, reconcile=1.0)
        async with watching(self.sandbox, when, key="capped", share=1.0) as waits:
            for send_id in self.started:
                if send_id not in self.ended:
                    self._start(waits, send_id)
            for step in steps:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                elif isinstance(step, Start):
                    for send_id in (self.sent[number] for number in sorted(step.numbers)):
                        if send_id not in self.started:
                            self.started[send_id] = (step.target, now() if step.seen else None)
                            self._start(waits, send_id)
                else:
                    await asyncio.to_thread(self._perform, step)
                # Those that were started run.
                await asyncio.sleep(0)
            if last:
                await asyncio.to_thread(self.sandbox.clear_faults)
                await waits.all_ended(one for one in self.started if one not in self.ended and self._outcome(one))
        for send_id, endings in waits.endings.items():
            self.ended.setdefault(send_id, []).extend(endings)

    def check(self) -> None:
        """Every wait has ended once, as the timeline says, or not at all, as nothing decided it."""
        for send_id in self.started:
            endings = [(one.status, one.event) for one in self.ended.get(send_id, ()) if isinstance(one, WaitOutcome)]
            assert len(endings) == len(self.ended.get(send_id, ())), self.ended[send_id]
            found = self._outcome(send_id)
            assert endings == ([found] if found else []), send_id
        refused = [one for one in self.sandbox.requests("GET", status=429) if not one.fault]
        assert not refused, "requests over the cap"

    def _start(self, waits: Waits, send_id: str) -> None:
        target, seen = self.started[send_id]
        waits.start([send_id], target=target, interval=1, ago=None if seen is None else now() - seen)

    def _outcome(self, send_id: str) -> tuple[str, str] | None:
        return outcome(self.sandbox, send_id, self.started[send_id][0])

    def _perform(self, step: Any) -> None:
        if isinstance(step, Event):
            self.mail.event(step.kind, self.sent[step.number])
        elif isinstance(step, Fault):
            options = dict(step.options)
            match: dict[str, Any] = {} if step.path is None else {"path": step.path, "method": "GET"}
            self.sandbox.fail_next(options.pop("kind"), times=step.times, **match, **options)


async def play(sandbox: Sandbox, steps: list[Any], *, events_in_plan: bool) -> None:
    sandbox.reset()
    sandbox.settings(stream_heartbeat=0.1, events_in_plan=events_in_plan)
    sandbox.key("capped", rate_limit_per_minute=CAP)
    played = Play(sandbox)
    lives: list[list[Any]] = [[Start(frozenset(range(WAITS // 2)), True, "delivered")]]
    for step in steps:
        if isinstance(step, Restart):
            lives.append([])
        else:
            lives[-1].append(step)
    for life in lives:
        await played.until_restart(life, last=life is lives[-1])
    played.check()
