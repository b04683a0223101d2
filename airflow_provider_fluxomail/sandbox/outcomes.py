"""What happens to a message once it was accepted: the recipient's address chooses it, and it is planned at once.

The plan is a list of events with a time. Nothing runs in the background: an event is visible once the sandbox clock
has reached it, so moving the clock delivers messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

SENT: Final = "sent"
DELIVERED: Final = "delivered"
OPENED: Final = "opened"
CLICKED: Final = "clicked"
BOUNCED: Final = "bounced"
COMPLAINED: Final = "complained"
DROPPED: Final = "dropped"
FAILED: Final = "failed"
UNSUBSCRIBED: Final = "unsubscribed"

NEVER: Final = "never"
OUTCOMES: Final = (DELIVERED, BOUNCED, COMPLAINED, DROPPED, FAILED, NEVER, OPENED, CLICKED)
"""Local parts or ``+tags`` that choose an outcome."""

_STEPS: Final = {
    NEVER: (),
    OPENED: (DELIVERED, OPENED),
    CLICKED: (DELIVERED, OPENED, CLICKED),
    COMPLAINED: (DELIVERED, COMPLAINED),
}
"""What comes after ``sent``, where it is not the outcome alone."""

_SUPPRESSES: Final = (BOUNCED, COMPLAINED, UNSUBSCRIBED)
_TRANSIENT: Final = ("transient", "soft")
"""Types of a bounce that do not suppress the address."""

_EXTRAS: Final[dict[str, dict[str, Any]]] = {
    BOUNCED: {"reason": "550 5.1.1 no such user", "subtype": "General", "bounceType": "Permanent"},
    COMPLAINED: {"providerReason": "abuse"},
    DROPPED: {"reason": "recipient is on the suppression list"},
    FAILED: {"reason": "the provider refused the message"},
    OPENED: {"userAgent": "Mozilla/5.0 (sandbox)", "ip": "192.0.2.1"},
    CLICKED: {"userAgent": "Mozilla/5.0 (sandbox)", "ip": "192.0.2.1"},
}


_SMTP_CODES: Final = {DELIVERED: "250", BOUNCED: "550"}
_SOFT_SMTP_CODE: Final = "450"
"""Of a bounce that is transient."""


@dataclass(frozen=True, slots=True)
class PlannedEvent:
    """One row of a message's timeline, visible from ``at_ms`` (ms since the epoch) on.

    :param data: the further fields of the event, such as ``reason``.
    """

    type: str
    at_ms: int
    data: dict[str, Any] = field(default_factory=dict)


def outcome_of(address: str, default: str = DELIVERED) -> str:
    """The outcome that a bare address names, else the default.

    ``bounced@example.org``, ``bounced+7@example.org`` and ``ann+bounced@example.org`` all bounce; case is ignored.
    """
    local = address.rpartition("@")[0].lower()
    for part in local.split("+"):
        if part in OUTCOMES:
            return part
    return default


def suppresses(event: PlannedEvent, address: str) -> bool:
    """Whether an event ends further email to an address.

    An address that names its outcome keeps it, whatever happens to it, as in the simulators of providers; only its own
    unsubscribe counts.
    """
    if event.type == UNSUBSCRIBED:
        return True
    return event.type in _SUPPRESSES and not _is_soft(event.data) and not outcome_of(address, "")


def _is_soft(data: Mapping[str, Any]) -> bool:
    return str(data.get("bounceType", "")).lower() in _TRANSIENT


def plan(
    address: str, links: Sequence[str] | None, accepted_ms: int, delay: float, default: str = DELIVERED
) -> list[PlannedEvent]:
    """The timeline of a message: ``sent`` at once, then a step after every delay.

    Without tracking there is no pixel and no link, so ``opened`` and ``clicked`` stop at ``delivered``.

    :param address: the recipient's bare address.
    :param links: the tracked links; None if the message is not tracked.
    :param delay: seconds between two steps.
    :param default: the outcome of an address that names none.
    """
    outcome = outcome_of(address, default)
    steps = [SENT, *_STEPS.get(outcome, (outcome,))]
    if links is None:
        steps = [step for step in steps if step not in (OPENED, CLICKED)]
    return [
        PlannedEvent(step, accepted_ms + int(number * delay * 1000), details(step, address, links or ()))
        for number, step in enumerate(steps)
    ]


def plan_drop(accepted_ms: int, delay: float, reason: str) -> list[PlannedEvent]:
    """The timeline of a message to an address that is suppressed.

    :param reason: why it is.
    """
    data = {"reason": f"{_EXTRAS[DROPPED]['reason']}: {reason}"}
    return [PlannedEvent(SENT, accepted_ms), PlannedEvent(DROPPED, accepted_ms + int(delay * 1000), data)]


def details(kind: str, address: str, links: Sequence[str]) -> dict[str, Any]:
    """The usual further fields of an event of a type; a click is on the first of the tracked links."""
    data = dict(_EXTRAS.get(kind, {}))
    if kind == CLICKED:
        data["url"] = links[0] if links else "https://example.com/"
    return with_server(kind, data, address)


def with_server(kind: str, data: Mapping[str, Any], address: str) -> dict[str, Any]:
    """The further fields of an event with those about the recipient's mail server, where it responded.

    :param data: the further fields; its ``smtpCode`` and ``mtaHost`` win.
    """
    given = dict(data)
    if kind not in _SMTP_CODES:
        return given
    code = _SOFT_SMTP_CODE if kind == BOUNCED and _is_soft(data) else _SMTP_CODES[kind]
    server = {"smtpCode": code, "mtaHost": f"mx.{address.rpartition('@')[2].lower()}"}
    return given | {name: value for name, value in server.items() if name not in given}
