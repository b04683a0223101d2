"""A wrong connection is refused before any request, and the cure is named."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.settings import ClientSettings, normalise_base_url


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("", "https://api.fluxomail.com"),
        ("api.fluxomail.com", "https://api.fluxomail.com"),
        ("https://api.fluxomail.com/api/v1/", "https://api.fluxomail.com"),
        ("mail.example:8443/gateway/api/v1/", "https://mail.example:8443/gateway"),
        ("127.0.0.1:8026", "http://127.0.0.1:8026"),
        ("localhost:8026", "http://localhost:8026"),
        ("http://[::1]:8026/", "http://[::1]:8026"),
        ("HTTPS://API.Fluxomail.com", "https://api.fluxomail.com"),
        (" https://api.fluxomail.com ", "https://api.fluxomail.com"),
    ],
)
def test_every_form_of_base_url(given: str, used: str) -> None:
    assert normalise_base_url(given) == used


def test_http_may_be_allowed() -> None:
    assert normalise_base_url("http://mail.internal", allow_http=True) == "http://mail.internal"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("http://api.fluxomail.com", "unencrypted"),
        ("http://localhost.evil.example", "unencrypted"),
        ("ftp://api.fluxomail.com", "not a URL"),
        ("https://", "not a URL"),
        ("https://a b", "not a URL"),
        ("https://" + "a" * 64 + ".example", "not a URL"),
        ("https://a\\b", "not a URL"),
        ("https://a:port", "not a URL"),
        ("https://key@api.fluxomail.com", "no credentials"),
        ("https://api.fluxomail.com?key=1", "no credentials"),
        ("https://api.fluxomail.com#x", "no credentials"),
        ("https://api.fluxomail.com\nX-Evil: 1", "not a URL"),
    ],
)
def test_bad_base_urls(given: str, shown: str) -> None:
    with pytest.raises(FluxomailValidationError, match=shown):
        normalise_base_url(given)


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"api_key": ""}, "no API key"),
        ({"api_key": "fm_secret\n"}, "line break"),
        ({"api_key": "fm_secret "}, "white space"),
        ({"api_key": "schlüssel"}, "outside ASCII"),
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"timeout": float("inf")}, "timeout must be"),
        ({"max_wait": -1}, "max_wait must be"),
        ({"max_attempts": 0}, "max_attempts must be 1"),
        ({"api_version": "2025\n"}, "api_version must be printable"),
        ({"proxies": {"https": "nonsense"}}, "proxies must be URLs"),
        ({"proxies": {"https": "socks5://fm_secret@proxy:1"}}, "SOCKS is not supported"),
        ({"proxies": {"https": "http://fm_secret@"}}, "proxies must be URLs"),
        ({"user_agent": "a\rb"}, "user_agent must be printable"),
        ({"base_url": "https://user:fm_secret@api.fluxomail.com"}, "no credentials"),
    ],
)
def test_bad_settings(fields: dict[str, Any], shown: str) -> None:
    with pytest.raises(FluxomailValidationError, match=shown) as caught:
        ClientSettings(**{"api_key": "k", **fields})
    # With the variables of each frame but this test's own, as some formatters print them.
    frames = caught.value.__traceback__.tb_next  # type: ignore[union-attr]
    told = traceback.TracebackException(FluxomailValidationError, caught.value, frames, capture_locals=True)
    assert "fm_secret" not in "".join(told.format())
