"""Errors that nobody expected: they concern the one message that met them, not the others of a batch or call."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

from airflow_provider_fluxomail.client.errors import FluxomailError

log = logging.getLogger(__name__)


def unexpected(error: Exception) -> FluxomailError:
    """Return what stands for an error that is not this package's; a :class:`.FluxomailError` stays as it is.

    It names class and place only: the text may quote the message. A retry may succeed, and the message may be out.
    """
    if isinstance(error, FluxomailError):
        return error
    log.debug("Unexpected error", exc_info=error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    found = FluxomailError(f"unexpected {type(error).__name__}{place}", concerns_one_message=True)
    found.ambiguous = True
    return found
