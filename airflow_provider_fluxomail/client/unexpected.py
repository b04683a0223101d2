"""Unexpected errors: they concern the one message that caused them, not the others of a batch or call."""

from __future__ import annotations

import logging

from airflow_provider_fluxomail.client.errors import FluxomailError
from airflow_provider_fluxomail.client.private import place_of

log = logging.getLogger(__name__)


def unexpected(error: Exception) -> FluxomailError:
    """Return the error to report for one that is not this package's; a :class:`.FluxomailError` stays as it is.

    It names only class and place: the text may quote the message. It is unknown whether the message was sent.
    """
    if isinstance(error, FluxomailError):
        return error
    log.debug("Unexpected error", exc_info=error)
    found = FluxomailError(f"unexpected {type(error).__name__}{place_of(error)}", concerns_one_message=True)
    found.ambiguous = True
    return found
