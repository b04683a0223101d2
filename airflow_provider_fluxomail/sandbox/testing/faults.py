"""What goes wrong in a sandbox."""

from __future__ import annotations

from types import EllipsisType
from typing import Any, Final

from airflow_provider_fluxomail.sandbox.testing.calls import ControlCalls
from airflow_provider_fluxomail.sandbox.testing.records import Fault, given

_SENDS: Final = {"method": "POST", "path": "/api/v1/emails"}
_STREAMS: Final = {"path": "/api/v1/events/stream"}


class Faults(ControlCalls):
    """The methods of :class:`FluxomailSandbox` about faults."""

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
