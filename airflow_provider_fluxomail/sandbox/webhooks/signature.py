"""How the body of a webhook is signed. https://docs.fluxomail.com/api-reference/fluxomail/webhook-verification"""

from __future__ import annotations

import hashlib
import hmac

from airflow_provider_fluxomail.sandbox.switches import Switches

_NAMES = ("X-Fluxomail-Signature", "Fluxomail-Signature")


def sign(secret: str, body: bytes) -> str:
    """The HMAC-SHA256 of the raw body, in hex."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def headers(body: bytes, switches: Switches) -> dict[str, str]:
    """The headers of a webhook, with its signature under the names and in the form that the switches choose."""
    signature = sign(switches.webhook_secret, body)
    if switches.webhook_signature_form == "sha256":
        signature = f"sha256={signature}"
    chosen = switches.webhook_signature_header
    signatures = {name: signature for name in _NAMES if chosen in ("both", name.lower())}
    return {"Content-Type": "application/json", "User-Agent": "fluxomail-sandbox-webhooks"} | signatures
