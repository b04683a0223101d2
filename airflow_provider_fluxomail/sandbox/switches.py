"""The switches of the sandbox: one for each point that the API's documentation leaves open or describes in two ways.

The defaults are what the documentation makes most likely; nothing here was measured at the real service.
``POST /_sandbox/settings`` changes them; the table in the documentation is generated from here.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from airflow_provider_fluxomail.sandbox.exchange import Input, Seconds, Text
from airflow_provider_fluxomail.sandbox.limits import DEFAULT_EVENT_DELAY, MAX_DELAY_SECONDS

_TRACKING_URL = r"^https?://[A-Za-z0-9._~:\[\]-]+(/[A-Za-z0-9._~%!$&()*+,;=:-]+)*$"
TrackingUrl = Annotated[str, Field(pattern=_TRACKING_URL, max_length=500)]
WebhookType = Literal[
    "email.sent",
    "email.delivered",
    "email.delayed",
    "email.opened",
    "email.clicked",
    "email.bounced",
    "email.complained",
    "email.dropped",
    "email.failed",
]


class Switches(Input):
    """All switches, with the values of a fresh sandbox."""

    event_delay: Seconds = Field(
        default=DEFAULT_EVENT_DELAY, description="Seconds from a send to its outcome; applies to later sends."
    )
    default_outcome: Literal[
        "delivered", "bounced", "complained", "dropped", "failed", "never", "opened", "clicked"
    ] = Field(default="delivered", description="The outcome of messages whose recipient names none.")
    not_found_seconds: Seconds = Field(
        default=0.0,
        description="Seconds for which `GET /sends/{id}` does not find a new send.",
    )

    # Responses

    error_form: Literal["structured", "plain", "message", "spec", "text"] = Field(
        default="structured",
        description="Error bodies: `structured` has code, message, error and details; `plain` error alone; `message` "
        "code, message and details; `spec` code and message; `text` is plain text without JSON.",
    )
    error_send_id: bool = Field(
        default=False, description="Whether a 500 after the send was stored names its `sendId` in the body."
    )
    request_id_header: Literal["both", "x-request-id", "fluxomail-request-id"] = Field(
        default="both", description="The header or headers that carry the request id."
    )
    validation_status: Literal[400, 422] = Field(
        default=400, description="The status of a request with invalid fields."
    )
    send_result: Literal["docs", "sdk"] = Field(
        default="docs", description="The response to a send: `docs` has messageId, `sdk` has accepted in its place."
    )
    rate_headers: Literal["capped", "always", "never"] = Field(
        default="capped", description="For which keys `X-RateLimit-*` is sent: those with a rate limit, all, none."
    )
    retry_after: Literal["seconds", "http-date", "none"] = Field(
        default="seconds", description="The form of the `Retry-After` of an exceeded rate limit."
    )

    # Requests

    version_header: Literal["optional", "known", "required"] = Field(
        default="optional",
        description="`Fluxomail-Version`: ignored, 400 if it is not 2025-09-01, or 400 if it is missing too.",
    )
    content_required: bool = Field(default=True, description="Whether a send with HTML alone is refused.")
    to_list: bool = Field(default=False, description="Whether `to` may be a list of one address.")
    unknown_fields: Literal["keep", "refuse"] = Field(
        default="keep", description="Fields of a send that the API does not name: kept and shown, or 400."
    )
    send_global: Literal["full", "short"] = Field(
        default="full",
        description="`send-global`: the same as send, or refuses cc, bcc and attachments and has no opens and clicks.",
    )
    attachments_max_count: int = Field(default=5, ge=0, le=1_000, description="Attachments of one message.")
    attachments_max_bytes: int = Field(
        default=10 * 1024 * 1024, ge=0, le=1024**3, description="All attachments of one message together, decoded."
    )
    attachments_in_plan: bool = Field(
        default=True, description="Whether the plan has attachments; else a send with one gets 402."
    )
    events_in_plan: bool = Field(
        default=True, description="Whether the plan has the events API; else its calls get 402."
    )

    # Idempotency

    idempotency_life: Seconds = Field(
        default=24 * 3600.0, description="Seconds of the sandbox clock for which a key is remembered."
    )
    idempotency_conflict: Literal["replay", "conflict"] = Field(
        default="replay", description="A known key with another body: the first result again, or 409."
    )
    idempotency_errors: bool = Field(
        default=False,
        description="Whether an error of a send (400, 402, 403) is remembered under its key too.",
    )

    # Tracking and suppression

    tracking_url: TrackingUrl | None = Field(
        default=None,
        description="Base URL of tracking and unsubscribe links, as behind a proxy; null for the address at which the "
        "message was sent. Applies to later sends.",
    )
    tracking_prefetch: bool = Field(
        default=False,
        description="Whether HEAD requests and announced prefetches, as of link scanners, count as opens and clicks.",
    )
    unsubscribe: Literal["header_and_footer", "header", "none"] = Field(
        default="header_and_footer",
        description="What a message gets to unsubscribe: the `List-Unsubscribe` headers and a footer in its HTML, the "
        "headers alone, or nothing. Applies to later sends.",
    )
    unsubscribe_get: Literal["confirm", "at_once"] = Field(
        default="confirm", description="What following an unsubscribe link does: show a button, or unsubscribe."
    )
    suppression: Literal["drop", "refuse", "off"] = Field(
        default="drop",
        description="A send to an address that bounced, complained or unsubscribed: accepted and `dropped`, refused "
        "with 400, or delivered.",
    )

    # Timelines and events

    timeline_form: Literal["docs", "spec", "raw", "by_version"] = Field(
        default="by_version",
        description="`docs` has short rows, `spec` envelopes and pages, `raw` is `spec` with `rawEvents` alone; "
        "`by_version` is `spec` for a request with a `Fluxomail-Version` and `docs` for one without.",
    )
    timeline_auth: Literal["required", "optional"] = Field(
        default="required", description="Whether a timeline can be read without a key."
    )
    page_size: int = Field(default=100, ge=1, le=1_000, description="Most rows of a page; a larger `limit` gets these.")
    list_form: Literal["events", "items"] = Field(default="events", description="The name of the events in a list.")
    list_since: Literal["inclusive", "exclusive"] = Field(
        default="inclusive", description="Whether the list includes the moment that `since` names."
    )
    list_since_event_id: bool = Field(
        default=False, description="Whether the list takes an event id as `since`; else that is a 400."
    )
    repeated_events: Literal["keep", "drop"] = Field(
        default="keep", description="A second event of a type on one message: kept, or dropped as a duplicate."
    )
    stream_auth: Literal["both", "bearer", "token"] = Field(
        default="both", description="How a stream is authorized: by header, by `?token=`, or by either."
    )
    stream_since: Literal["exclusive", "inclusive"] = Field(
        default="exclusive", description="Whether a resumed stream repeats the event that it resumes after."
    )
    stream_heartbeat: float = Field(
        default=15.0,
        ge=0.01,
        le=MAX_DELAY_SECONDS,
        description="Seconds without an event after which a comment is sent.",
    )
    stream_life: float | None = Field(
        default=None,
        ge=0.01,
        le=MAX_DELAY_SECONDS,
        description="Seconds after which the server closes a stream; null for never.",
    )
    streams_per_key: int | None = Field(
        default=None, ge=1, le=1_000, description="Most event streams that are open with one key; null for no limit."
    )
    streams_over_limit: Literal["refuse", "close_oldest"] = Field(
        default="refuse", description="One stream more than `streams_per_key`: 429, or the key's oldest one closes."
    )

    # Contacts, preferences, metrics

    contacts_max_rows: int = Field(default=500, ge=1, le=10_000, description="Most contacts of one `contacts/sync`.")
    preferences_auth: Literal["required", "optional"] = Field(
        default="required",
        description="Whether preferences by `email` need a key; those by `token` never do.",
    )
    preference_categories: Annotated[list[Text], Field(max_length=100)] = Field(
        default=["transactional", "marketing"],
        description="Categories of each organization, besides those that contacts were synced with.",
    )
    metrics_scan_limit: int = Field(
        default=1_000, ge=1, le=1_000_000, description="Most sends that the metrics count: the newest ones."
    )

    # Webhooks

    webhook_url: str | None = Field(
        default=None,
        max_length=2_000,
        description="Where events of the start key's organization are sent, as an http or https URL; null for nowhere.",
    )
    webhook_secret: Annotated[str, Field(min_length=1, max_length=256)] = Field(
        default="whsec_sandbox", description="The secret that signs webhooks."
    )
    webhook_types: list[WebhookType] = Field(
        default=["email.sent", "email.delivered", "email.bounced", "email.complained", "email.opened", "email.clicked"],
        max_length=20,
        description="The types of events that are sent.",
    )
    webhook_body: Literal["event", "list", "events"] = Field(
        default="event", description='The body of a webhook: one event, a list of them, or `{"events": [...]}`.'
    )
    webhook_send_id: bool = Field(
        default=False, description="Whether the data of a webhook have `sendId` besides `messageId`."
    )
    webhook_signature_header: Literal["both", "x-fluxomail-signature", "fluxomail-signature"] = Field(
        default="both", description="The header or headers that carry the signature."
    )
    webhook_signature_form: Literal["hex", "sha256"] = Field(
        default="hex", description="The signature: `hex` is bare, `sha256` has `sha256=` before it."
    )
    webhook_attempts: int = Field(default=5, ge=1, le=100, description="Most attempts of a webhook.")
    webhook_backoff: Seconds = Field(
        default=10.0,
        description="Seconds of the sandbox clock before the second attempt of a webhook; doubled for each further "
        "one, up to an hour.",
    )
    webhook_timeout: float = Field(
        default=10.0, ge=0.01, le=600, description="Seconds of real time that the endpoint of webhooks may take."
    )

    @field_validator("webhook_url")
    @classmethod
    def _has_a_host(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            address = urlsplit(value)
            good = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
        except ValueError:
            good = False
        if not good or not value.isprintable() or " " in value:
            raise ValueError("must be an http or https URL, or null")
        return value
