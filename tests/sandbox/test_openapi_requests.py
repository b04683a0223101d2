"""The OpenAPI document and the sandbox accept the same requests."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from airflow_provider_fluxomail.sandbox.app import openapi_document
from airflow_provider_fluxomail.sandbox.faults.models import MODELS

from .helpers import BASE, KEY, Api

DOCUMENT = openapi_document()
SEND, SYNC = "/api/v1/emails/send", "/api/v1/contacts/sync"


def body_schema(path: str) -> dict[str, Any]:
    schema: dict[str, Any] = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return schema | {"components": DOCUMENT["components"]}


def is_described(path: str, body: object) -> bool:
    return bool(Draft202012Validator(body_schema(path)).is_valid(body))


def is_accepted(api: Api, path: str, body: object) -> bool:
    status = api.http.post(path, json=body, headers={"Authorization": f"Bearer {KEY}"}).status_code
    assert status in (200, 400), status
    return status == 200


def test_patterns_mean_the_same_in_every_dialect() -> None:
    r"""``\s``, ``\d``, ``\w`` and ``\b`` do not."""
    patterns = re.findall(r'"pattern": "((?:[^"\\]|\\.)*)"', json.dumps(DOCUMENT))
    assert len(patterns) > 15
    assert [pattern for pattern in patterns if re.search(r"\\\\[sSdDwWbB]", pattern)] == []


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("to", "ops@example.org", True),
        ("to", "\tOps <ops@example.org> ", True),
        ("to", '"Ops, \\"x\\"" <ops@example.org>', True),
        ("to", '"a b"@example.org', True),
        ("to", "Ops\x85 <ops@example.org>", True),
        ("to", "\xa0ops@example.org", False),
        ("to", "ops@\x85example.org", False),
        ("to", "<\x1cops@example.org>", False),
        ("to", "ops\x7f@example.org", False),
        ("to", "o\u3000ps@example.org", False),
        ("to", "<ops@example.org> x", False),
        ("to", '"a\\" <ops@example.org>', False),
        ("subject", "a\ufeff", True),
        ("subject", "\x85", False),
        ("subject", "\x1c\u2003", False),
        ("subject", "a\x00", False),
        ("content", "\ufeff", True),
        ("content", "\x00", True),
        ("content", "\u2028\x1f\xa0", False),
        ("attachments", [{"filename": "\ufeff", "contentBase64": ""}], True),
        ("attachments", [{"filename": "\x85", "contentBase64": ""}], False),
        ("attachments", [{"filename": "a", "contentBase64": ""}] * 5, True),
        ("attachments", [{"filename": "a", "contentBase64": ""}] * 6, False),
    ],
    ids=repr,
)
def test_fields_of_a_send(api: Api, field: str, value: object, expected: bool) -> None:
    body = BASE | {field: value}
    assert (is_described(SEND, body), is_accepted(api, SEND, body)) == (expected, expected)


@pytest.mark.parametrize("rows", [0, 1, 500, 501])
def test_rows_of_a_sync(api: Api, rows: int) -> None:
    body = {"contacts": [{"email": "ops@example.org", "eventId": str(number)} for number in range(rows)]}
    expected = 1 <= rows <= 500
    assert (is_described(SYNC, body), is_accepted(api, SYNC, body)) == (expected, expected)


def whole_numbers() -> list[tuple[str, dict[str, Any], str, float]]:
    """Control calls with a whole number: the path, the fields it requires, the name of the number and a valid one."""
    schemas = DOCUMENT["components"]["schemas"]
    calls: list[tuple[str, dict[str, Any]]] = [("settings", schemas["Switches"]), ("keys", schemas["KeyInput"])]
    calls += [("faults", schemas[model.__name__]) for model in MODELS]
    found = []
    for call, schema in calls:
        examples = {"key": "k", "seconds": 1, "status": 500}
        for name, described in schema["properties"].items():
            options = [described, *described.get("anyOf", ())]
            whole = [option for option in options if option.get("type") == "integer"]
            if whole and all(option.get("type") != "number" for option in options):
                fields = {one: examples.get(one) or described_kind(schema) for one in schema.get("required", ())}
                fields |= {"chance": 0.5} if name == "seed" else {}
                number = whole[0].get("minimum") or whole[0].get("enum", [7])[0]
                found.append((f"/_sandbox/{call}", fields, name, float(number)))
    return found


def described_kind(schema: dict[str, Any]) -> str:
    return str(schema["properties"]["kind"]["const"])


def test_a_whole_number_may_have_a_point(api: Api) -> None:
    """In JSON, 5.0 is 5."""
    calls = whole_numbers()
    assert len(calls) > 70
    for path, fields, name, number in calls:
        for value, expected in ((number, True), (number + 0.5, False), (str(int(number)), False), (True, False)):
            body = fields | {name: value}
            assert (is_described(path, body), is_accepted(api, path, body)) == (expected, expected), (path, body)
        api.control("reset")
    shown = api.control("settings", page_size=50.0)["page_size"]
    assert isinstance(shown, int)
    assert shown == 50


STATUS = {"kind": "status", "status": 500}


@pytest.mark.parametrize(
    ("call", "body", "expected"),
    [
        ("settings", {"webhook_url": "http://127.0.0.1:9/a?b=%20"}, True),
        ("settings", {"webhook_url": "https://[::1]"}, True),
        ("settings", {"webhook_url": "http://a:65536"}, False),
        ("settings", {"webhook_url": "http://user@a"}, False),
        ("settings", {"tracking_url": "http://[::1]:8026/a"}, True),
        ("settings", {"tracking_url": "http://a:b"}, False),
        ("settings", {"tracking_url": "http://a/"}, False),
        ("faults", STATUS | {"headers": {"X-A": "b c", "Content-Lengths": ""}}, True),
        ("faults", STATUS | {"headers": {"cOnTent-Length": "5"}}, False),
        ("faults", STATUS | {"headers": {"X A": "b"}}, False),
        ("faults", STATUS | {"headers": {"": "b"}}, False),
        ("faults", STATUS | {"headers": {"X-A": "b "}}, False),
        ("faults", STATUS | {"headers": {"X-A": "ö"}}, False),
        ("faults", STATUS | {"headers": {"a" * 257: "b"}}, False),
        ("faults", STATUS | {"retry_after": "soon"}, True),
        ("faults", STATUS | {"retry_after": " soon"}, False),
        ("faults", STATUS | {"retry_after": -1}, False),
        ("faults", STATUS | {"seed": None}, True),
        ("faults", STATUS | {"seed": 5, "chance": 0.5}, True),
        ("faults", STATUS | {"seed": 5}, False),
        ("faults", STATUS | {"seed": 5, "chance": None}, False),
        ("messages/{send_id}/events", {"type": "opened", "at": None, "Ts": [1]}, True),
        *(("messages/{send_id}/events", {"type": "opened", name: 1}, False) for name in ("ts", "sendId", "dropped")),
        ("messages/{send_id}/events", {"type": "opened", "providerMessageId": None}, False),
    ],
    ids=str,
)
def test_fields_of_control_calls(api: Api, call: str, body: dict[str, Any], expected: bool) -> None:
    path = f"/_sandbox/{call}"
    accepted = is_accepted(api, path.format(send_id=api.send_id()), body)
    assert (is_described(path, body), accepted) == (expected, expected)


@pytest.mark.parametrize("call", ["settings", "keys", "pause", "clock", "faults", "messages/{send_id}/events"])
def test_a_body_is_required_where_the_document_says_so(api: Api, call: str) -> None:
    path = f"/_sandbox/{call}"
    status = api.http.post(path.format(send_id=api.send_id())).status_code
    required = DOCUMENT["paths"][path]["post"]["requestBody"].get("required", False)
    assert status == (400 if required else 200)
    assert required == (call != "settings")
