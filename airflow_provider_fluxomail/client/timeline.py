"""What a timeline means to a wait: one rule, for every way of waiting."""

from __future__ import annotations

from collections.abc import Collection

from airflow_provider_fluxomail.client.event_types import TARGETS
from airflow_provider_fluxomail.client.models import Outcome, Timeline


def judge(timeline: Timeline, target: str, fail_on: Collection[str]) -> Outcome | None:
    """Return how ``timeline`` decides a wait for ``target``; ``None`` if it does not yet.

    ::

        outcome = judge(client.get_timeline(send_id), "delivered", FAILURES)
        if outcome and not outcome.reached:
            print("failed:", outcome.event.type, outcome.event.reason)

    Events are judged in order of their time. The first that satisfies the target or is a failure decides; at equal
    times the failure does. So a bounce after the delivery does not fail the wait, and a click counts as delivered even
    before the delivery is reported.

    :param target: a name in :data:`.TARGETS`.
    :param fail_on: names in :data:`.FAILURES`.
    """
    proofs = TARGETS[target]
    deciding = (event for event in timeline.events if event.type in proofs or event.type in fail_on)
    first = min(deciding, key=lambda event: (event.sort_time, event.type not in fail_on), default=None)
    return Outcome(event=first, reached=first.type not in fail_on) if first else None
