"""Control calls of tracking: the source of a message, and the suppressed addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from airflow_provider_fluxomail.sandbox.errors import ControlError, ControlErrorResponse
from airflow_provider_fluxomail.sandbox.limits import DEFAULT_ORGANIZATION
from airflow_provider_fluxomail.sandbox.store.suppressions import Suppression

if TYPE_CHECKING:
    from airflow_provider_fluxomail.sandbox.state import Sandbox

_PREFIX: Final = "/_sandbox"


class SuppressionList(BaseModel):
    """The addresses that get no more email, in the order of their time."""

    count: int
    suppressions: list[Suppression]


class LiftedSuppression(BaseModel):
    """An address that gets email again."""

    address: str
    lifted: int = Field(description="The number of reasons for which it was suppressed.")


class TrackingControl:
    """The handlers."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def mount(self, app: FastAPI) -> None:
        failed: dict[int | str, dict[str, Any]] = {
            "4XX": {"model": ControlErrorResponse, "description": "The call failed; the text says why."}
        }
        binary: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}}
        for method, path, handler in (
            ("GET", "suppressions", self.suppressions),
            ("DELETE", "suppressions/{address:path}", self.lift),
            ("GET", "messages/{send_id}/source", self.source),
        ):
            is_file = path.endswith("source")
            app.add_api_route(
                f"{_PREFIX}/{path}",
                handler,
                methods=[method],
                tags=["control"],
                response_class=Response if is_file else JSONResponse,
                responses=binary | failed if is_file else failed,
            )

    async def suppressions(self) -> SuppressionList:
        """The addresses that get no more email, and why."""
        found = self._sandbox.store.suppressions.all(self._sandbox.clock.now_ms())
        return SuppressionList(count=len(found), suppressions=found)

    async def lift(self, address: str, organization: str = DEFAULT_ORGANIZATION) -> LiftedSuppression:
        """Let an address get email again."""
        lifted = self._sandbox.store.suppressions.lift(organization, address)
        if not lifted:
            raise ControlError(f"no address {address!r} is suppressed in the organization {organization!r}", 404)
        return LiftedSuppression(address=address, lifted=lifted)

    async def source(self, send_id: str) -> Response:
        """The MIME document that the recipients of a message get."""
        send = self._sandbox.store.get_send(send_id)
        if send is None:
            raise ControlError(f"no message has the send id {send_id!r}", 404)
        # Never as an email: a browser could show the HTML in it beside the control API.
        return Response(self._sandbox.source(send), media_type="application/octet-stream")
