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
        (429, {"retry-after": "7"}, 7.0),
        (429, {"retry-after": " 2.5 "}, 2.5),
        (503, {"retry-after": "7"}, 7.0),
        (429, {"retry-after": "0"}, 0.0),
        (429, {"retry-after": "Sun, 22 Nov 2026 13:00:30 GMT", "date": DATE}, 30.0),
        (429, {"retry-after": "Sun, 22 Nov 2026 12:00:00 GMT", "date": DATE}, 0.0),
        (429, {"retry-after": "-5"}, None),
        (429, {"retry-after": "nan"}, None),
        (429, {"retry-after": "inf"}, None),
        (429, {"retry-after": "soon"}, None),
        (429, {"retry-after": ""}, None),
        (429, {"retry-after": "Xyz, 99 Foo 2026 99:99:99 GMT"}, None),
        (429, {}, None),
        (429, {"x-ratelimit-reset": "1795352440", "date": DATE}, 40.0),
        (429, {"x-ratelimit-reset": "1", "date": DATE}, 0.0),
        (429, {"x-ratelimit-reset": "later"}, None),
        (429, {"retry-after": "soon", "x-ratelimit-reset": "1795352440", "date": DATE}, 40.0),
        (429, {"retry-after": "3", "x-ratelimit-reset": "1795352440", "date": DATE}, 3.0),
        (500, {"x-ratelimit-reset": "1795352440", "date": DATE}, None),
    ],
)
def test_every_form_of_retry_after(status: int, headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(status, headers) == seconds


def test_a_date_without_a_server_clock_counts_from_this_machines() -> None:
    assert (retry_after(429, {"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"}) or 0) > 1e9


def test_rate_limit_headers_are_optional() -> None:
    assert rate_limit({}).limit is None
    told = rate_limit({"x-ratelimit-limit": "60", "x-ratelimit-remaining": "3", "x-ratelimit-reset": "x"})
    assert (told.limit, told.remaining, told.reset_after) == (60, 3, None)


@pytest.mark.parametrize("draw", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("attempt", [1, 2, 3, 10])
def test_exponential_with_full_jitter(attempt: int, draw: float) -> None:
    error = errors.FluxomailServerError("x", status=500)
    assert seconds_to_wait(error, attempt, lambda: draw) == draw * min(15.0, 0.5 * 2 ** (attempt - 1))


def test_retry_after_of_zero_does_not_hammer() -> None:
    error = errors.FluxomailRateLimitError("x", status=429, retry_after=0.0)
    assert seconds_to_wait(error, 3, lambda: 0.5) == 1.0


def test_a_conflict_gets_short_waits() -> None:
    error = errors.FluxomailIdempotencyConflictError("x", status=409)
    assert [seconds_to_wait(error, 9, lambda draw=draw: draw) for draw in (0.0, 1.0)] == pytest.approx([0.2, 1.0])  # type: ignore[misc]


@pytest.mark.parametrize(
    ("failures", "shortest", "longest"),
    [(0, 0.25, 0.5), (1, 0.5, 1.0), (2, 1.0, 2.0), (5, 8.0, 16.0), (9, 15.0, 30.0), (10**6, 15.0, 30.0)],
)
def test_a_backoff_doubles_up_to_its_longest_wait(failures: int, shortest: float, longest: float) -> None:
    backoff = Backoff(first=1.0, longest=30.0, jitter=0.5)
    assert [backoff.seconds(failures, draw=lambda: 0.0), backoff.seconds(failures, draw=lambda: 1.0)] == [
        shortest,
        longest,
    ]
    assert backoff.seconds(failures, at_least=20.0, draw=lambda: 0.0) == max(shortest, 20.0)


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


def test_attempts_are_counted() -> None:
    failures = [errors.FluxomailServerError("x", status=500) for _ in range(9)]
    waits, made, error = run(*failures, max_attempts=4)
    assert (len(waits), made) == (3, 4)
    assert error is failures[3], "the last failure comes out as it was"


def test_a_wait_longer_than_allowed_is_not_begun() -> None:
    failure = limited(61)
    assert run(failure, max_wait=60) == ([], 1, failure)


@pytest.mark.parametrize("asked", [50.0, 58.0, 60.0])
def test_a_wait_that_is_allowed_stays_so_with_what_is_added(asked: float) -> None:
    waits, made, error = run(limited(asked), max_wait=60, draw=lambda: 1.0)
    assert (waits, made, error) == ([min(asked + 0.1 * asked, 60.0)], 2, None)


def test_waits_add_up_to_the_limit() -> None:
    waits, made, error = run(limited(40), limited(40), max_wait=60, draw=lambda: 0.0)
    assert (waits, made) == ([40.0], 2)
    assert isinstance(error, errors.FluxomailRateLimitError)


def test_no_wait_at_all_is_possible() -> None:
    assert run(errors.FluxomailServerError("x"), max_wait=0, draw=lambda: 0.5)[:2] == ([], 1)


def test_what_is_not_a_failure_is_not_retried() -> None:
    waits, made, error = run(errors.FluxomailAuthError("x", status=401))
    assert (waits, made, type(error)) == ([], 1, errors.FluxomailAuthError)
    assert run()[:2] == ([], 1)


def test_the_log_names_no_secret(caplog: Any) -> None:
    with caplog.at_level("INFO"):
        run(errors.FluxomailServerError("broken", status=500))
    assert "Attempt 1 of 4 failed: broken (status 500). Retrying in" in caplog.text
    assert "with the same idempotency key" in caplog.text
