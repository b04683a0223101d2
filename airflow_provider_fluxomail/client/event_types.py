"""What a wait can wait for, and what fails it. Parsing a Dag imports this, so it imports next to nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from airflow_provider_fluxomail.client.errors import FluxomailValidationError

#: What a wait can wait for, each with the events that prove it: a click proves the opening, an opening the delivery.
TARGETS: Final[Mapping[str, frozenset[str]]] = {
    "delivered": frozenset({"delivered", "opened", "clicked"}),
    "opened": frozenset({"opened", "clicked"}),
    "clicked": frozenset({"clicked"}),
}
#: Events that can end a wait as a failure.
FAILURES: Final[tuple[str, ...]] = ("bounced", "complained", "dropped", "failed")


def check_target(target: str) -> str:
    """Return ``target``.

    :raises FluxomailValidationError: when no event can reach it; lists those that can.
    """
    if not isinstance(target, str) or target not in TARGETS:
        raise FluxomailValidationError(f"unknown target {target!r}: use one of {', '.join(TARGETS)}")
    return target


def check_fail_on(fail_on: Iterable[str]) -> tuple[str, ...]:
    """Return ``fail_on`` as a tuple.

    :raises FluxomailValidationError: when it names an event that is not a failure; lists those that are.
    """
    if isinstance(fail_on, str):
        fail_on = (fail_on,)
    if not isinstance(fail_on, Iterable):
        raise FluxomailValidationError(f"fail_on must be a list of events: use any of {', '.join(FAILURES)}")
    names = tuple(fail_on)
    for name in names:
        if name not in FAILURES:
            raise FluxomailValidationError(f"unknown event {name!r} in fail_on: use any of {', '.join(FAILURES)}")
    return names
