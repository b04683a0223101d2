"""Sends the few messages of one call one after the other, and goes on if only one of them is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_fluxomail.client.errors import FluxomailError

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.models import SendResult

log = logging.getLogger(__name__)

T = TypeVar("T")


def send_each(mails: Sequence[T], send: Callable[[T], SendResult]) -> list[SendResult]:
    """Send each message, also after an error that may concern only another of them.

    :param send: sends one.
    :raises FluxomailError: a message was not accepted. Of several errors, a transient one comes first.
    """
    sent: list[SendResult] = []
    errors: list[FluxomailError] = []
    for number, mail in enumerate(mails, start=1):
        try:
            sent.append(send(mail))
        except FluxomailError as error:
            log.warning("Message %d of %d was not accepted: %s: %s", number, len(mails), type(error).__name__, error)
            errors.append(error)
            if not error.concerns_one_message:
                break
    if errors:
        raise next((error for error in errors if not error.permanent), errors[0])
    return sent
