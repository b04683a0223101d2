"""The ASGI application: both APIs and the inbox, behind the middleware."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from airflow_provider_fluxomail.sandbox.api import cors, openapi
from airflow_provider_fluxomail.sandbox.api.access import Access
from airflow_provider_fluxomail.sandbox.api.contacts import ContactsApi
from airflow_provider_fluxomail.sandbox.api.events import EventsApi
from airflow_provider_fluxomail.sandbox.api.metrics import MetricsApi
from airflow_provider_fluxomail.sandbox.api.not_imitated import METHODS, NOT_IMITATED, refuse
from airflow_provider_fluxomail.sandbox.api.sends import SendsApi
from airflow_provider_fluxomail.sandbox.control.handlers import Control
from airflow_provider_fluxomail.sandbox.errors import ApiError, ControlError, ControlErrorResponse, format_errors
from airflow_provider_fluxomail.sandbox.exchange import API_PREFIX, json_response
from airflow_provider_fluxomail.sandbox.faults.models import KINDS
from airflow_provider_fluxomail.sandbox.inbox import pages
from airflow_provider_fluxomail.sandbox.inbox.handlers import Inbox
from airflow_provider_fluxomail.sandbox.limits import DEFAULT_API_KEY, Bounds
from airflow_provider_fluxomail.sandbox.middleware import SandboxMiddleware
from airflow_provider_fluxomail.sandbox.state import Sandbox
from airflow_provider_fluxomail.sandbox.store.records import StoreFullError
from airflow_provider_fluxomail.sandbox.switches import Switches
from airflow_provider_fluxomail.sandbox.tracking.control import TrackingControl
from airflow_provider_fluxomail.sandbox.tracking.handlers import Tracking

_MAX_PATH: Final = 200


def build_app(sandbox: Sandbox) -> SandboxMiddleware:
    """The application that an ASGI server runs.

    :param sandbox: its state; the caller closes it.
    """
    return SandboxMiddleware(_build_routes(sandbox), sandbox)


def openapi_document() -> dict[str, Any]:
    sandbox = Sandbox(DEFAULT_API_KEY, data=None, switches=Switches(), bounds=Bounds())
    try:
        return openapi.document(_build_routes(sandbox).routes)
    finally:
        sandbox.close()


def _build_routes(sandbox: Sandbox) -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, generate_unique_id_function=lambda route: route.name)
    # A redirect would make a client send its POST, and perhaps its key, again.
    app.router.redirect_slashes = False
    access = Access(sandbox)
    sends, events, contacts = SendsApi(sandbox, access), EventsApi(sandbox, access), ContactsApi(sandbox, access)
    for method, path, handler, described in (
        ("POST", "emails/send", sends.send, openapi.SEND),
        ("POST", "emails/send-global", sends.send_global, openapi.SEND),
        ("GET", "sends/{send_id}", sends.get_send, openapi.TIMELINE),
        ("GET", "events", events.list_events, openapi.EVENTS),
        ("GET", "events/stream", events.stream, openapi.STREAM),
        ("POST", "contacts/sync", contacts.sync, openapi.CONTACTS_SYNC),
        ("GET", "preferences", contacts.get_preferences, openapi.PREFERENCES),
        ("POST", "preferences", contacts.put_preferences, openapi.PREFERENCES_UPDATE),
        ("GET", "metrics", MetricsApi(sandbox, access).metrics, openapi.METRICS),
    ):
        app.add_api_route(f"{API_PREFIX}/{path}", handler, methods=[method], **described)
    Control(sandbox).mount(app)
    Inbox(sandbox).mount(app)
    Tracking(sandbox).mount(app)
    TrackingControl(sandbox).mount(app)

    async def openapi_document(request: Request) -> Response:  # noqa: ARG001
        return json_response(openapi.document(app.routes))

    app.add_route("/openapi.json", openapi_document)
    for path in NOT_IMITATED:
        # After all others: a path of the sandbox wins.
        app.add_route(path, partial(refuse, path), methods=list(METHODS))

    async def api_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
        """An error of the API; any other is a bug of the sandbox, and stderr gets the traceback."""
        return (error if isinstance(error, ApiError) else ApiError(500)).response(sandbox.switches)

    async def http_error(request: Request, error: Exception) -> Response:
        """Unknown paths and methods, in the form of the API, the control API or the inbox."""
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        path, text = request.url.path, "Not found"
        is_api = path == API_PREFIX or path.startswith(API_PREFIX + "/")
        if error.status_code == 405:
            text, methods = "Method not allowed", allowed_methods(app, request, is_api=is_api)
            if is_api and request.method == "OPTIONS":
                return cors.options(methods)
            headers["Allow"] = ", ".join(methods)
        if is_api:
            if error.status_code == 404:
                text = f"Not found: the API has no {request.method} {path[:_MAX_PATH]}"
            return ApiError(error.status_code, text, headers=headers).response(sandbox.switches)
        if pages.is_page(request.url.path):
            reason = f"The inbox has no {request.method} {pages.clip(request.url.path, 200)}."
            if isinstance(error, pages.Missing):
                text, reason = error.title, error.detail
            return pages.error_page(
                error.status_code, text, reason, request.scope, headers=headers, base_url=pages.base_url(request)
            )
        shown = ControlErrorResponse(error=f"{text}: {request.method} {request.url.path}")
        return json_response(shown, error.status_code, headers)

    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(Exception, api_error)
    for kind in (ControlError, StoreFullError, RequestValidationError):
        app.add_exception_handler(kind, _control_error)
    app.add_exception_handler(HTTPException, http_error)
    return app


def allowed_methods(app: FastAPI, request: Request, *, is_api: bool) -> list[str]:
    """The methods that the routes of a path have, in any order: a route knows only its own."""
    found: set[str] = {"OPTIONS"} if is_api else set()
    for route in app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    if "GET" in found:
        found.add("HEAD")
    return sorted(found)


async def _control_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    if isinstance(error, StoreFullError):
        error = ControlError(str(error), 409)
    elif isinstance(error, RequestValidationError):
        error = ControlError(format_errors(error.errors(), KINDS))
    assert isinstance(error, ControlError)
    return error.response()
