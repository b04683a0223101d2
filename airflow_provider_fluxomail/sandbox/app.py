"""The ASGI application: both APIs and the inbox, behind the middleware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from airflow_provider_fluxomail.sandbox.api import openapi
from airflow_provider_fluxomail.sandbox.api.access import Access
from airflow_provider_fluxomail.sandbox.api.events import EventsApi
from airflow_provider_fluxomail.sandbox.api.sends import SendsApi
from airflow_provider_fluxomail.sandbox.control.handlers import Control
from airflow_provider_fluxomail.sandbox.control.inputs import format_errors
from airflow_provider_fluxomail.sandbox.errors import ApiError, ControlError, ControlErrorResponse
from airflow_provider_fluxomail.sandbox.exchange import API_PREFIX, json_response
from airflow_provider_fluxomail.sandbox.faults.models import KINDS
from airflow_provider_fluxomail.sandbox.inbox import pages
from airflow_provider_fluxomail.sandbox.inbox.handlers import Inbox
from airflow_provider_fluxomail.sandbox.limits import DEFAULT_API_KEY, Bounds
from airflow_provider_fluxomail.sandbox.middleware import SandboxMiddleware
from airflow_provider_fluxomail.sandbox.state import Sandbox
from airflow_provider_fluxomail.sandbox.switches import Switches

if TYPE_CHECKING:
    from starlette.requests import Request


def build_app(sandbox: Sandbox) -> SandboxMiddleware:
    """The application that an ASGI server runs.

    :param sandbox: its state; the caller closes it.
    """
    return SandboxMiddleware(_build_routes(sandbox), sandbox)


def openapi_document() -> dict[str, Any]:
    """The OpenAPI document of both APIs, as ``/openapi.json`` serves it."""
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
    sends, events = SendsApi(sandbox, access), EventsApi(sandbox, access)
    for method, path, handler, described in (
        ("POST", "emails/send", sends.send, openapi.SEND),
        ("POST", "emails/send-global", sends.send_global, openapi.SEND),
        ("GET", "sends/{send_id}", sends.get_send, openapi.TIMELINE),
        ("GET", "events", events.list_events, openapi.EVENTS),
        ("GET", "events/stream", events.stream, openapi.STREAM),
    ):
        app.add_api_route(f"{API_PREFIX}/{path}", handler, methods=[method], **described)
    Control(sandbox).mount(app)
    Inbox(sandbox).mount(app)

    async def openapi_document(request: Request) -> Response:  # noqa: ARG001
        return json_response(openapi.document(app.routes))

    app.add_route("/openapi.json", openapi_document)

    async def api_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
        assert isinstance(error, ApiError)
        return error.response(sandbox.switches)

    async def http_error(request: Request, error: Exception) -> Response:
        """Unknown paths and methods, in the form of the API, the control API or the inbox."""
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        text = "Method not allowed" if error.status_code == 405 else "Not found"
        if request.url.path.startswith(API_PREFIX):
            return ApiError(error.status_code, text, headers=headers).response(sandbox.switches)
        if pages.is_page(request.url.path):
            reason = f"The inbox has no {request.method} {pages.clip(request.url.path, 200)}."
            return pages.error_page(error.status_code, text, reason, headers=headers, base_url=pages.base_url(request))
        shown = ControlErrorResponse(error=f"{text}: {request.method} {request.url.path}")
        return json_response(shown, error.status_code, headers)

    async def crash(request: Request, error: Exception) -> Response:  # noqa: ARG001
        """A bug of the sandbox: the client gets an error of the API, stderr gets the traceback."""
        return ApiError(500).response(sandbox.switches)

    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(ControlError, _control_error)
    app.add_exception_handler(RequestValidationError, _invalid_input)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, crash)
    return app


async def _control_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, ControlError)
    return error.response()


async def _invalid_input(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, RequestValidationError)
    return ControlError(format_errors(error.errors(), KINDS)).response()
