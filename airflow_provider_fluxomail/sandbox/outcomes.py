"""What happens to a message once it was accepted: the recipient's address chooses it, and it is planned at once.

The plan is a list of events with a time. Nothing runs in the background: an event is visible once the sandbox clock
has reached it, so moving the clock delivers messages.
"""

from __future__ import annotations

import re
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

_EXTRAS: Final[dict[str, dict[str, Any]]] = {
    BOUNCED: {
        "reason": "550 5.1.1 no such user",
        "subtype": "General",
        "bounceType": "Permanent",
        "smtpCode": "550",
    },
    COMPLAINED: {"providerReason": "abuse"},
    DROPPED: {"reason": "recipient is on the suppression list"},
    FAILED: {"reason": "the provider refused the message"},
    OPENED: {"userAgent": "Mozilla/5.0 (sandbox)", "ip": "192.0.2.1"},
    CLICKED: {"userAgent": "Mozilla/5.0 (sandbox)", "ip": "192.0.2.1"},
}

_LINK = re.compile(r"""href\s*=\s*["'](https?://[^"'\s>]+)""", re.IGNORECASE)


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


def plan(
    address: str, html: str | None, accepted_ms: int, delay: float, default: str = DELIVERED
) -> list[PlannedEvent]:
    """The timeline of a message: ``sent`` at once, then a step after every delay.

    Without HTML there is no tracking pixel and no tracked link, so ``opened`` and ``clicked`` stop at ``delivered``, as
    in the real service.

    :param address: the recipient's bare address.
    :param delay: seconds between two steps.
    :param default: the outcome of an address that names none.
    """
    outcome = outcome_of(address, default)
    steps = [SENT, *_STEPS.get(outcome, (outcome,))]
    if not html:
        steps = [step for step in steps if step not in (OPENED, CLICKED)]
    return [
        PlannedEvent(step, accepted_ms + int(number * delay * 1000), details(step, html))
        for number, step in enumerate(steps)
    ]


def details(kind: str, html: str | None) -> dict[str, Any]:
    """The usual further fields of an event of a type; a click is on the first link of the HTML body."""
    data = dict(_EXTRAS.get(kind, {}))
    if kind == CLICKED:
        link = _LINK.search(html or "")
        data["url"] = link.group(1) if link else "https://example.com/"
    return data
