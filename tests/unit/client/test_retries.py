"""One decision what is retried, one wait: tables over every error and every form of Retry-After."""

from __future__ import annotations

from typing import Any

import pytest
from tenacity import Retrying

from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.client.headers import rate_limit, retry_after
from airflow_provider_fluxomail.client.observer import Observer
from airflow_provider_fluxomail.client.retries import Backoff, retry_options, seconds_to_wait, spread
from tests.support.keyed_request import KEYED

DATE = "Sun, 22 Nov 2026 13:00:00 GMT"


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (503, {"retry-after": "7"}, 7.0),
        (429, {"retry-after": " 2.5 "}, 2.5),
        (429, {"retry-after": "0"}, 0.0),
        (429, {"retry-after": "Sun, 22 Nov 2026 13:00:30 GMT", "date": DATE}, 30.0),
        (429, {"retry-after": "Sun, 22 Nov 2026 12:00:00 GMT", "date": DATE}, 0.0),
        (429, {"retry-after": "-5"}, None),
        (429, {"retry-after": "inf"}, None),
        (429, {"retry-after": "soon"}, None),
        (429, {"retry-after": "Xyz, 99 Foo 2026 99:99:99 GMT"}, None),
        (429, {}, None),
        (429, {"x-ratelimit-reset": "1795352440", "date": DATE}, 40.0),
        (429, {"x-ratelimit-reset": "1", "date": DATE}, 0.0),
        (429, {"retry-after": "soon", "x-ratelimit-reset": "1795352440", "date": DATE}, 40.0),
        (429, {"retry-after": "3", "x-ratelimit-reset": "1795352440", "date": DATE}, 3.0),
        (500, {"x-ratelimit-reset": "1795352440", "date": DATE}, None),
        # In milliseconds, and longer than the window it belongs to.
        (429, {"x-ratelimit-reset": "1795352440000", "date": DATE}, 40.0),
        (429, {"x-ratelimit-reset": "1795356000", "date": DATE}, 61.0),
        (429, {"x-ratelimit-reset": "1e308", "date": DATE}, 61.0),
    ],
)
def test_every_form_of_retry_after(status: int, headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(status, headers) == seconds


def test_a_date_without_a_server_clock_counts_from_this_machines() -> None:
    assert (retry_after(429, {"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"}) or 0) > 1e9


def test_rate_limit_headers_are_optional() -> None:
    assert rate_limit({}).limit is None
    limit = rate_limit({"x-ratelimit-limit": "60", "x-ratelimit-remaining": "3", "x-ratelimit-reset": "x"})
    assert (limit.limit, limit.remaining, limit.reset_after) == (60, 3, None)


@pytest.mark.parametrize(
    ("error", "attempt", "shortest", "longest"),
    [
        (errors.FluxomailServerError("x", status=500), 1, 0, 0.5),
        (errors.FluxomailServerError("x", status=500), 3, 0, 2),
        (errors.FluxomailServerError("x", status=500), 10, 0, 15),
        (errors.FluxomailRateLimitError("x", status=429, retry_after=0.0), 3, 0, 2),
        (errors.FluxomailIdempotencyConflictError("x", status=409), 9, 0.2, 1),
    ],
)
def test_the_wait_before_an_attempt_has_full_jitter(
    error: errors.FluxomailError, attempt: int, shortest: float, longest: float
) -> None:
    assert seconds_to_wait(error, attempt, lambda: 0.0) == pytest.approx(shortest)
    assert seconds_to_wait(error, attempt, lambda: 0.5) == pytest.approx((shortest + longest) / 2)
    assert seconds_to_wait(error, attempt, lambda: 1.0) == pytest.approx(longest)


@pytest.mark.parametrize(
    ("failures", "shortest", "longest"),
    [(0, 0.25, 0.5), (1, 0.5, 1.0), (5, 8.0, 16.0), (10**6, 15.0, 30.0)],
)
def test_a_backoff_doubles_up_to_its_longest_wait(failures: int, shortest: float, longest: float) -> None:
    backoff = Backoff(first=1.0, longest=30.0, jitter=0.5)
    assert backoff.seconds(failures, draw=lambda: 0.0) == shortest
    assert backoff.seconds(failures, draw=lambda: 1.0) == longest
    assert backoff.seconds(failures, at_least=20.0, draw=lambda: 0.0) == max(shortest, 20.0)
    assert backoff.seconds(failures, at_least=1e308, draw=lambda: 0.0) == 600.0


def test_a_wait_is_spread_by_a_part_or_at_least_by_some_seconds() -> None:
    assert spread(60.0, 0.25, draw=lambda: 0.0) == 60.0
    assert spread(60.0, 0.25, draw=lambda: 1.0) == 75.0
    assert spread(1.0, 0.25, least=2.0, draw=lambda: 1.0) == 3.0


def run(*failures: Exception, **how: Any) -> tuple[list[float], int, BaseException | None]:
    """Call with these failures in turn; return the waits, the number of calls, and what came out."""
    waits: list[float] = []
    calls = iter(failures)
    made = 0

    def call() -> str:
        nonlocal made
        made += 1
        for failure in calls:
            raise failure
        return "done"

    try:
        options = retry_options(KEYED, failures=[], observer=Observer(), **how)
        Retrying(sleep=waits.append, **options)(call)
    except (errors.FluxomailError, KeyError) as error:
        return waits, made, error
    return waits, made, None


def limited(seconds: float) -> errors.FluxomailRateLimitError:
    return errors.FluxomailRateLimitError("x", status=429, retry_after=seconds)


def test_attempts_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    failures = [errors.FluxomailServerError("broken", status=500) for _ in range(9)]
    with caplog.at_level("INFO"):
        waits, made, error = run(*failures, max_attempts=4)
    assert (len(waits), made) == (3, 4)
    assert error is failures[3], "the last failure is raised as it was"
    assert "Attempt 1 of 4 failed: broken (status 500). Retrying in" in caplog.text
    assert "with the same idempotency key" in caplog.text


@pytest.mark.parametrize(
    ("seconds", "draw", "waits", "raised"),
    [
        ([61], 1.0, [], True),  # longer than max_wait: not begun
        *(([seconds], 1.0, [min(1.1 * seconds, 60)], False) for seconds in (50, 58, 60)),  # with what is added
        ([40, 40], 0.0, [40], True),  # they add up
    ],
)
def test_max_wait(seconds: list[float], draw: float, waits: list[float], raised: bool) -> None:
    failures = [errors.FluxomailRateLimitError("x", status=429, retry_after=one) for one in seconds]
    made, calls, error = run(*failures, max_wait=60, draw=lambda: draw)
    assert made == pytest.approx(waits)
    assert (calls, error) == (len(waits) + 1, failures[-1] if raised else None)


def test_what_is_not_retried() -> None:
    refused = errors.FluxomailAuthError("x", status=401)
    assert run(refused) == ([], 1, refused)
    assert run() == ([], 1, None)
    assert run(errors.FluxomailServerError("x"), max_wait=0, draw=lambda: 0.5)[:2] == ([], 1)
