"""A handful of mails of one call, sent one after the other: what becomes of the others when one is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from airflow_provider_fluxomail.client.errors import (
    FluxomailConnectionError,
    FluxomailError,
    FluxomailIdempotencyConflictError,
    FluxomailResponseError,
    FluxomailServerError,
    FluxomailValidationError,
)

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.models import SendResult

log = logging.getLogger(__name__)

T = TypeVar("T")

_ABOUT_ONE: Final = (
    FluxomailValidationError,
    FluxomailIdempotencyConflictError,
    FluxomailServerError,
    FluxomailResponseError,
)


def send_each(mails: Sequence[T], send: Callable[[T], SendResult]) -> list[SendResult]:
    """Send each mail, also after an error that may be about another of them alone.

    :param send: sends one.
    :raises FluxomailError: a mail was not accepted. Of several errors, one that a retry may mend comes first.
    """
    sent: list[SendResult] = []
    errors: list[FluxomailError] = []
    for number, mail in enumerate(mails, start=1):
        try:
            sent.append(send(mail))
        except FluxomailError as error:
            log.warning("Mail %d of %d was not accepted: %s: %s", number, len(mails), type(error).__name__, error)
            errors.append(error)
            if not _may_be_about_one(error):
                break
    if errors:
        raise next((error for error in errors if not error.permanent), errors[0])
    return sent


def _may_be_about_one(error: FluxomailError) -> bool:
    """Tell whether the next mail has a chance; where no server was reached, it has none."""
    return isinstance(error, _ABOUT_ONE) or (isinstance(error, FluxomailConnectionError) and error.ambiguous)
