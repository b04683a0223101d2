"""What the methods of :class:`~airflow_provider_fluxomail.sandbox.testing.FluxomailSandbox` return, and how an
assertion describes it.

The records are the models of the control API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from http.client import responses
from itertools import pairwise
from typing import Any, Final

from pydantic import PrivateAttr, field_validator

from airflow_provider_fluxomail.sandbox.control import models
from airflow_provider_fluxomail.sandbox.control.models import Contact, Event
from airflow_provider_fluxomail.sandbox.faults.queue import PendingFault
from airflow_provider_fluxomail.sandbox.store.records import StoredAttachment
from airflow_provider_fluxomail.sandbox.store.request_log import LoggedRequest as Request
from airflow_provider_fluxomail.sandbox.webhooks.deliveries import Delivery as Webhook

__all__ = ["Attachment", "Contact", "Event", "Fault", "Message", "Request", "RequestList", "Webhook"]

_ROWS: Final = 10
"""Most rows of a table."""
_WIDTH: Final = 40
"""Most characters of a cell."""


class Attachment(StoredAttachment):
    """A file of a message.

    ::

        (report,) = fluxomail_sandbox.message().attachments
        assert report.content.startswith(b"id,name")
    """

    _fetch: tuple[Callable[[str], bytes], str] = PrivateAttr()

    @cached_property
    def content(self) -> bytes:
        """The decoded bytes, fetched from the sandbox on first use.

        :raises ValueError: the message no longer exists, for example after a reset.
        """
        fetch, path = self._fetch
        return fetch(path)


class Message(models.Message):
    """A message that the sandbox has accepted, at the time of the call.

    ::

        message = fluxomail_sandbox.message("ops@example.org")
        assert message.subject == "Nightly load finished"
        assert message.event_types == ["sent", "delivered"]
    """

    attachments: list[Attachment]  # type: ignore[assignment]
    _fetch: Callable[[str], bytes] = PrivateAttr()

    @classmethod
    def load(cls, row: Mapping[str, Any], fetch: Callable[[str], bytes]) -> Message:
        """A message from its JSON.

        :param fetch: returns the bytes at a path of the control API.
        """
        message = cls.model_validate(row)
        message._fetch = fetch
        for position, attachment in enumerate(message.attachments):
            attachment._fetch = fetch, f"messages/{message.send_id}/attachments/{position}"
        return message

    @property
    def event_types(self) -> list[str]:
        """The types of its events, such as ``["sent", "delivered"]``."""
        return [event.type for event in self.events]

    @cached_property
    def source(self) -> bytes:
        """The MIME document that its recipients get, fetched from the sandbox on first use.

        ::

            mail = email.message_from_bytes(message.source, policy=email.policy.default)
            assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"

        :raises ValueError: the message no longer exists, for example after a reset.
        """
        return self._fetch(f"messages/{self.send_id}/source")


class Fault(PendingFault):
    """A pending fault: ``id``, ``kind``, requests ``met`` and ``remaining``, ``match``, and the other ``options``.

    ::

        fault = fluxomail_sandbox.fail_next(503, times=2)
        assert fault.remaining == 2
    """

    match: dict[str, str]  # type: ignore[assignment]

    @field_validator("match", mode="before")
    @classmethod
    def _given(cls, match: Mapping[str, Any]) -> dict[str, Any]:
        return given(match)


class RequestList(list[Request]):
    """Requests, oldest first.

    ::

        requests = fluxomail_sandbox.requests("POST")
        assert requests.gaps[0] >= 1
    """

    @property
    def gaps(self) -> list[float]:
        """Seconds between each request and the next."""
        return [after.at - before.at for before, after in pairwise(self)]


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that are None."""
    return {name: value for name, value in values.items() if value is not None}


def describe_messages(messages: Sequence[Message]) -> list[str]:
    """The newest messages as lines of a table."""
    if not messages:
        return ["the sandbox holds no message"]
    head = ("to", "subject", "idempotency key", "last event")
    rows = [(one.to, one.subject, one.idempotency_key or "-", (one.event_types or ["-"])[-1]) for one in messages]
    return [f"the sandbox holds {counted(len(messages))}:", *_table(rows, head)]


def describe_failures(requests: Sequence[Request]) -> list[str]:
    """The newest requests that failed as lines of a table; empty if none failed."""
    rows = [(one.method, one.path, _result(one)) for one in requests if one.status is None or one.status >= 400]
    return ["requests that failed:", *_table(rows)] if rows else []


def describe_webhooks(webhooks: Sequence[Webhook]) -> list[str]:
    """The newest webhooks as lines of a table."""
    if not webhooks:
        return ["there is no webhook: is the switch webhook_url set, and has an event of webhook_types happened since?"]
    rows = [(", ".join(one.types), one.state, *_last_attempt(one)) for one in webhooks]
    return ["the webhooks:", *_table(rows, ("types", "state", "attempts", "last result"))]


def counted(number: int) -> str:
    """``no messages``, ``1 message``, ``2 messages``."""
    return f"{number or 'no'} message{'' if number == 1 else 's'}"


def _result(request: Request) -> str:
    status = request.status
    result = "no response" if status is None else f"{status} {responses.get(status, '')}".rstrip()
    return f"{result} (fault {request.fault})" if request.fault else result


def _last_attempt(webhook: Webhook) -> tuple[str, str]:
    if not webhook.attempts:
        return "0", "-"
    last = webhook.attempts[-1]
    return str(len(webhook.attempts)), str(last.status) if last.error is None else last.error


def _table(rows: Sequence[tuple[str, ...]], *head: tuple[str, ...]) -> list[str]:
    shown = [*head, *rows[-_ROWS:]]
    cells = [[text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..." for text in row] for row in shown]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    if len(rows) > _ROWS:
        lines.insert(len(head), f"  ... and {len(rows) - _ROWS} before these")
    return lines
