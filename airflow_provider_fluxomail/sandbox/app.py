"""The ASGI application: both APIs and the inbox behind the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from airflow_provider_fluxomail.sandbox.api import openapi
from airflow_provider_fluxomail.sandbox.api.access import Access
from airflow_provider_fluxomail.sandbox.api.events import EventsApi
from airflow_provider_fluxomail.sandbox.api.sends import ApiV1
from airflow_provider_fluxomail.sandbox.control.handlers import Control
from airflow_provider_fluxomail.sandbox.control.inputs import ControlError, told
from airflow_provider_fluxomail.sandbox.errors import ApiError
from airflow_provider_fluxomail.sandbox.exchange import json_response
from airflow_provider_fluxomail.sandbox.faults.models import KINDS
from airflow_provider_fluxomail.sandbox.inbox import pages
from airflow_provider_fluxomail.sandbox.inbox.handlers import Inbox
from airflow_provider_fluxomail.sandbox.middleware import API_PREFIX, Gate

if TYPE_CHECKING:
    from starlette.requests import Request

    from airflow_provider_fluxomail.sandbox.state import Sandbox


def build_app(sandbox: Sandbox) -> Gate:
    """The application that an ASGI server runs.

    :param sandbox: its state; the caller closes it.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, generate_unique_id_function=lambda route: route.name)
    # A redirect would make a client send its POST, and perhaps its key, again.
    app.router.redirect_slashes = False
    access = Access(sandbox)
    api, events = ApiV1(sandbox, access), EventsApi(sandbox, access)
    for method, path, handler, described in (
        ("POST", "emails/send", api.send, openapi.SEND),
        ("POST", "emails/send-global", api.send_global, openapi.SEND),
        ("GET", "sends/{send_id}", api.get_send, openapi.TIMELINE),
        ("GET", "events", events.list_events, openapi.EVENTS),
        ("GET", "events/stream", events.stream, openapi.STREAM),
    ):
        app.add_api_route(f"{API_PREFIX}/{path}", handler, methods=[method], response_class=Response, **described)
    Control(sandbox).mount(app)
    Inbox(sandbox).mount(app)

    async def openapi_document(request: Request) -> Response:  # noqa: ARG001
        return json_response(openapi.document(app.routes))

    app.add_route("/openapi.json", openapi_document)

    async def api_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
        assert isinstance(error, ApiError)
        return error.response(sandbox.settings)

    async def http_error(request: Request, error: Exception) -> Response:
        """Unknown paths and methods, in the words of the API or of the control API."""
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        text = "Method not allowed" if error.status_code == 405 else "Not found"
        if request.url.path.startswith(API_PREFIX):
            return ApiError(error.status_code, text, headers=headers).response(sandbox.settings)
        if pages.is_page(request.url.path):
            told = f"{request.method} {pages.clip(request.url.path, 200)} is nothing that the inbox has."
            return pages.mistake(error.status_code, text, told, headers=headers, base_url=pages.base_url(request))
        return json_response({"error": f"{text}: {request.method} {request.url.path}"}, error.status_code, headers)

    async def crash(request: Request, error: Exception) -> Response:  # noqa: ARG001
        """A bug of the sandbox: the client gets an answer of the API, stderr gets the traceback."""
        return ApiError(500).response(sandbox.settings)

    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(ControlError, _control_error)
    app.add_exception_handler(RequestValidationError, _bad_input)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, crash)
    return Gate(app, sandbox)


async def _control_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, ControlError)
    return error.response()


async def _bad_input(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, RequestValidationError)
    return ControlError(told(error.errors(), KINDS)).response()
