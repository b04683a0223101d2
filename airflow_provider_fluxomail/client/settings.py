"""Where Fluxomail is and how to talk to it, checked before the first request."""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import logging
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from airflow_provider_fluxomail.client import defaults
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.observer import Observer
from airflow_provider_fluxomail.client.private import Secret, private_init
from airflow_provider_fluxomail.client.proxies import Proxy, check_proxies, proxy_for
from airflow_provider_fluxomail.client.recipient_guard import RecipientGuard

log = logging.getLogger(__name__)

DEFAULT_BASE_URL = "https://api.fluxomail.com"
API_PREFIX = "/api/v1"

TEST_SERVER_VARIABLE: Final = "FLUXOMAIL_TEST_SERVER_URL"
"""Environment variable that keeps every client of a process, and of its subprocesses, on a test server."""

kept_test_server = ""
"""The value of the variable while the pytest plugin's fixture is active: a test may clear its environment."""

_VISIBLE = re.compile(r"[\x21-\x7e]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


@private_init
@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """Where Fluxomail is and how to talk to it. Checked when created, so that a mistake fails before a request.

    ::

        ClientSettings(api_key="fm_sandbox", base_url="http://127.0.0.1:8026", max_wait=20)

    In a test, the environment variable ``FLUXOMAIL_TEST_SERVER_URL`` replaces ``base_url``, ``api_key`` and
    ``proxies``: see :class:`TestServer`.

    .. seealso:: :doc:`/guides/client`

    :param api_key: the bearer key; never printed.
    :param base_url: with or without scheme, trailing slash or ``/api/v1``.
    :param timeout: seconds to connect, to wait for each part of a response, and to read one response whole.
    :param max_attempts: requests made at most for one call.
    :param max_wait: seconds that one call waits between its attempts, all together, at most.
    :param api_version: ``Fluxomail-Version`` header; empty sends none.
    :param verify: check TLS certificates; a path names a CA bundle.
    :param proxies: proxy URL by scheme, e.g. ``{"https": "http://proxy:3128"}``; empty uses the environment.
    :param allow_http: send the key unencrypted to a host that is not this machine.
    :param user_agent: ``User-Agent`` header.
    :param guard: which recipients a message may have; applies to every send.
    :param observer: called for what is sent, refused, retried and held back.
    :raises FluxomailValidationError: names the setting and how to fix it.
    """

    api_key: str = dataclasses.field(repr=False)
    base_url: str = DEFAULT_BASE_URL
    timeout: float = defaults.TIMEOUT
    max_attempts: int = defaults.MAX_ATTEMPTS
    max_wait: float = defaults.MAX_WAIT
    api_version: str = defaults.API_VERSION
    verify: bool | str = True
    proxies: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    allow_http: bool = False
    user_agent: str = "airflow-provider-fluxomail"
    guard: RecipientGuard = dataclasses.field(default_factory=RecipientGuard)
    observer: Observer = dataclasses.field(default_factory=Observer, repr=False, compare=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "api_key", Secret(self.api_key))
        put(self, "proxies", {scheme: Secret(proxy) for scheme, proxy in self.proxies.items()})
        if not self.api_key:
            raise FluxomailValidationError("no API key: put it into the connection's password")
        if not _VISIBLE.fullmatch(self.api_key):
            # Does not print the key: most such keys are right but for a line break that was pasted with them.
            raise FluxomailValidationError(
                "the API key holds white space, a line break or a character outside ASCII: paste it again"
            )
        for name in ("timeout", "max_wait"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise FluxomailValidationError(f"{name} must be a number of seconds, 0 or more")
        if self.timeout == 0:
            raise FluxomailValidationError("timeout must be more than 0 seconds")
        if self.max_attempts < 1:
            raise FluxomailValidationError("max_attempts must be 1 or more")
        for name in ("api_version", "user_agent"):
            if not _HEADER_VALUE.fullmatch(getattr(self, name)):
                raise FluxomailValidationError(f"{name} must be printable ASCII on one line: it is a header")
        check_proxies(self.proxies)
        if isinstance(self.verify, str) and not Path(self.verify).exists():
            raise FluxomailValidationError(f"verify names {self.verify!r}, which does not exist on this machine")
        put(self, "base_url", normalise_base_url(self.base_url, allow_http=self.allow_http))
        server = TestServer.from_environment()
        if server is not None and not server.serves(self.base_url):
            server.warn(self.base_url)
            for name, value in {"base_url": server.urls[0], "api_key": server.api_key, "proxies": {}}.items():
                put(self, name, value)

    def url(self, path: str) -> str:
        """Return the URL of a path, for one request.

        :raises FluxomailValidationError: a test server was set after these settings were created for another server.
        """
        server = TestServer.from_environment()
        if server is not None and not server.serves(self.base_url):
            raise FluxomailValidationError(
                f"{TEST_SERVER_VARIABLE} is set, and this client was created before, for {self.base_url}: no request "
                "was made. Create the client, or the hook, inside the test",
                concerns_one_message=False,
            )
        return self.base_url + path

    @property
    def trusted(self) -> bool | str:
        """What to verify certificates with: ``verify``, or the bundle that the environment names.

        Decided here, because each HTTP library reads other variables: sends would trust a server that waits do not.
        """
        if self.verify is not True:
            return self.verify
        named = (os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"))
        return next((path for path in named if path and Path(path).exists()), True)

    def proxy(self) -> Proxy | None:
        """Return the proxy for requests to Fluxomail: the connection's, or that of the environment."""
        return proxy_for(self.base_url, self.proxies)


@dataclasses.dataclass(frozen=True)
class TestServer:
    """The server that ``FLUXOMAIL_TEST_SERVER_URL`` names, which every client uses in place of its own.

    ::

        FLUXOMAIL_TEST_SERVER_URL='http://fm_sandbox@127.0.0.1:8026'

    So a test cannot reach Fluxomail, wherever its connections come from: a client for another server uses this one,
    with this key and without the proxies of its connection, and logs a warning. Further URLs, separated by spaces, are
    servers whose clients stay as they are. Only this machine is accepted: with another host, no client can be created.

    .. seealso:: :doc:`/guides/sandbox`

    :param urls: base URLs; the first is the one that replaces others.
    :param api_key: the key for it.
    """

    __test__ = False  # pytest: not a test

    urls: tuple[str, ...]
    api_key: Secret

    @classmethod
    def from_environment(cls) -> TestServer | None:
        """Read the variable; ``None`` if it is not set, and no test keeps one.

        :raises FluxomailValidationError: it is wrong. No request is made then.
        """
        # Looked up for each request, so that a test can set it at any time; read again only if it has changed.
        named = os.environ.get(TEST_SERVER_VARIABLE, "").strip() or kept_test_server
        return cls._parse(named) if named else None

    @classmethod
    @functools.lru_cache(maxsize=1)
    def _parse(cls, named: str) -> TestServer:
        urls: list[str] = []
        keys: list[str] = []
        for url in named.split():
            scheme, _, rest = url.rpartition("://")
            key, _, address = rest.rpartition("@")
            try:
                host = urlsplit(f"{scheme}://{address}").hostname or ""
                if scheme not in ("http", "https") or not _is_loopback(host):
                    raise FluxomailValidationError("not a server of this machine")
                urls.append(normalise_base_url(f"{scheme}://{address}"))
            except ValueError:
                keys = []
                break
            keys.append(unquote(key))
        if not keys or not _VISIBLE.fullmatch(keys[0]):
            # Does not print it: it holds a key.
            raise FluxomailValidationError(
                f"{TEST_SERVER_VARIABLE} must be http://API_KEY@127.0.0.1:PORT: a server on this machine, for tests. "
                "Unset it to use Fluxomail",
                concerns_one_message=False,
            )
        return cls(tuple(urls), Secret(keys[0]))

    def serves(self, base_url: str) -> bool:
        """Return whether a client for this base URL may make requests."""
        return any(f"{base_url}/".startswith(f"{url}/") for url in self.urls)

    def warn(self, base_url: str) -> None:
        """Log, once in each process, that clients for this base URL use the test server."""
        seen = (os.getpid(), base_url)
        if seen not in _warned:
            _warned.add(seen)
            log.warning(
                "%s is set: requests for %s go to the test server %s, and no email is sent. Unset it outside tests.",
                TEST_SERVER_VARIABLE,
                base_url,
                self.urls[0],
            )


_warned: set[tuple[int, str]] = set()
"""Process ids and base URLs: a process that is forked logs its own warning."""


def normalise_base_url(url: str, *, allow_http: bool = False) -> str:
    """Return ``url`` as scheme, host and optional path, without ``/api/v1`` and trailing slash."""
    text = url.strip() or DEFAULT_BASE_URL
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        if "://" not in text and _is_loopback(parts.hostname or ""):
            # A sandbox has no TLS.
            parts = parts._replace(scheme="http")
        port = parts.port
        # Labels that are empty or too long fail here, not in the middle of a send.
        (parts.hostname or "").encode("idna")
    except ValueError as error:
        raise FluxomailValidationError(
            f"the connection's host is not a URL ({error}): give e.g. {DEFAULT_BASE_URL}"
        ) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\x00-\x1f\\]", text):
        raise FluxomailValidationError(f"the connection's host is not a URL: give e.g. {DEFAULT_BASE_URL}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise FluxomailValidationError(
            "the connection's host must hold only the address, no credentials, query or fragment: "
            "the API key belongs into the password"
        )
    if parts.scheme == "http" and not allow_http and not _is_loopback(parts.hostname):
        raise FluxomailValidationError(
            f"the connection's host is http://{parts.hostname}: the API key would travel unencrypted. Use https://, "
            'or set the extra "allow_http" to true if the network is yours'
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = parts.path.rstrip("/").removesuffix(API_PREFIX).rstrip("/")
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{path}"


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
