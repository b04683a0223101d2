"""``FLUXOMAIL_TEST_SERVER_URL``: every client of a process on one server of this machine, or none at all."""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import Any

import pytest

from airflow_provider_fluxomail.client import settings as module
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.settings import TEST_SERVER_VARIABLE, ClientSettings

SERVER = "http://127.0.0.1:8026"


def settings(base_url: str = "https://api.fluxomail.com", **fields: Any) -> ClientSettings:
    return ClientSettings(api_key="real-key", base_url=base_url, **fields)


@pytest.fixture(autouse=True)
def _fresh_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_warned", set())


@pytest.mark.parametrize(
    "base_url", ["https://api.fluxomail.com", "", "http://127.0.0.1:8027", "http://127.0.0.1", "http://localhost:8026"]
)
def test_other_servers_are_replaced(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TEST_SERVER_VARIABLE, "http://fm%40test@127.0.0.1:8026/api/v1/ http://127.0.0.1:9026/prefix")
    found = settings(base_url, proxies={"all": "http://proxy:3128"}, max_wait=7)
    assert (found.base_url, found.api_key, found.proxies) == (SERVER, "fm@test", {})
    assert found.max_wait == 7
    assert found.url("/api/v1/x") == f"{SERVER}/api/v1/x"
    assert dataclasses.replace(found, max_wait=8).base_url == SERVER


@pytest.mark.parametrize("base_url", [SERVER, f"{SERVER}/prefix", "http://127.0.0.1:9026/other/"])
def test_named_servers_stay(base_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv(TEST_SERVER_VARIABLE, "http://fm_test@127.0.0.1:8026 http://127.0.0.1:9026/other")
    found = settings(base_url, proxies={"all": "http://proxy:3128"})
    assert (found.base_url, found.api_key) == (base_url.rstrip("/"), "real-key")
    assert found.proxies
    assert found.url("/x") == f"{found.base_url}/x"
    assert caplog.records == []


@pytest.mark.parametrize(
    "value",
    [
        "http://fm_test@10.0.0.1:8026",
        "https://fm_test@evil.example",
        "http://fm_test@127.0.0.1.evil.example",
        "http://fm_test:x@127.0.0.1:8026@evil.example",
        "http://fm_test@evil.example?@127.0.0.1@evil.example",
        "http://fm_test@0.0.0.0:8026",
        "http://fm_test@127.0.0.1:99999",
        "ftp://fm_test@127.0.0.1:8026",
        "fm_test@127.0.0.1:8026",
        "http://127.0.0.1:8026",
        "http://%0A@127.0.0.1:8026",
        "http://fm_test@127.0.0.1:8026 https://evil.example",
        "yes",
    ],
)
def test_anything_but_a_server_of_this_machine_stops_every_client(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not lead production's mail, or a key, anywhere else."""
    before = settings()
    monkeypatch.setenv(TEST_SERVER_VARIABLE, value)
    for call in (settings, lambda: settings(SERVER), lambda: before.url("/x")):
        with pytest.raises(
            FluxomailValidationError, match=r"must be http://API_KEY@127\.0\.0\.1:PORT.*Unset it"
        ) as caught:
            call()
        assert "fm_test" not in str(caught.value)
        assert "evil" not in str(caught.value)
        assert not caught.value.concerns_one_message


def test_a_client_that_is_older_makes_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    before = settings()
    monkeypatch.setenv(TEST_SERVER_VARIABLE, "http://fm_test@127.0.0.1:8026")
    with pytest.raises(FluxomailValidationError, match=r"created before, for https://api\.fluxomail\.com: no request"):
        before.url("/api/v1/x")
    monkeypatch.setenv(TEST_SERVER_VARIABLE, " ")
    assert before.url("/x") == "https://api.fluxomail.com/x"
    assert settings().base_url == "https://api.fluxomail.com"


def test_it_does_not_go_unnoticed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv(TEST_SERVER_VARIABLE, "http://fm_test@127.0.0.1:8026")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            settings()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "FLUXOMAIL_TEST_SERVER_URL is set: requests for https://api.fluxomail.com go to the test server "
        "http://127.0.0.1:8026, and no email is sent. Unset it outside tests."
    )
    # A process that is forked from this one says so itself.
    monkeypatch.setattr(os, "getpid", lambda: -1)
    settings()
    assert len(caplog.records) == 2


@pytest.mark.parametrize("name", ["api_key", "base_url"])
def test_a_wrong_connection_is_still_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TEST_SERVER_VARIABLE, "http://fm_test@127.0.0.1:8026")
    fields: dict[str, Any] = {"api_key": "k", "base_url": "https://x", name: "" if name == "api_key" else "ftp://x"}
    with pytest.raises(FluxomailValidationError):
        ClientSettings(**fields)
