"""What was sent to the sandbox, and what happens to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from airflow_provider_fluxomail.sandbox.control.models import Requests
from airflow_provider_fluxomail.sandbox.testing.calls import ControlCalls
from airflow_provider_fluxomail.sandbox.testing.records import (
    Message,
    RequestList,
    counted,
    describe_failures,
    describe_messages,
    given,
)


class Mail(ControlCalls):
    """The methods of :class:`FluxomailSandbox` about messages and the requests that carried them."""

    def messages(
        self, to: str | None = None, *, idempotency_key: str | None = None, subject: str | None = None
    ) -> list[Message]:
        """The accepted messages for which everything that is given holds, oldest first.

        :param to: the bare address, or ``to`` as it was sent.
        """
        rows = self._pages("messages", to=to, idempotency_key=idempotency_key)
        found = [Message.load(row, self._fetch) for row in rows]
        return [message for message in found if subject is None or message.subject == subject]

    def message(
        self, to: str | None = None, *, idempotency_key: str | None = None, subject: str | None = None
    ) -> Message:
        """The only message for which everything that is given holds, see :meth:`messages`.

        :raises AssertionError: there is none, or more than one; it lists the messages of the sandbox.
        """
        __tracebackhide__ = True
        return self.assert_sent(1, to, idempotency_key=idempotency_key, subject=subject)[0]

    def assert_sent(
        self, count: int, to: str | None = None, *, idempotency_key: str | None = None, subject: str | None = None
    ) -> list[Message]:
        """Check the number of messages, see :meth:`messages`; 0 asserts that nothing was sent.

        :return: the messages.
        :raises AssertionError: there are more or fewer; it lists the messages of the sandbox.
        """
        __tracebackhide__ = True
        filters = {"to": to, "idempotency_key": idempotency_key, "subject": subject}
        found = self.messages(**filters)
        if len(found) != count:
            raise AssertionError(self._describe(count, len(found), filters))
        return found

    def requests(
        self,
        method: str | None = None,
        path: str | None = None,
        *,
        idempotency_key: str | None = None,
        status: int | None = None,
        fault: str | None = None,
    ) -> RequestList:
        """The API requests for which everything that is given holds, oldest first. Texts are globs.

        :param path: covers the paths below it; with ``*``, ``?`` or ``[`` it is a glob for the whole path.
        :param status: of the response; 0 for requests that got none.
        :param fault: a kind of fault that met them.
        """
        query = {"method": method, "path": path, "idempotency_key": idempotency_key, "status": status, "fault": fault}
        return RequestList(Requests.model_validate(self._get("requests", **query)).requests)

    # What happens to a message

    def event(
        self, event_type: str, message: Message | None = None, /, *, to: str | None = None, **fields: Any
    ) -> Message:
        """Let something happen to a message.

        :param event_type: such as ``delayed``.
        :param message: the message; default the only one.
        :param to: the recipient of the message, in place of ``message``.
        :param fields: of the event. ``at`` is its time, in seconds since the epoch of the sandbox clock; default now.
        :return: the message with the event.
        :raises AssertionError: there is not exactly one such message.
        :raises TypeError: both message and recipient are given.
        """
        __tracebackhide__ = True
        if message is None:
            message = self.message(to)
        elif to is not None:
            raise TypeError("give a message or a recipient, not both")
        send_id = message.send_id
        self._post(f"messages/{quote(send_id)}/events", fields | {"type": event_type})
        same = self.messages(message.to, idempotency_key=message.idempotency_key)
        return next(one for one in same if one.send_id == send_id)

    def deliver(self, message: Message | None = None, *, to: str | None = None, **fields: Any) -> Message:
        """Deliver a message, see :meth:`event`.

        Messages are delivered automatically unless ``settings(default_outcome="never")`` was called before.
        """
        __tracebackhide__ = True
        return self.event("delivered", message, to=to, **fields)

    def bounce(
        self,
        message: Message | None = None,
        *,
        to: str | None = None,
        reason: str = "550 5.1.1 no such user",
        **fields: Any,
    ) -> Message:
        """Let a message bounce, see :meth:`event`."""
        __tracebackhide__ = True
        return self.event("bounced", message, to=to, reason=reason, **fields)

    def open(self, message: Message | None = None, *, to: str | None = None, **fields: Any) -> Message:
        """Let the recipient open a message, see :meth:`event`."""
        __tracebackhide__ = True
        return self.event("opened", message, to=to, **fields)

    def click(
        self, message: Message | None = None, *, to: str | None = None, url: str = "https://example.com/", **fields: Any
    ) -> Message:
        """Let the recipient click a link, see :meth:`event`."""
        __tracebackhide__ = True
        return self.event("clicked", message, to=to, url=url, **fields)

    def complain(self, message: Message | None = None, *, to: str | None = None, **fields: Any) -> Message:
        """Let the recipient report spam, see :meth:`event`."""
        __tracebackhide__ = True
        return self.event("complained", message, to=to, **fields)

    def drop(
        self,
        message: Message | None = None,
        *,
        to: str | None = None,
        reason: str = "recipient is on the suppression list",
        **fields: Any,
    ) -> Message:
        """Let Fluxomail drop a message, see :meth:`event`."""
        __tracebackhide__ = True
        return self.event("dropped", message, to=to, reason=reason, **fields)

    def unsubscribe(self, message: Message | None = None, *, to: str | None = None, **fields: Any) -> Message:
        """Let the recipient unsubscribe from all email, see :meth:`event`: the next message to it is dropped."""
        __tracebackhide__ = True
        return self.event("unsubscribed", message, to=to, **fields)

    def _describe(self, count: int, found: int, filters: Mapping[str, str | None]) -> str:
        """Why the count is wrong, as far as the sandbox knows."""
        wanted = " and ".join(f"{name} {value!r}" for name, value in given(filters).items())
        requests = self.requests()
        lines = [f"expected {counted(count)}{wanted and ' with '}{wanted}, found {found or 'none'}"]
        lines += describe_messages(self.messages()) + describe_failures(requests)
        if not requests:
            lines.append(f"no request has reached it: is {self.url} the host of the connection?")
        return "\n".join(lines)
