"""The connection test: requests a send that does not exist, and explains the response.

The response shows whether the API key is good, but only if it is Fluxomail's: gateways and web servers send their own
401, 403, 404 and 429.
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
from typing import TYPE_CHECKING, Final

from airflow_provider_fluxomail.client import wire
from airflow_provider_fluxomail.client.errors import (
    FluxomailAuthError,
    FluxomailConnectionError,
    FluxomailError,
    FluxomailNotFoundError,
    FluxomailPermissionError,
    FluxomailRateLimitError,
    FluxomailTenantPausedError,
)
from airflow_provider_fluxomail.client.origin import is_from_fluxomail
from airflow_provider_fluxomail.client.sync import FluxomailClient

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.settings import ClientSettings

#: No send has this id.
PROBE_ID: Final = "airflow-connection-test"
_ACCEPTED: Final = (True, "The API key is accepted, and may read sends.")


def probe(settings: ClientSettings) -> tuple[bool, str]:
    """Make the test's one request, within ``settings.timeout``; return whether the connection works, and the text."""
    results: list[tuple[bool, str]] = []
    # In a thread, because name resolution has no timeout.
    thread = threading.Thread(target=lambda: results.append(_probe(settings)), daemon=True)
    thread.start()
    thread.join(settings.timeout)
    if not results:
        return False, f"Fluxomail cannot be reached: no response within {settings.timeout:g} s"
    return results[0]


def _probe(settings: ClientSettings) -> tuple[bool, str]:
    # Connecting, waiting for the response and reading it may each take the client's timeout.
    quick = dataclasses.replace(settings, max_attempts=1, timeout=settings.timeout / 3)
    # Fluxomail returns the id; few other servers do.
    request_id = f"airflow-{secrets.token_hex(8)}"
    request = dataclasses.replace(wire.timeline_request(PROBE_ID), headers={"X-Request-Id": request_id})
    try:
        with FluxomailClient(quick) as client:
            response = client.exchange(request)
        # A redirect and a 5xx raise their own errors, from any server.
        judged = response.status < 300 or 400 <= response.status < 500
        if judged and not is_from_fluxomail(response, request_id=request_id):
            return False, (
                f"Not a Fluxomail server: check the base URL, and any proxies in between. GET "
                f"{settings.base_url}{request.path} returned status {response.status} without the marks of a Fluxomail "
                "response (request id, error code)."
            )
        wire.read_timeline(PROBE_ID, request, response, quick)
    except FluxomailNotFoundError:
        return _ACCEPTED
    except FluxomailAuthError as error:
        return False, f"The API key is not accepted: put a valid key into the password. {error}"
    except FluxomailTenantPausedError as error:
        return False, f"The API key is accepted, but the organization is paused. {error}"
    except FluxomailPermissionError as error:
        return True, (
            "The API key is accepted, but may not read sends: sending works; to wait for the delivery, "
            f"give the key the scope read_sends. {error}"
        )
    except FluxomailRateLimitError as error:
        return True, f"The API key is accepted, but its rate limit is used up right now. {error}"
    except FluxomailConnectionError as error:
        return False, f"Fluxomail cannot be reached: {error}"
    except FluxomailError as error:
        return False, f"{type(error).__name__}: {error}"
    return _ACCEPTED
