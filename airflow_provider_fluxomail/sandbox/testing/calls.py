"""The control API of a sandbox, as the methods of :class:`FluxomailSandbox` call it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from airflow_provider_fluxomail.sandbox.testing.records import given

_PAGE: Final = 1_000
_TIMEOUT: Final = 30


class ControlCalls:
    """Calls of the control API. Each raises :class:`ValueError` with the sandbox's text if the sandbox refuses it.

    :param url: base URL of the server.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._address = urlsplit(url)

    def _pages(self, path: str, /, **query: Any) -> Iterator[dict[str, Any]]:
        """All rows of a list: the field with the name of its path."""
        offset, count = 0, 1
        while offset < count:
            page = self._get(path, limit=_PAGE, offset=offset, **query)
            yield from page[path]
            offset, count = offset + _PAGE, page["count"]

    def _get(self, path: str, /, **query: Any) -> Any:
        return json.loads(self._call("GET", f"{path}?{urlencode(given(query))}"))

    def _post(self, path: str, payload: Mapping[str, Any]) -> Any:
        return json.loads(self._call("POST", path, json.dumps(payload)))

    def _fetch(self, path: str) -> bytes:
        return self._call("GET", path)

    def _call(self, method: str, path: str, body: str | None = None) -> bytes:
        # Not httpx or requests: they use proxies, and their log lines would be in the log that a test checks.
        connection = HTTPConnection(self._address.hostname or "", self._address.port, timeout=_TIMEOUT)
        try:
            connection.request(method, f"/_sandbox/{path}", body)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            try:
                text = str(json.loads(content)["error"])
            except (ValueError, TypeError, KeyError):
                text = content.decode(errors="replace")
            raise ValueError(text)
        return content
