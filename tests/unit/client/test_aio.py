"""The asynchronous client, in situations that cannot be produced over the wire."""

from __future__ import annotations

from airflow_provider_fluxomail.client.errors import FluxomailConnectionError
from tests.support.cancelled_reads import read_that_times_out


def test_a_read_that_times_out_is_an_error_of_the_connection() -> None:
    assert isinstance(read_that_times_out(cancelled=False).exception(), FluxomailConnectionError)
