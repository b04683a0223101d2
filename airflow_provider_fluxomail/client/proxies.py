"""Through which proxy a server is reached: decided once, for both HTTP libraries.

Each of them reads the environment in its own way: one knows no networks in ``NO_PROXY``, another no ports, and one
refuses a SOCKS proxy that it would not use. So sends and waits could take different routes.
"""

from __future__ import annotations

import base64
import dataclasses
import ipaddress
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.private import Secret

_PORTS: Final = {"http": 80, "https": 443}
_KEY: Final = re.compile(r"(https?|all|ftp)(://([^/@\s]+)?)?")


@dataclasses.dataclass(frozen=True)
class Proxy:
    """A proxy.

    :param url: scheme, host and port, without credentials.
    :param headers: what identifies this machine to the proxy. Made here, because HTTP libraries encode names and
        passwords in different ways, and one leaves out a name without a password.
    """

    url: str
    headers: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str) -> Proxy | None:
        """Read ``http://user:password@proxy:3128``; ``None`` if it is not the URL of an HTTP proxy."""
        try:
            parts = urlsplit(text.strip())
            if parts.scheme not in _PORTS or not parts.hostname or parts.port == 0:
                return None
            # One HTTP library refuses such a host for good, and the other waits for it to appear.
            if not parts.hostname.encode("idna").strip(b".") or re.search(r"[\s\x00-\x1f]", parts.hostname):
                return None
        except ValueError:
            return None
        headers: dict[str, str] = {}
        if parts.username or parts.password:
            credentials = b":".join(unquote_to_bytes(part or "") for part in (parts.username, parts.password))
            headers["Proxy-Authorization"] = Secret(f"Basic {base64.b64encode(credentials).decode()}")
        return cls(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", headers)


def check_proxies(proxies: Mapping[str, str]) -> None:
    """Raise an error unless these are URLs of HTTP proxies by scheme."""
    if not all(_KEY.fullmatch(key.lower()) for key in proxies):
        raise FluxomailValidationError(
            'proxies must be by scheme: "https", "http" or "all". To reach a host without a proxy, leave proxies out '
            "and put the host into the environment's NO_PROXY"
        )
    if None in map(Proxy.parse, proxies.values()):
        # Does not print the URL: it may hold a password.
        raise FluxomailValidationError("proxies must be URLs like http://proxy:3128 (SOCKS is not supported)")


def proxy_for(url: str, proxies: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for ``url``: that of ``proxies``, else that of the environment."""
    parts = urlsplit(url)
    if own := _select(parts, proxies):
        return Proxy.parse(own)
    # Imported here, as it takes some 20 ms, and no Dag parse sends.
    import urllib.request

    found = urllib.request.getproxies()
    named = _select(parts, found)
    # Without a variable, macOS and Windows have a list of their own.
    if not named or _is_excluded(parts, found.get("no", "")):
        return None
    if "no" not in found and urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    proxy = Proxy.parse(named if "://" in named else f"http://{named}")
    if proxy is None:
        # Does not print the URL: it may hold a password.
        raise FluxomailValidationError(
            f"{parts.scheme.upper()}_PROXY or ALL_PROXY in the environment must be a URL like http://proxy:3128 "
            f"(SOCKS is not supported): set the connection's extra proxies, or add {parts.hostname} to NO_PROXY",
            concerns_one_message=False,
        )
    return proxy


def _select(parts: SplitResult, proxies: Mapping[str, str]) -> str | None:
    """Return the proxy for a host, else for a scheme, else for all; a key may end in ``://``."""
    by_key = {key.lower().removesuffix("://"): value for key, value in proxies.items()}
    keys = (f"{parts.scheme}://{parts.hostname}", parts.scheme, f"all://{parts.hostname}", "all")
    return next((value for key in keys if (value := by_key.get(key))), None)


def _is_excluded(parts: SplitResult, no_proxy: str) -> bool:
    """Return whether ``NO_PROXY`` holds a host: ``*``, names and their subdomains, addresses, networks; with a port."""
    host, port = (parts.hostname or "").rstrip("."), parts.port or _PORTS[parts.scheme]
    for entry in re.split(r"[\s,;]+", no_proxy.lower()):
        name, wanted = re.sub(r"^\w+://", "", entry), ""
        if name.rpartition("]")[2].count(":") == 1:
            name, _, wanted = name.rpartition(":")
        if wanted in ("", str(port)) and (name == "*" or _is_within(host, name.strip("[]"))):
            return True
    return False


def _is_within(host: str, name: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        domain = name.lstrip("*.").rstrip(".")
        return bool(domain) and f".{host}".endswith(f".{domain}")
    try:
        return address in ipaddress.ip_network(name, strict=False)
    except ValueError:
        return False
