"""The names of all events: what a wait can wait for, what fails it, which event proves which.

Parsing a Dag imports this module, so it imports next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from airflow_provider_fluxomail.client.errors import FluxomailValidationError

#: The targets of a wait, each with the events that prove it: a click proves the opening, an opening the delivery.
TARGETS: Final[Mapping[str, frozenset[str]]] = {
    "delivered": frozenset({"delivered", "opened", "clicked"}),
    "opened": frozenset({"opened", "clicked"}),
    "clicked": frozenset({"clicked"}),
}
#: Events that can fail a wait.
FAILURES: Final[tuple[str, ...]] = ("bounced", "complained", "dropped", "failed")
#: Events that can decide a wait.
DECIDING: Final[tuple[str, ...]] = (*TARGETS, *FAILURES)
#: The events of a message that does not fail, in order.
STAGES: Final[tuple[str, ...]] = ("sent", "delayed", *TARGETS)
#: Every event that the API documents.
EVENT_TYPES: Final[tuple[str, ...]] = (*STAGES, *FAILURES)

# Event streams and lists name events "email.delivered", timelines "delivered". This package uses the short form.
_PREFIX: Final = "email."


def without_prefix(name: str) -> str:
    """Return the short form of an event's name."""
    return name.removeprefix(_PREFIX)


def with_prefix(name: str) -> str:
    """Return the form that filters of the events API take."""
    return _PREFIX + without_prefix(name)


def check_target(target: str) -> str:
    """Return ``target``; if no event can reach it, an error lists the targets."""
    if not isinstance(target, str) or target not in TARGETS:
        raise FluxomailValidationError(f"unknown target {target!r}: use one of {', '.join(TARGETS)}")
    return target


def check_fail_on(fail_on: Iterable[str]) -> tuple[str, ...]:
    """Return ``fail_on`` as a tuple; if it names an event that is not a failure, an error lists the failures."""
    if isinstance(fail_on, str):
        fail_on = (fail_on,)
    if not isinstance(fail_on, Iterable):
        raise FluxomailValidationError(f"fail_on must be a list of events: use any of {', '.join(FAILURES)}")
    names = tuple(fail_on)
    for name in names:
        if name not in FAILURES:
            raise FluxomailValidationError(f"unknown event {name!r} in fail_on: use any of {', '.join(FAILURES)}")
    return names
