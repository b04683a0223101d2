"""Which proxy is used: one decision for both HTTP libraries."""

from __future__ import annotations

from typing import Final

import pytest

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.proxies import Proxy, proxy_for
from airflow_provider_fluxomail.client.settings import ClientSettings

API = "https://api.fluxomail.com"
V4, V6, PORT = "https://10.1.2.3", "https://[fd00::1]:8443", "https://mail.corp.example:8443"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


#: A URL, whether NO_PROXY makes it direct, and values of NO_PROXY.
NO_PROXY: Final = [
    *((url, True, ("*", "a.example, *")) for url in (API, V4, V6, PORT)),
    *((url, False, ("", ",,", ".", "*.", "[", ":", "/", "other.example")) for url in (API, V4, V6, PORT)),
    (API, True, ("api.fluxomail.com", "fluxomail.com", ".fluxomail.com", "*.fluxomail.com", "api.fluxomail.com.")),
    (API, True, ("API.Fluxomail.COM", "a.example fluxomail.com", "api.fluxomail.com:443", "https://api.fluxomail.com")),
    (API, False, ("mail.com", "xomail.com", "api", "com:444", "fluxomail.com.example", "10.0.0.0/8", "0.0.0.0/0")),
    (API, False, ("api.fluxomail.com:8443", "api.fluxomail.com:x")),
    (V4, True, ("10.0.0.0/8", "10.1.2.3", "10.1.2.3:443", "10.1.2.9/24", "::1,10.1.0.0/16", "10.0.0.0/255.0.0.0")),
    (V4, False, ("10.2.0.0/16", "10.1.2.3:8443", "10.1.2.3/33", "10.1.2.30", "2.3", "::/0")),
    (V6, True, ("fd00::/8", "fd00::1", "[fd00::1]", "[fd00::1]:8443", "FD00:0:0::1")),
    (V6, False, ("fd01::/16", "fd00::2", "[fd00::1]:443", "0.0.0.0/0", "::1")),
    (PORT, True, ("mail.corp.example:8443", "corp.example:8443", "corp.example", ".example")),
    (PORT, False, ("mail.corp.example:443", "orp.example", "mail.corp.example:84430")),
]


@pytest.mark.parametrize(
    ("url", "direct", "no_proxy"), [(url, direct, value) for url, direct, values in NO_PROXY for value in values]
)
@pytest.mark.parametrize("proxy", ["http://proxy:3128", "socks5h://127.0.0.1:1080"])
def test_no_proxy(monkeypatch: pytest.MonkeyPatch, url: str, direct: bool, no_proxy: str, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    if direct:
        assert proxy_for(url, {}) is None
    elif proxy.startswith("http:"):
        assert proxy_for(url, {}) == Proxy(proxy)
    else:
        with pytest.raises(FluxomailValidationError, match="SOCKS is not supported"):
            proxy_for(url, {})


@pytest.mark.parametrize(
    ("environment", "proxies", "used"),
    [
        ({}, {}, None),
        ({"HTTPS_PROXY": "http://a:1"}, {}, "http://a:1"),
        ({"https_proxy": "a:1"}, {}, "http://a:1"),
        ({"https_proxy": " http://a:1 "}, {}, "http://a:1"),
        ({"https_proxy": "", "ALL_PROXY": "http://a:1"}, {}, "http://a:1"),
        ({"HTTP_PROXY": "http://a:1"}, {}, None),
        ({"HTTPS_PROXY": "http://a:1", "ALL_PROXY": "socks5://b:1"}, {}, "http://a:1"),
        ({"ALL_PROXY": "socks5://b:1", "NO_PROXY": "*"}, {"all": "http://a:1"}, "http://a:1"),
        ({"HTTPS_PROXY": "http://b:1"}, {"http": "http://a:1"}, "http://b:1"),
        ({}, {"https://api.fluxomail.com": "http://a:1", "https": "http://b:1"}, "http://a:1"),
        ({}, {"all://API.fluxomail.com": "http://a:1", "all": "http://b:1"}, "http://a:1"),
        ({}, {"https://other.example": "http://a:1"}, None),
        # As httpx writes its keys.
        ({}, {"https://": "http://a:1", "all://": "http://b:1"}, "http://a:1"),
        ({}, {"HTTPS": "https://a"}, "https://a"),
        ({}, {"ftp": "http://a:1"}, None),
        ({}, {"https": "http://[::1]:3128/"}, "http://[::1]:3128"),
    ],
    ids=str,
)
def test_which_proxy(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], proxies: dict[str, str], used: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = ClientSettings(api_key="k", proxies=proxies).proxy()
    assert (found and found.url) == used


@pytest.mark.parametrize(
    "url",
    [
        *("socks5://a:1", "socks4a://a", "ftp://a", "a:1", "http://", "http://a:0", "http://a:x", "http://["),
        *("http://a b:1", "http://a\x00b:1", "http://.:1", "http://..:1", "http://a..b:1", f"http://{'a' * 64}:1"),
    ],
)
def test_what_is_no_proxy_is_refused_at_once(url: str) -> None:
    with pytest.raises(FluxomailValidationError, match="proxies must be URLs like"):
        ClientSettings(api_key="k", proxies={"https": url})


@pytest.mark.parametrize("key", ["htps", "no_proxy", "no", "socks5", "https://user@a", "", "https:/a", "https://a b"])
def test_a_key_of_proxies_that_would_be_ignored_is_refused(key: str) -> None:
    with pytest.raises(FluxomailValidationError, match="proxies must be by scheme"):
        ClientSettings(api_key="k", proxies={key: "http://a:1"})
