"""How long a key protects: whether a request may still be repeated, or might send a second email."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import TYPE_CHECKING, Final

from airflow_provider_fluxomail.client.errors import FluxomailUnknownOutcomeError

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.settings import ClientSettings


#: How much the clocks of two workers may differ. Seconds.
_SKEW: Final = 900.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retention:
    """How long, and in which account, Fluxomail remembers keys.

    :param seconds: for which a key is remembered.
    :param margin: seconds by which a call must begin earlier: its last attempt must arrive while the key is remembered.
    :param account: a digest of host and API key. With others, Fluxomail may not know the key.
    """

    seconds: float = math.inf
    margin: float = 0.0
    account: str = ""

    @classmethod
    def of(cls, settings: ClientSettings, seconds: float) -> Retention:
        """Return the retention for requests with these settings."""
        longest = settings.max_attempts * (settings.timeout + settings.max_wait) + _SKEW
        account = hashlib.sha256(f"{settings.base_url}\n{settings.api_key}".encode()).hexdigest()[:16]
        return cls(seconds=seconds, margin=min(longest, seconds / 10), account=account)

    def is_over(self, asked: float, account: str, now: float) -> bool:
        """Return whether a key that was first used at ``asked`` may be forgotten.

        :param account: of that request; empty if unknown.
        """
        return now - asked > self.seconds - self.margin or self.is_other(account)

    def is_other(self, account: str) -> bool:
        """Return whether a request was made with another host or API key."""
        return bool(account and self.account and account != self.account)

    def unknown_outcome(
        self, key: str, *, asked: float, account: str, now: float
    ) -> FluxomailUnknownOutcomeError | None:
        """Return why a request of unknown outcome must not be repeated, ``None`` if it may.

        :param asked: epoch seconds of the first request with the key.
        """
        if not self.is_over(asked, account, now):
            return None
        why = (
            "The connection had another host or API key then. If that belongs to another organization,"
            if self.is_other(account)
            else f"Fluxomail remembers a key for {self.seconds / 3600:g} hours (key_retention_hours), so"
        )
        return FluxomailUnknownOutcomeError(
            f"an earlier try requested this send {(now - asked) / 3600:.1f} hours ago and got no response. {why} "
            "another request might send a second email. Search for the key in Fluxomail: if the email was sent, mark "
            "the task as success; if not, clear the task with resend_on_clear=True, or give it another idempotency_key",
            idempotency_key=key,
        )
