"""JSON in and out: strict about what could not be stored or sent back."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from starlette.responses import Response


def parse_json(body: bytes) -> Any:
    """Parse a request body.

    Refuses what Python's parser takes beyond JSON in UTF-8 (``NaN``, numbers that become infinite) and strings that no
    encoding can carry (half of a surrogate pair): they would only fail later, when stored or answered.

    :raises ValueError: the body is not such JSON.
    """
    try:
        # Decoded here: the parser itself would take other encodings, and halves of surrogate pairs in them.
        text = body.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def json_response(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer with a JSON body in UTF-8; a content type among the headers wins."""
    body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number
