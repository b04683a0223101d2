"""What a fault does to an event stream: drop, stall, repeat or reorder its frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_provider_fluxomail.sandbox.faults import models as faults
from airflow_provider_fluxomail.sandbox.faults.models import AnyFault


class StreamFaults:
    """The faults that met one stream.

    They work in a chain: frames change places, then are repeated, then counted for a drop or a stall.
    """

    def __init__(self) -> None:
        self.met = False
        """Whether there is any fault."""
        self.dropped = False
        """The connection is to be cut."""
        self.stalled = False
        """Nothing more may be sent."""
        self._holds: list[_Count] = []
        self._repeats: list[_Count] = []
        self._ends: list[_Count] = []
        self._held: bytes | None = None
        self._held_until: float | None = None

    @property
    def due(self) -> float | None:
        """When a frame that is held back must be sent, in the event loop's time."""
        return self._held_until

    def add(self, spec: AnyFault) -> None:
        self.met = True
        if isinstance(spec, faults.StreamOutOfOrder):
            self._holds.append(_Count(spec, spec.events))
        elif isinstance(spec, faults.StreamDuplicate):
            self._repeats.append(_Count(spec, spec.events))
        else:
            assert isinstance(spec, faults.StreamDrop | faults.StreamStall), spec.kind
            self._ends.append(_Count(spec, spec.after_events))
            self._check_ends()

    def apply(self, frames: Sequence[bytes], now: float) -> bytes:
        """The bytes to send for some frames, at ``now`` in the event loop's time."""
        sent: list[bytes] = []
        for frame in self._repeat(self._reorder(frames, now)):
            if self.dropped or self.stalled:
                break
            sent.append(frame)
            for end in self._ends:
                end.use()
            self._check_ends()
        return b"".join(sent)

    def rest(self) -> bytes:
        """The frame that is still held back: a stream that closes loses nothing."""
        held, self._held, self._held_until = self._held, None, None
        return held or b""

    def _reorder(self, frames: Sequence[bytes], now: float) -> Iterable[bytes]:
        for frame in frames:
            if self._held is not None:
                yield frame
                yield self.rest()
            elif (hold := _first(self._holds)) is not None:
                assert isinstance(hold.spec, faults.StreamOutOfOrder)
                hold.use()
                self._held, self._held_until = frame, now + hold.spec.seconds
            else:
                yield frame
        if self._held_until is not None and now >= self._held_until:
            yield self.rest()

    def _repeat(self, frames: Iterable[bytes]) -> Iterable[bytes]:
        for frame in frames:
            yield frame
            if (repeat := _first(self._repeats)) is not None:
                repeat.use()
                yield frame

    def _check_ends(self) -> None:
        """The first that has counted all its events ends the stream."""
        for end in self._ends:
            if end.left == 0 and not (self.dropped or self.stalled):
                self.dropped = isinstance(end.spec, faults.StreamDrop)
                self.stalled = not self.dropped


@dataclass
class _Count:
    """A fault and how many frames it still acts on or lets pass; None for no limit."""

    spec: AnyFault
    left: int | None

    def use(self) -> None:
        if self.left:
            self.left -= 1


def _first(counts: Iterable[_Count]) -> _Count | None:
    return next((count for count in counts if count.left != 0), None)
