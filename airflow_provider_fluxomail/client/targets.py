"""What a wait can wait for, and what fails it. Names alone, as parsing a Dag imports them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: What a wait can wait for, each with the events that prove it: a click proves the opening, an opening the delivery.
TARGETS: Final[Mapping[str, frozenset[str]]] = {
    "delivered": frozenset({"delivered", "opened", "clicked"}),
    "opened": frozenset({"opened", "clicked"}),
    "clicked": frozenset({"clicked"}),
}
#: Events that can end a wait as a failure.
FAILURES: Final[tuple[str, ...]] = ("bounced", "complained", "dropped", "failed")
