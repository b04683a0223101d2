"""Alerts: what a callback reports, the messages that say so, and how they are sent."""

from __future__ import annotations

from typing import Final

#: Default of a notifier's ``time_limit``, in seconds. Here, as a Dag parse imports nothing else of an alert.
TIME_LIMIT: Final = 30.0
