"""The sandbox as a test sees it: what was sent, what happens to it next, what goes wrong.

:class:`FluxomailSandbox` is what the pytest fixture ``fluxomail_sandbox`` gives; the rest is what its methods return.
"""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

from airflow_provider_fluxomail.sandbox.testing.records import (
    Attachment,
    Event,
    Fault,
    Message,
    Request,
    RequestList,
    counted,
    failures_told,
    fault_of,
    given,
    message_of,
    messages_told,
    request_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import EllipsisType

__all__ = ["Attachment", "Event", "Fault", "FluxomailSandbox", "Message", "Request", "RequestList"]

_SENDS: Final = {"method": "POST", "path": "/api/v1/emails"}
_STREAMS: Final = {"path": "/api/v1/events/stream"}
_PAGE: Final = 1_000
_TIMEOUT: Final = 30


class FluxomailSandbox:
    """A local Fluxomail server, as a test drives it. May be used from several threads.

    Every method raises :class:`ValueError` with the sandbox's own words for what the sandbox refuses, such as a
    misspelt setting.

    :param url: base URL of the server.
    :param api_key: the key that is there from the start, with all scopes and no cap.
    :param setenv: sets an environment variable, and sees to it that this is undone.
    """

    def __init__(self, url: str, api_key: str, setenv: Callable[[str, str], None]) -> None:
        self.url = url
        self.api_key = api_key
        self._address = urlsplit(url)
        self._setenv = setenv

    def connect(
        self, conn_id: str = "fluxomail_default", *, key: str | None = None, host: str | None = None, **extras: Any
    ) -> None:
        """Define an Airflow connection in the environment, or define it anew.

        :param key: the API key, which need not exist; :attr:`api_key` if it is left out.
        :param host: base URL; the sandbox's if it is left out.
        :param extras: extras of the connection, such as ``max_wait``. ``timeout`` is 2 seconds if it is left out.
        """
        password, host = self.api_key if key is None else key, self.url if host is None else host
        value = {"conn_type": "fluxomail", "host": host, "password": password, "extra": {"timeout": 2, **extras}}
        self._setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(value))

    # What was sent

    def messages(
        self, to: str | None = None, *, idempotency_key: str | None = None, subject: str | None = None
    ) -> list[Message]:
        """The accepted messages for which everything that is given holds, oldest first.

        :param to: the bare address, or ``to`` as it was sent.
        """
        found: list[Message] = []
        offset, count = 0, 1
        while offset < count:
            page = self._get("messages", to=to, idempotency_key=idempotency_key, limit=_PAGE, offset=offset)
            found += [self._message(row) for row in page["messages"]]
            offset, count = offset + _PAGE, page["count"]
        return [message for message in found if subject is None or message.subject == subject]

    def message(
        self, to: str | None = None, *, idempotency_key: str | None = None, subject: str | None = None
    ) -> Message:
        """The only message for which everything that is given holds, see :meth:`messages`.

        :raises AssertionError: there is none, or more than one; it says what there is instead.
        """
        __tracebackhide__ = True
        return self.assert_sent(1, to, idempotency_key=idempotency_key, subject=subject)[0]

    def assert_sent(
        self, count: int, to: str | None = None, *, idempotency_key: str | None = None, subject: str | None = None
    ) -> list[Message]:
        """Check how many messages there are, see :meth:`messages`; 0 asserts that nothing was sent.

        :return: the messages.
        :raises AssertionError: there are more or fewer; it says what there is instead.
        """
        __tracebackhide__ = True
        asked = {"to": to, "idempotency_key": idempotency_key, "subject": subject}
        found = self.messages(to, idempotency_key=idempotency_key, subject=subject)
        if len(found) != count:
            raise AssertionError(self._told(count, len(found), asked))
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
        :param status: of the answer; 0 for requests that got none.
        :param fault: a kind of fault that met them.
        """
        query = {"method": method, "path": path, "idempotency_key": idempotency_key, "status": status, "fault": fault}
        return RequestList(request_of(row) for row in self._get("requests", **query)["requests"])

    # What happens to a message

    def event(
        self, event_type: str, message: Message | None = None, /, *, to: str | None = None, **fields: Any
    ) -> Message:
        """Let something happen to a message.

        :param event_type: such as ``delayed``.
        :param message: the message; the only one if neither it nor ``to`` is given.
        :param to: the recipient of the message, in place of it.
        :param fields: of the event. ``at`` is its time, in seconds since the epoch of the sandbox clock; default now.
        :return: the message with the event.
        :raises AssertionError: there isn't exactly one such message.
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

        Messages are delivered by themselves unless ``settings(default_outcome="never")`` was called before.
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
        """Let the recipient complain of spam, see :meth:`event`."""
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

    # What goes wrong

    def fail_next(
        self,
        kind: int | str,
        *,
        times: int | EllipsisType | None = ...,
        skip: int = 0,
        every: int = 1,
        chance: float | None = None,
        seed: int | None = None,
        method: str | None = None,
        path: str | None = None,
        to: str | None = None,
        idempotency_key: str | None = None,
        api_key: str | None = None,
        **options: Any,
    ) -> Fault:
        """Let the next requests fail: sends, or those that ``method`` and ``path`` name.

        ::

            fail_next(503)
            fail_next(429, retry_after=30, times=2)
            fail_next("response_lost_after_store", to="ops@example.org")
            fail_next(404, path="/api/v1/sends")

        :param kind: a status to answer with, or a kind of fault as the sandbox's documentation lists them.
        :param times: requests that meet it, None for no end. Left out: 1; without end with ``every`` or ``chance``.
        :param skip: matching requests that pass first.
        :param every: it meets every Nth matching request.
        :param chance: the chance from 0 to 1 that a matching request meets it. :param seed: of the chance.
        :param method: of the request. :param path: covers the paths below it, or is a glob.
            Without both, sends are met (``POST`` below ``/api/v1/emails``), and event streams by ``stream_*`` faults.
        :param to: the recipient of the message, a glob. :param idempotency_key: a glob. :param api_key: a glob.
        :param options: the fields of the kind, such as ``retry_after`` or ``seconds``.
        """
        match: dict[str, str | None] = {"method": method, "path": path}
        if not given(match):
            match |= _STREAMS if isinstance(kind, str) and kind.startswith("stream_") else _SENDS
        match |= {"recipient": to, "idempotency_key": idempotency_key, "api_key": api_key}
        schedule = {"skip": skip, "every": every, "chance": chance, "seed": seed}
        payload = options | given(schedule) | {"match": given(match)}
        payload |= {"kind": "status", "status": kind} if isinstance(kind, int) else {"kind": kind}
        return fault_of(self._post("faults", payload if times is ... else payload | {"times": times}))

    def faults(self) -> list[Fault]:
        """The faults that still have requests to meet, oldest first."""
        return [fault_of(row) for row in self._get("faults")["faults"]]

    def clear_faults(self) -> None:
        """Drop all faults."""
        self._call("DELETE", "faults")

    # Clock, settings, keys

    def now(self) -> float:
        """The sandbox clock, in seconds since the epoch."""
        return float(self._get("health")["now"])

    def advance(self, seconds: float) -> float:
        """Move the clock forward: events happen, caps reset, keys expire.

        :return: the clock after it, in seconds since the epoch.
        """
        return float(self._post("clock", {"advance_seconds": seconds})["now"])

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Change settings of the sandbox, all that are named or none, until the next test.

        :return: all settings.
        """
        settings: dict[str, Any] = self._post("settings", changes)
        return settings

    def key(
        self,
        name: str,
        *,
        scopes: Iterable[str] | None = None,
        rate_limit_per_minute: int | None = None,
        organization: str | None = None,
        expires_in: float | None = None,
    ) -> str:
        """Create an API key, or replace it.

        :param scopes: None for all of them.
        :param rate_limit_per_minute: requests; None for no cap.
        :param organization: that of :attr:`api_key` if it is left out.
        :param expires_in: seconds of the sandbox clock until it ends.
        :return: its name, which is the key itself.
        """
        limits = {"rate_limit_per_minute": rate_limit_per_minute, "expires_in": expires_in}
        shown = {"scopes": None if scopes is None else list(scopes), "organization": organization}
        self._post("keys", {"key": name, **given(limits | shown)})
        return name

    def revoke(self, name: str) -> None:
        """Delete an API key."""
        self._call("DELETE", f"keys/{quote(name, safe='')}")

    def pause(self, organization: str | None = None) -> None:
        """Pause an organization, by default that of :attr:`api_key`: its sends are refused."""
        self._post("pause", {"paused": True, **given({"organization": organization})})

    def resume(self, organization: str | None = None) -> None:
        """End a pause."""
        self._post("pause", {"paused": False, **given({"organization": organization})})

    def reset(self) -> None:
        """Back to a fresh start, with :attr:`api_key` alone; the fixture does this before each test."""
        self._post("reset", {})

    # Inside

    def _message(self, row: Mapping[str, Any]) -> Message:
        return message_of(row, lambda position: self._bytes("GET", f"messages/{row['send_id']}/attachments/{position}"))

    def _told(self, count: int, found: int, asked: Mapping[str, str | None]) -> str:
        """Why the count is wrong, as far as the sandbox knows."""
        wanted = " and ".join(f"{name} {value!r}" for name, value in given(asked).items())
        requests = self.requests()
        lines = [f"expected {counted(count)}{wanted and ' with '}{wanted}, found {found or 'none'}"]
        lines += messages_told(self.messages()) + failures_told(requests)
        if not requests:
            lines.append(f"no request has reached it: is {self.url} the host of the connection that was used?")
        return "\n".join(lines)

    def _get(self, path: str, /, **query: Any) -> Any:
        return self._call("GET", f"{path}?{urlencode(given(query))}")

    def _post(self, path: str, payload: Mapping[str, Any]) -> Any:
        return self._call("POST", path, json.dumps(payload))

    def _call(self, method: str, path: str, body: str | None = None) -> Any:
        return json.loads(self._bytes(method, path, body))

    def _bytes(self, method: str, path: str, body: str | None = None) -> bytes:
        # Not httpx or requests: they obey proxies, and what they log would be in the log that a test looks at.
        connection = HTTPConnection(self._address.hostname or "", self._address.port, timeout=_TIMEOUT)
        try:
            connection.request(method, f"/_sandbox/{path}", body)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            raise ValueError(_refusal(content))
        return content


def _refusal(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"])
    except (ValueError, TypeError, KeyError):
        return content.decode(errors="replace")
