"""Who gets email of the sandbox, and who hears of it: contacts, suppressed addresses, webhooks."""

from __future__ import annotations

import time
from typing import Final
from urllib.parse import quote, urlencode

from airflow_provider_fluxomail.sandbox import realtime
from airflow_provider_fluxomail.sandbox.testing.calls import ControlCalls
from airflow_provider_fluxomail.sandbox.testing.records import Contact, Webhook, describe_webhooks, given

_POLL: Final = 0.02


class Recipients(ControlCalls):
    """The methods of :class:`FluxomailSandbox` about contacts, suppressed addresses and webhooks."""

    def suppressions(self) -> dict[str, str]:
        """The addresses that get no more email, with the first reason: ``{"ops@example.org": "bounced"}``."""
        rows = self._get("suppressions")["suppressions"]
        return {row["address"]: row["reason"] for row in reversed(rows)}

    def unsuppress(self, address: str, organization: str | None = None) -> None:
        """Let an address get email again, in an organization; default that of :attr:`api_key`."""
        query = urlencode(given({"organization": organization}))
        self._call("DELETE", f"suppressions/{quote(address, safe='')}?{query}")

    def contacts(self, email: str | None = None, *, organization: str | None = None) -> list[Contact]:
        """The contacts for which everything that is given holds, the last changed first.

        An address is one once it was synced, or once the preferences of a recipient were read or changed.

        :param email: the bare address; case is ignored.
        :param organization: default all of them.
        """
        found = [Contact.model_validate(row) for row in self._pages("contacts", organization=organization)]
        return [contact for contact in found if email is None or contact.email == email.strip().lower()]

    def contact(self, email: str, *, organization: str | None = None) -> Contact:
        """The only contact with an address, see :meth:`contacts`.

        :raises AssertionError: there is none, or more than one.
        """
        __tracebackhide__ = True
        found = self.contacts(email, organization=organization)
        if len(found) != 1:
            known = ", ".join(sorted({contact.email for contact in self.contacts(organization=organization)})[:10])
            raise AssertionError(
                f"expected 1 contact {email!r}, found {len(found) or 'none'}: the contacts are {known or 'none'}"
            )
        return found[0]

    def webhooks(self, event_type: str | None = None, *, state: str | None = None) -> list[Webhook]:
        """The webhooks for which everything that is given holds, oldest first, each with its attempts until now.

        ::

            fluxomail_sandbox.settings(webhook_url=endpoint.url, webhook_secret="whsec_test")

        :param event_type: such as ``delivered``.
        :param state: ``pending``, ``delivered`` or ``failed``.
        """
        wanted = None if event_type is None else f"email.{event_type.removeprefix('email.')}"
        found = [Webhook.model_validate(row) for row in self._get("webhooks")["deliveries"]]
        return [one for one in found if (wanted is None or wanted in one.types) and state in (None, one.state)]

    def wait_for_webhook(
        self, event_type: str | None = None, *, state: str = "delivered", timeout: float = 10
    ) -> Webhook:
        """Wait until a webhook is delivered, see :meth:`webhooks`.

        :param state: ``failed`` waits until its last attempt has failed. Retries follow the sandbox clock: with
            ``advance(3600)`` they are due.
        :param timeout: seconds of real time, also where a test has frozen it.
        :return: the first one.
        :raises AssertionError: there is none in time; it lists the webhooks.
        """
        __tracebackhide__ = True
        until = realtime.monotonic() + timeout
        while not (found := self.webhooks(event_type, state=state)):
            if realtime.monotonic() >= until:
                wanted = f"webhook of {event_type!r}" if event_type else "webhook"
                lines = [f"no {wanted} is {state} after {timeout:g} s", *describe_webhooks(self.webhooks())]
                raise AssertionError("\n".join(lines))
            time.sleep(_POLL)
        return found[0]

    def send_webhook_sample(self) -> Webhook:
        """Send a signed sample of ``email.delivered``, as the app's test button does."""
        return Webhook.model_validate(self._post("webhooks/test", {}))

    def redeliver(self, webhook: Webhook) -> Webhook:
        """Send a webhook once more, whatever came of it."""
        return Webhook.model_validate(self._post(f"webhooks/{webhook.id}/redeliver", {}))
