"""CPU of one send on a warm hook, against the bare ``requests`` session that a Dag author would write instead.

Both send the same body with the same headers, in turns, from this process to one sandbox in a process of its own.
"""

from __future__ import annotations

import os
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

from airflow_provider_fluxomail.sandbox.limits import API_VERSION, DEFAULT_API_KEY
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
from benchmarks.report import Row, median_round
from benchmarks.sandbox import sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CASE: Final = "send"
ROUNDS: Final = 3
SENDS: Final = 400
"""Sends of each in a round."""
TURN: Final = 50
"""Sends of one before it is the other's turn: what else the machine does meets both."""

SEND_PATH: Final = "/api/v1/emails/send"
MESSAGE: Final = {"to": "ops@example.org", "subject": "Nightly load finished", "content": "Loaded 20 rows."}


@contextmanager
def serving() -> Iterator[FluxomailSandbox]:
    """A sandbox in a process of its own, to which the default connection leads."""
    with sandbox()() as port:
        served = FluxomailSandbox(f"http://127.0.0.1:{port}", DEFAULT_API_KEY, os.environ.__setitem__)
        served.connect(timeout=15)
        yield served


def headers(key: str) -> dict[str, str]:
    """What the hook sends, for the peer."""
    return {
        "Authorization": f"Bearer {DEFAULT_API_KEY}",
        "Fluxomail-Version": API_VERSION,
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Idempotency-Key": key,
    }


def bench() -> list[Row]:
    """Milliseconds of this process's CPU for one send."""
    import requests

    from airflow_provider_fluxomail.hooks import FluxomailHook

    with (
        serving() as served,
        closing(FluxomailHook()) as hook,
        requests.Session() as session,
    ):

        def own(key: str) -> None:
            if hook.send(MESSAGE, idempotency_key=key).reused:
                raise RuntimeError(f"{key} was used before: nothing was sent")

        def peer(key: str) -> None:
            answer = session.post(served.url + SEND_PATH, json=MESSAGE, headers=headers(key), timeout=15)
            answer.raise_for_status()
            answer.json()

        for send in (own, peer):
            _spent(send, f"warm-{send.__name__}", TURN)
        rounds = []
        for number in range(ROUNDS):
            spent = {own: 0.0, peer: 0.0}
            for turn in range(SENDS // TURN):
                for send in spent:
                    spent[send] += _spent(send, f"{send.__name__}-{number}-{turn}", TURN)
            rounds.append((1000 * spent[own] / SENDS, 1000 * spent[peer] / SENDS))
    value, compared = median_round(rounds)
    return [Row(CASE, "CPU ms per send", value, compared, "ratio <= 1", value <= compared)]


def _spent(send: Callable[[str], None], name: str, many: int) -> float:
    began = time.process_time()
    for number in range(many):
        send(f"{name}-{number}")
    return time.process_time() - began
