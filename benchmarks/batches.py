"""Batches by ``FluxomailSendBatchOperator``: how well one uses a key's cap, and how fast one is without.

The peer is what a Dag author would write instead: threads of which each has a ``requests`` session. It is run without
a cap only, as it knows nothing of one.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.sandbox.limits import RATE_WINDOW_SECONDS
from benchmarks.report import Row, at_least, at_most, median_round
from benchmarks.sending import MESSAGE, SEND_PATH, headers, serving

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox

CAPPED: Final = 1_200
CAP: Final = 600
"""Requests a minute."""
MANY: Final = 10_000
ROUNDS: Final = 5
AT_ONCE: Final = 16
"""Messages on their way at once, of both."""


def bench_capped() -> list[Row]:
    """Send under a cap, in real time: how much is refused, and how much of the cap is used.

    The sandbox's clock is moved to the start of a minute, so that all that could be sent in the windows which the
    messages need at least is just the number of messages.
    """
    case = f"batch of {CAPPED:,}, cap {CAP}/min"
    with serving() as served:
        served.key("capped", rate_limit_per_minute=CAP)
        served.connect(key="capped", timeout=15)
        now = served.now()
        began = served.advance(-now % RATE_WINDOW_SECONDS)
        ahead = began - time.time()
        _own(served, CAPPED, "capped")
        requests = served.requests("POST")
        served.assert_sent(CAPPED)
    refused = sum(request.status == 429 for request in requests)
    first = began // RATE_WINDOW_SECONDS
    windows = Counter(
        (request.at + ahead) // RATE_WINDOW_SECONDS - first for request in requests if request.status == 200
    )
    needed = math.ceil(CAPPED / CAP)
    in_time = sum(windows[window] for window in range(needed))
    return [
        at_most(case, "refused, part of all requests", refused / len(requests), 0.01),
        at_least(
            case, f"sent in the first {needed} windows, part of what the cap allows", in_time / (needed * CAP), 0.95
        ),
    ]


def bench() -> list[Row]:
    """Send without a cap, in turns with the peer."""
    case = f"batch of {MANY:,}"
    rates, seconds = [], []
    # What is imported at the first send is no part of the figures.
    for send in (_own, _peer):
        _measured(send, 100, "warm")
    for number in range(ROUNDS):
        own, peer = (_measured(send, MANY, f"run-{number}") for send in (_own, _peer))
        rates.append((own[0], peer[0]))
        seconds.append((own[1], peer[1]))
    (rate, peer_rate), (cpu, peer_cpu) = median_round(rates), median_round(seconds)
    return [
        Row(case, f"sends/s, {AT_ONCE} at once", rate, peer_rate, "ratio >= 1", rate >= peer_rate),
        Row(case, "CPU s of the sending process", cpu, peer_cpu, "ratio <= 1", cpu <= peer_cpu),
    ]


def _measured(send: Callable[[FluxomailSandbox, int, str], None], many: int, run_id: str) -> tuple[float, float]:
    """Send once: messages per second, and CPU seconds of this process."""
    with serving() as served:
        wall, cpu = time.perf_counter(), time.process_time()
        send(served, many, run_id)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        # All of them are stored: what is fast because it does less would not count.
        served.assert_sent(many)
    return many / wall, cpu


def _people(many: int) -> list[dict[str, str]]:
    return [{**MESSAGE, "to": f"p{number}@example.org"} for number in range(many)]


def _own(served: FluxomailSandbox, many: int, run_id: str) -> None:  # noqa: ARG001 - its connection says where
    """Send as a task does, all that is around it left out."""
    from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator

    task = FluxomailSendBatchOperator(task_id="batch", messages=_people(many), concurrency=AT_ONCE, deferrable=False)
    ti = SimpleNamespace(dag_id="bench", run_id=run_id, task_id="batch", map_index=-1, max_tries=0, try_number=1)
    context: Any = {"ti": ti, "run_id": run_id, "params": {}}
    sent = task.execute(context)["sent"]
    if sent != many:
        raise RuntimeError(f"{sent} of {many} were sent")


def _peer(served: FluxomailSandbox, many: int, run_id: str) -> None:
    """Send from threads, each with a session of its own."""
    import requests

    people = _people(many)
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            with requests.Session() as session:
                for number in range(thread, many, AT_ONCE):
                    key = headers(f"{run_id}-{number}")
                    answer = session.post(served.url + SEND_PATH, json=people[number], headers=key, timeout=15)
                    answer.raise_for_status()
                    answer.json()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
