"""What a test sees of contacts and webhooks."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Any

import freezegun
import httpx
import pytest

from .helpers import wait_until
from .test_pytest_plugin import send
from .test_webhooks import Endpoint, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox


def sync(sandbox: FluxomailSandbox, *contacts: dict[str, Any], key: str | None = None) -> None:
    headers = {
        "x-api-key": key or sandbox.api_key,
        "Idempotency-Key": hashlib.sha256(repr(contacts).encode()).hexdigest(),
    }
    url = f"{sandbox.url}/api/v1/contacts/sync"
    httpx.post(url, json={"contacts": contacts}, headers=headers, trust_env=False).raise_for_status()


@pytest.fixture
def endpoint(sandbox: FluxomailSandbox) -> Iterator[Endpoint]:
    with serving() as endpoint:
        sandbox.settings(webhook_url=endpoint.url, webhook_secret="whsec_test")
        yield endpoint
        sandbox.settings(webhook_url=None)


# Contacts


def test_contacts(sandbox: FluxomailSandbox) -> None:
    assert sandbox.contacts() == []
    sync(sandbox, {"email": "Ada@example.org", "plan": "pro", "categories": ["digest"]})
    sync(sandbox, {"email": "bob@example.org", "subscribed": False})
    ada = sandbox.contact(" ADA@example.org ")
    assert (ada.email, ada.subscribed, ada.subscriptions) == ("ada@example.org", True, {"digest": True})
    assert ada.fields == {"plan": "pro"}
    assert [contact.email for contact in sandbox.contacts()] == ["bob@example.org", "ada@example.org"]
    assert sandbox.contact("bob@example.org").subscribed is False
    assert sandbox.suppressions() == {"bob@example.org": "unsubscribed"}
    # The token is the one of the API.
    body = {"token": ada.token, "subscriptions": [{"categoryKey": "digest", "subscribed": False}]}
    httpx.post(f"{sandbox.url}/api/v1/preferences", json=body, trust_env=False).raise_for_status()
    assert sandbox.contact("ada@example.org").subscriptions == {"digest": False}


def test_contacts_of_organizations(sandbox: FluxomailSandbox) -> None:
    other = sandbox.key("other", organization="org_other")
    for key in (None, other):
        sync(sandbox, {"email": "ada@example.org"}, key=key)
    assert len(sandbox.contacts("ada@example.org")) == 2
    with pytest.raises(AssertionError, match=r"expected 1 contact 'ada@example\.org', found 2"):
        sandbox.contact("ada@example.org")
    assert sandbox.contact("ada@example.org", organization="org_other").organization == "org_other"


def test_a_missing_contact_is_named_with_those_there_are(sandbox: FluxomailSandbox) -> None:
    with pytest.raises(AssertionError, match="found none: the contacts are none"):
        sandbox.contact("ada@example.org")
    sync(sandbox, {"email": "bob@example.org"})
    with pytest.raises(AssertionError, match=r"'ada@example.org', found none: the contacts are bob@example\.org"):
        sandbox.contact("ada@example.org")


def test_more_contacts_than_a_page_has(sandbox: FluxomailSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_fluxomail.sandbox.testing.calls._PAGE", 5)
    sync(sandbox, *({"email": f"c{number}@example.org"} for number in range(12)))
    assert len(sandbox.contacts()) == 12
    assert sandbox.contact("c0@example.org")


# Webhooks


def test_webhooks(sandbox: FluxomailSandbox, endpoint: Endpoint) -> None:
    send()
    webhook = sandbox.wait_for_webhook("delivered")
    assert (webhook.types, webhook.url, webhook.state) == (["email.delivered"], endpoint.url, "delivered")
    assert [attempt.status for attempt in webhook.attempts] == [204]
    assert sandbox.wait_for_webhook("email.sent").types == ["email.sent"]
    assert [one.types for one in sandbox.webhooks()] == [["email.sent"], ["email.delivered"]]
    assert sandbox.webhooks("bounced") == sandbox.webhooks(state="failed") == []
    assert sandbox.webhooks("delivered", state="delivered") == [webhook]
    for received in endpoint.take(2):
        expected = hmac.new(b"whsec_test", received.body, hashlib.sha256).hexdigest()
        assert received.headers["x-fluxomail-signature"] == expected


def test_a_webhook_that_fails_and_is_sent_once_more(sandbox: FluxomailSandbox, endpoint: Endpoint) -> None:
    sandbox.settings(webhook_attempts=2, webhook_types=["email.delivered"])
    endpoint.statuses += [500, 503]
    send()
    endpoint.take()
    wait_until(lambda: bool(sandbox.webhooks()[0].attempts))
    with pytest.raises(AssertionError) as caught:
        sandbox.wait_for_webhook("delivered", timeout=0.2)
    lines = [" ".join(line.split()) for line in str(caught.value).splitlines()]
    assert lines == [
        "no webhook of 'delivered' is delivered after 0.2 s",
        "the webhooks:",
        "types state attempts last result",
        "email.delivered pending 1 500",
    ]
    sandbox.advance(3600)
    failed = sandbox.wait_for_webhook(state="failed")
    assert [attempt.status for attempt in failed.attempts] == [500, 503]
    assert sandbox.redeliver(failed).state == "pending"
    assert sandbox.wait_for_webhook().id == failed.id


def test_a_webhook_without_a_response(sandbox: FluxomailSandbox) -> None:
    sandbox.settings(webhook_url="http://127.0.0.1:9/", webhook_attempts=1)
    send()
    sandbox.wait_for_webhook("delivered", state="failed")
    with pytest.raises(AssertionError, match=r"email\.delivered  failed  1 +[A-Z]"):
        sandbox.wait_for_webhook(timeout=0)


def test_without_an_endpoint(sandbox: FluxomailSandbox) -> None:
    send()
    with pytest.raises(AssertionError, match="no webhook is delivered after 0 s\nthere is no webhook: is the switch"):
        sandbox.wait_for_webhook(timeout=0)
    with pytest.raises(ValueError, match="webhook_url"):
        sandbox.send_webhook_sample()


def test_a_sample(sandbox: FluxomailSandbox, endpoint: Endpoint) -> None:
    assert sandbox.send_webhook_sample().types == ["email.delivered"]
    assert endpoint.types(1) == ["email.delivered"]


def test_the_wait_ends_in_real_time(sandbox: FluxomailSandbox, endpoint: Endpoint) -> None:
    with freezegun.freeze_time("2020-01-01"):
        before = time.time()
        with pytest.raises(AssertionError, match="no webhook is delivered"):
            sandbox.wait_for_webhook(timeout=0.1)
        send()
        assert sandbox.wait_for_webhook("sent")
        assert time.time() == before
    assert endpoint.take()
