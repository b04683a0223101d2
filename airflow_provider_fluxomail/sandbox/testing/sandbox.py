"""The sandbox for a test: what was sent, what happens to it next, what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from http.client import HTTPConnection
from types import EllipsisType
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from airflow_provider_fluxomail.sandbox.control.models import Requests
from airflow_provider_fluxomail.sandbox.testing.records import (
    Fault,
    Message,
    RequestList,
    counted,
    describe_failures,
    describe_messages,
    given,
)

_SENDS: Final = {"method": "POST", "path": "/api/v1/emails"}
_STREAMS: Final = {"path": "/api/v1/events/stream"}
_PAGE: Final = 1_000
_TIMEOUT: Final = 30


class FluxomailSandbox:
    """A local Fluxomail server that a test controls; the pytest fixture ``fluxomail_sandbox`` returns one.

    ::

        def test_a_lost_response(fluxomail_sandbox):
            fluxomail_sandbox.fail_next("response_lost_after_store")
            message = {"to": "ops@example.org", "subject": "Load finished", "content": "20 rows."}
            FluxomailHook().send(message, idempotency_key="load-1")
            assert fluxomail_sandbox.message("ops@example.org").subject == "Load finished"
            assert len(fluxomail_sandbox.requests("POST")) == 2

    It may be used from several threads. Every method raises :class:`ValueError` with the sandbox's text if the sandbox
    refuses the call, for example because of a misspelt switch.

    :param url: base URL of the server.
    :param api_key: the key that exists from the start, with all scopes and no rate limit.
    :param setenv: sets an environment variable until the end of the test.
    """

    def __init__(self, url: str, api_key: str, setenv: Callable[[str, str], None]) -> None:
        self.url = url
        self.api_key = api_key
        self._address = urlsplit(url)
        self._setenv = setenv

    def connect(
        self, conn_id: str = "fluxomail_default", *, key: str | None = None, host: str | None = None, **extras: Any
    ) -> None:
        """Define or redefine an Airflow connection in the environment.

        :param key: the API key, which need not exist; default :attr:`api_key`.
        :param host: base URL; default the sandbox's.
        :param extras: extras of the connection, such as ``max_wait``. The default of ``timeout`` is 2 seconds.
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
            found += [Message.load(row, self._fetch) for row in page["messages"]]
            offset, count = offset + _PAGE, page["count"]
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

    def suppressions(self) -> dict[str, str]:
        """The addresses that get no more email, with the first reason: ``{"ops@example.org": "bounced"}``."""
        rows = self._get("suppressions")["suppressions"]
        return {row["address"]: row["reason"] for row in reversed(rows)}

    def unsuppress(self, address: str, organization: str | None = None) -> None:
        """Let an address get email again, in an organization; default that of :attr:`api_key`."""
        query = urlencode(given({"organization": organization}))
        self._call("DELETE", f"suppressions/{quote(address, safe='')}?{query}")

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

        :param kind: a status to respond with, or a kind of fault (see the table of faults in the documentation).
        :param times: requests that meet it, None for no limit. Default 1; no limit with ``every`` or ``chance``.
        :param skip: matching requests that pass first.
        :param every: it meets every Nth matching request.
        :param chance: the chance from 0 to 1 that a matching request meets it. :param seed: of the chance.
        :param method: of the request. :param path: covers the paths below it, or is a glob.
            Without both, it meets sends (``POST`` below ``/api/v1/emails``), a ``stream_*`` fault meets event streams.
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
        payload |= {} if times is ... else {"times": times}
        return Fault.model_validate(self._post("faults", payload))

    def faults(self) -> list[Fault]:
        """The pending faults, oldest first."""
        return [Fault.model_validate(row) for row in self._get("faults")["faults"]]

    def clear_faults(self) -> None:
        """Drop all faults."""
        self._call("DELETE", "faults")

    # Clock, switches, keys

    def now(self) -> float:
        """The sandbox clock, in seconds since the epoch."""
        return float(self._get("health")["now"])

    def advance(self, seconds: float) -> float:
        """Move the clock forward: events happen, rate limits reset, keys expire.

        :return: the new time, in seconds since the epoch.
        """
        return float(self._post("clock", {"advance_seconds": seconds})["now"])

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Change switches of the sandbox until the next test; if one of them is invalid, none.

        :return: all switches.
        """
        switches: dict[str, Any] = self._post("settings", changes)
        return switches

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
        :param rate_limit_per_minute: requests; None for no rate limit.
        :param organization: default that of :attr:`api_key`.
        :param expires_in: seconds of the sandbox clock until it expires.
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
        """Resume a paused organization."""
        self._post("pause", {"paused": False, **given({"organization": organization})})

    def reset(self) -> None:
        """Back to a fresh start, with only :attr:`api_key`; the fixture does this before each test."""
        self._post("reset", {})

    # Inside

    def _describe(self, count: int, found: int, filters: Mapping[str, str | None]) -> str:
        """Why the count is wrong, as far as the sandbox knows."""
        wanted = " and ".join(f"{name} {value!r}" for name, value in given(filters).items())
        requests = self.requests()
        lines = [f"expected {counted(count)}{wanted and ' with '}{wanted}, found {found or 'none'}"]
        lines += describe_messages(self.messages()) + describe_failures(requests)
        if not requests:
            lines.append(f"no request has reached it: is {self.url} the host of the connection?")
        return "\n".join(lines)

    def _get(self, path: str, /, **query: Any) -> Any:
        return json.loads(self._call("GET", f"{path}?{urlencode(given(query))}"))

    def _post(self, path: str, payload: Mapping[str, Any]) -> Any:
        return json.loads(self._call("POST", path, json.dumps(payload)))

    def _fetch(self, path: str) -> bytes:
        return self._call("GET", path)

    def _call(self, method: str, path: str, body: str | None = None) -> bytes:
        # Not httpx or requests: they use proxies, and their log lines would be in the log that a test checks.
        connection = HTTPConnection(self._address.hostname or "", self._address.port, timeout=_TIMEOUT)
        try:
            connection.request(method, f"/_sandbox/{path}", body)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            try:
                text = str(json.loads(content)["error"])
            except (ValueError, TypeError, KeyError):
                text = content.decode(errors="replace")
            raise ValueError(text)
        return content
