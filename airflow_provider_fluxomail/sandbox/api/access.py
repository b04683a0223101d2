"""Who may do what: key, scope, pause and rate limit of a request, in this order. The documentation leaves it open.

https://docs.fluxomail.com/api-reference/fluxomail/authentication
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import Request

from airflow_provider_fluxomail.sandbox.api.cors import is_page_of_others
from airflow_provider_fluxomail.sandbox.api.rate_limit import NOMINAL_LIMIT, Allowance
from airflow_provider_fluxomail.sandbox.errors import ApiError
from airflow_provider_fluxomail.sandbox.exchange import EXCHANGE, Exchange, header_credential
from airflow_provider_fluxomail.sandbox.limits import API_VERSION, DEFAULT_API_KEY
from airflow_provider_fluxomail.sandbox.store.records import ApiKey

if TYPE_CHECKING:
    from airflow_provider_fluxomail.sandbox.state import Sandbox

SEND_SCOPE = "send_email"
READ_SCOPE = "read_sends"


class StreamCredential(NamedTuple):
    """What a stream was opened with."""

    key: ApiKey
    in_query: bool


class Access:
    """The checks before every call of the API."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def admit(self, request: Request, scope: str | None, *, blocked_by_pause: bool = False) -> ApiKey:
        """Check key, scope, pause, rate limit and version header; count the request.

        :param scope: the scope it needs; None for the events, for which the documentation names none.
        :param blocked_by_pause: a pause stops this call; the documentation names only sending.
        :raises ApiError: 401, 403, 429 or 400.
        """
        return self.allow(request, self.key_of(request), scope, blocked_by_pause=blocked_by_pause)

    def key_of(self, request: Request) -> ApiKey:
        """The key of the request.

        :raises ApiError: 401.
        """
        return self._authenticated(request, header_credential(request.headers))

    def allow(self, request: Request, key: ApiKey, scope: str | None, *, blocked_by_pause: bool = False) -> ApiKey:
        """The checks of :meth:`admit` that come after the key is known."""
        allowance = self._count(key, request.scope[EXCHANGE])
        if scope is not None and not key.allows(scope):
            raise ApiError(403, f"Forbidden: missing scope {scope}", details={"scope": scope})
        if blocked_by_pause and self._sandbox.store.keys.is_paused(key.organization):
            raise ApiError(403, "Tenant paused for this organization", code="tenant_paused")
        if allowance.exceeded:
            raise ApiError(
                429,
                "Rate limit exceeded",
                details={"limit": allowance.limit, "retryAfter": allowance.retry_after},
                headers=allowance.retry_after_header(self._sandbox.switches.retry_after),
            )
        self._check_version(request)
        return key

    def admit_stream(self, request: Request) -> StreamCredential:
        """The checks of :meth:`admit` and of the plan, for an event stream, whose key may come as ``?token=``.

        A header wins over the query, so that a wrong key is not hidden by a good token.

        :raises ApiError: 401, 429, 400 or 402.
        """
        rule = self._sandbox.switches.stream_auth
        secret = None if rule == "token" else header_credential(request.headers)
        in_query = secret is None and rule != "bearer"
        if in_query:
            secret = request.query_params.get("token")
        key = self._authenticated(request, secret, in_query=in_query)
        self.allow(request, key, None)
        self.require_events_plan()
        return StreamCredential(key, in_query)

    def renewed(self, opened: StreamCredential) -> ApiKey | None:
        """The current key of an open stream; None if it would not be admitted again."""
        key = self._find(opened.key.key, in_query=opened.in_query)
        if key is None or key.organization != opened.key.organization or not self._sandbox.switches.events_in_plan:
            return None
        return key

    def require_events_plan(self) -> None:
        """Check that the plan has the events list and stream.

        :raises ApiError: 402.
        """
        if not self._sandbox.switches.events_in_plan:
            raise plan_required("Events API not enabled", "events")

    def _authenticated(self, request: Request, secret: str | None, *, in_query: bool = False) -> ApiKey:
        key = self._find(secret, in_query=in_query)
        if key is None:
            raise ApiError(401, "Invalid API key")
        if key.key == DEFAULT_API_KEY and is_page_of_others(
            request.headers.get("origin"), request.headers.get("host", ""), self._sandbox.names
        ):
            # Every page knows this key, and CORS lets it read what it gets.
            text = f"The key {key.key} is not for web pages of other hosts: create a key of your own for them"
            raise ApiError(403, text, code="permission_denied")
        return key

    def _find(self, secret: str | None, *, in_query: bool) -> ApiKey | None:
        """The key for a credential, unless it has expired; in the query, only short-lived tokens belong."""
        key = self._sandbox.store.keys.get(secret) if secret else None
        if key is None or (in_query and key.expires_ms is None):
            return None
        return key if key.alive(self._sandbox.clock.now_ms()) else None

    def _count(self, key: ApiKey, exchange: Exchange) -> Allowance:
        rate_headers, now = self._sandbox.switches.rate_headers, self._sandbox.clock.now()
        if key.cap is None:
            allowance = Allowance(NOMINAL_LIMIT, 0, now)
        else:
            allowance = self._sandbox.rates.hit(key.key, key.cap, now)
        if rate_headers == "always" or (rate_headers == "capped" and key.cap is not None):
            exchange.headers |= allowance.headers()
        return allowance

    def _check_version(self, request: Request) -> None:
        rule = self._sandbox.switches.version_header
        version = request.headers.get("fluxomail-version")
        if rule == "optional" or version == API_VERSION or (rule == "known" and version is None):
            return
        problem = "is missing" if version is None else f"{version!r} is unknown"
        raise ApiError(400, f"Fluxomail-Version {problem}: send {API_VERSION}")


def plan_required(message: str, feature: str) -> ApiError:
    return ApiError(402, message, preview={"plan": "pro", "feature": feature})
