"""Reads JSON that a server sent, which may be anything."""

from __future__ import annotations

import json
import re
from typing import Any, Final

#: In JSON text, half a surrogate pair, or either half of a whole one.
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(raw: str | bytes) -> Any:
    """Return what JSON text holds. Text that is invalid, such as half a surrogate pair, becomes U+FFFD: no URL, log
    or database accepts it.

    :raises ValueError: it is not JSON.
    """
    text = raw.decode("utf-8-sig", "replace") if isinstance(raw, bytes) else raw
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):
            text = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass").decode("utf-8", "replace")
            value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def json_object(raw: str | bytes) -> dict[str, Any]:
    """Return the JSON object that ``raw`` holds, an empty one if it holds none."""
    try:
        payload = read_json(raw)
    except ValueError:
        return {}
    return payload if isinstance(payload, dict) else {}
