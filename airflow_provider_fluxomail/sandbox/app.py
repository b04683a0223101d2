"""The ASGI application: both APIs behind the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.exceptions import HTTPException

from airflow_provider_fluxomail.sandbox.api import ApiV1
from airflow_provider_fluxomail.sandbox.control import Control
from airflow_provider_fluxomail.sandbox.controlinput import ControlError
from airflow_provider_fluxomail.sandbox.errors import ApiError, default_error_body
from airflow_provider_fluxomail.sandbox.gate import API_PREFIX, Gate
from airflow_provider_fluxomail.sandbox.jsonbody import json_response

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from airflow_provider_fluxomail.sandbox.state import Sandbox


def build_app(sandbox: Sandbox) -> Gate:
    """The application that an ASGI server runs.

    :param sandbox: its state; the caller closes it.
    """
    app = FastAPI(title="Fluxomail sandbox", docs_url=None, redoc_url=None, openapi_url=None)
    # A redirect would make a client send its POST, and perhaps its key, again.
    app.router.redirect_slashes = False
    ApiV1(sandbox).mount(app)
    Control(sandbox).mount(app)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(ControlError, _control_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _crash)
    return Gate(app, sandbox)


async def _api_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, ApiError)
    return error.response()


async def _control_error(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, ControlError)
    return json_response({"error": str(error)}, error.status)


async def _http_error(request: Request, error: Exception) -> Response:
    """Unknown paths and methods, in the words of the API or of the control API."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    text = "Method not allowed" if error.status_code == 405 else "Not found"
    if request.url.path.startswith(API_PREFIX):
        return ApiError(error.status_code, text, headers=headers).response()
    return json_response({"error": f"{text}: {request.method} {request.url.path}"}, error.status_code, headers)


async def _crash(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """A bug of the sandbox: the client gets an answer of the API, stderr gets the traceback."""
    return json_response(default_error_body(500), 500)
