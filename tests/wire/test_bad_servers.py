"""Servers that do not respond as Fluxomail does: typed errors, bounded in size and time, the key kept at home."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import time
import warnings
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.client.wire import MAX_RESPONSE_BYTES
from tests.support.bad_servers import MESSAGE, Serve, answers, head, settings
from tests.wire.conftest import Handler, Transport, read_request

BODY = b'{"sendId": "s1"}'
ACCEPTS_NOTHING = head(Content_Length=14) + b'{"events": []}'
ACCEPTS = answers(head(Content_Length=len(BODY)) + BODY)


def test_what_is_not_fluxomails_is_a_typed_error(call: Transport, serve: Serve) -> None:
    closed, chunked = (errors.FluxomailConnectionError, "closed before"), head(Transfer_Encoding="chunked")
    garbage = head(Content_Encoding="gzip", Content_Length=7) + b"garbage"
    cases: list[tuple[bytes, tuple[type[errors.FluxomailError], str]]] = [
        (head(Content_Length=0), (errors.FluxomailResponseError, "is empty")),
        (head("204 No Content"), (errors.FluxomailResponseError, "is empty")),
        (head(Content_Length=6) + b"<html>", (errors.FluxomailResponseError, "not JSON")),
        (garbage, (errors.FluxomailResponseError, "compression")),
        (head("502 Bad Gateway", Content_Length=3) + b"\xff\xfe\x00", (errors.FluxomailServerError, "502")),
        *((b"", closed), (b"SMTP ready\r\n\r\n", closed), (head(Content_Length=100) + b'{"sendId": ', closed)),
        *((chunked + b'5\r\n{"sen', closed), (chunked + b"zz\r\nx\r\n", closed)),
    ]
    for data, (error, text) in cases:
        with pytest.raises(error, match=text) as caught:
            call(settings(serve(answers(data)).url), "send", MESSAGE, idempotency_key="k1")
        assert caught.value.idempotency_key == "k1"
        assert not caught.value.permanent


def test_a_huge_response_is_not_read_whole(call: Transport, serve: Serve) -> None:
    sent = 0

    def flood(connection: socket.socket, request: bytes) -> None:
        nonlocal sent
        connection.sendall(head(Content_Length=10**12))
        with contextlib.suppress(OSError):
            for _ in range(2000):
                connection.sendall(b"x" * 65536)
                sent += 65536

    server = serve(flood)
    with pytest.raises(errors.FluxomailResponseError, match="larger than 4 MiB"):
        call(settings(server.url), "send", MESSAGE, idempotency_key="k1")
    server.close()
    assert sent < 10 * MAX_RESPONSE_BYTES


@pytest.mark.parametrize("part", ["no byte", "trickling head", "head only", "trickling body"])
def test_every_wait_for_a_server_ends(call: Transport, serve: Serve, part: str) -> None:
    def stall(connection: socket.socket, request: bytes) -> None:
        if part in ("head only", "trickling body"):
            connection.sendall(head(Content_Length=10_000))
        if part == "trickling head":
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        with contextlib.suppress(OSError):
            for _ in range(500 if part.startswith("trickling") else 0):
                connection.sendall(b"x")
                time.sleep(0.1)  # the server's pace, not a wait of the test
            connection.recv(1)

    server = serve(stall)
    started = time.monotonic()
    with pytest.raises(errors.FluxomailConnectionError, match=r"timed out after 0\.5 s|not complete after 0\.5 s"):
        call(settings(server.url, timeout=0.5), "send", MESSAGE, idempotency_key="k1")
    assert time.monotonic() - started < 5, "a tenth of what the server would take"


@pytest.mark.parametrize("method", ["send", "get_timeline"])
def test_redirects_are_not_followed_and_never_take_the_key_along(call: Transport, serve: Serve, method: str) -> None:
    thief = serve(ACCEPTS)
    for status in ("301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"):
        server = serve(answers(head(status, Location=f"{thief.url}/api/v1/emails/send", Content_Length=0)))
        with pytest.raises(errors.FluxomailResponseError, match=r"redirects to 127\.0\.0\.1"):
            call(settings(server.url, max_attempts=4), method, MESSAGE if method == "send" else "s1")
        assert len(server.seen) == 1
    assert thief.seen == []


def test_the_key_goes_out_once_as_a_bearer_and_netrc_does_not_replace_it(
    call: Transport, serve: Serve, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login thief password stolen\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server = serve(ACCEPTS)
    call(settings(server.url), "send", MESSAGE, idempotency_key="k1")
    (request,) = server.seen
    lines = request.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    assert [line for line in lines if line.startswith(b"authorization:")] == [b"authorization: bearer fm_secret"]
    assert [line for line in lines if line.startswith(b"idempotency-key:")] == [b"idempotency-key: k1"]
    assert b"fm_secret" not in request.partition(b"\r\n")[0], "promise 5: not in the URL"


@pytest.mark.parametrize(
    ("environment", "connection", "used"),
    [
        ({"NO_PROXY": ""}, "http", "proxy"),
        ({"NO_PROXY": "127.0.0.1"}, "http", "proxy"),
        ({"HTTP_PROXY": "PROXY", "NO_PROXY": "127.0.0.1"}, "", "server"),
        ({"HTTP_PROXY": "PROXY", "NO_PROXY": "other.example"}, "", "proxy"),
        # httpx alone refuses SOCKS even where it is not used, so that a send would work and the deferred wait not.
        ({"ALL_PROXY": "socks5h://127.0.0.1:9", "NO_PROXY": "127.0.0.0/8"}, "", "server"),
        ({"HTTP_PROXY": "PROXY", "NO_PROXY": "127.0.0.0/8"}, "", "server"),
        ({"HTTP_PROXY": "PROXY", "NO_PROXY": "SERVER"}, "", "server"),
        ({"HTTP_PROXY": "PROXY", "NO_PROXY": "127.0.0.1:1"}, "", "proxy"),
        ({"ALL_PROXY": "socks5://127.0.0.1:9", "NO_PROXY": "other.example", "HTTP_PROXY": "PROXY"}, "", "proxy"),
        ({"ALL_PROXY": "socks5://127.0.0.1:9", "NO_PROXY": "other.example"}, "all", "proxy"),
    ],
    ids=str,
)
def test_which_proxy_is_used(
    call: Transport,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    connection: str,
    used: str,
) -> None:
    """The connection's outranks the environment's, and ``NO_PROXY`` too."""
    servers = {"server": serve(ACCEPTS), "proxy": serve(ACCEPTS)}
    # Without a scheme, as curl takes it too.
    address = {name: server.url.removeprefix("http://") for name, server in servers.items()}
    for name, value in environment.items():
        monkeypatch.setenv(name, value.replace("PROXY", address["proxy"]).replace("SERVER", address["server"]))
    proxies = {connection: servers["proxy"].url} if connection else {}
    call(settings(servers["server"].url, proxies=proxies), "send", MESSAGE, idempotency_key="k")
    assert {name: len(server.seen) for name, server in servers.items()} == {"server": 0, "proxy": 0, used: 1}
    start = b"POST http://127.0.0.1:" if used == "proxy" else b"POST /api/"
    assert servers[used].seen[0].startswith(start)


@pytest.mark.parametrize(
    ("credentials", "header"),
    [("user:p%40ss@", "dXNlcjpwQHNz"), ("token@", "dG9rZW46"), ("%C3%BC:%E2%82%AC@", "w7w64oKs"), ("", None)],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_gets_its_credentials(
    call: Transport, serve: Serve, scheme: str, credentials: str, header: str | None
) -> None:
    proxy = serve(ACCEPTS if scheme == "http" else answers(head("407 Who are you")))
    url = proxy.url.replace("//", f"//{credentials}")
    who = settings(f"{scheme}://mail.example", proxies={"all": url}, allow_http=True)
    with pytest.raises(errors.FluxomailConnectionError) if scheme == "https" else contextlib.nullcontext():
        call(who, "send", MESSAGE, idempotency_key="k")
    (request,) = proxy.seen
    lines = [line for line in request.split(b"\r\n") if line.lower().startswith(b"proxy-authorization:")]
    assert lines == ([f"Proxy-Authorization: Basic {header}".encode()] if header else [])


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
def test_a_socks_proxy_in_the_environment_is_refused_by_name(
    call: Transport, serve: Serve, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    server = serve(ACCEPTS)
    monkeypatch.setenv("NO_PROXY", "other.example")
    monkeypatch.setenv(name, "socks5://user:proxy_password@127.0.0.1:9")
    expected = r"HTTP_PROXY or ALL_PROXY .*SOCKS .*127\.0\.0\.1 to NO_PROXY"
    with pytest.raises(errors.FluxomailValidationError, match=expected) as caught:
        call(settings(server.url), "send", MESSAGE, idempotency_key="k")
    assert "proxy_password" not in str(caught.value)
    assert server.seen == []


def test_what_cannot_be_reached_is_not_ambiguous(call: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        proxy = f"http://user:proxy_password@127.0.0.1:{free.getsockname()[1]}"
    for who, text in (
        (settings("https://nowhere.invalid"), r"no response from nowhere\.invalid"),
        (settings("https://mail.example", proxies={"https": proxy}), "Connection refused"),
    ):
        with pytest.raises(errors.FluxomailConnectionError, match=text) as caught:
            call(who, "send", MESSAGE)
        assert not caught.value.ambiguous
        assert "proxy_password" not in str(caught.value)


def close(connection: socket.socket, request: bytes) -> None:
    """Send nothing."""


def reset(connection: socket.socket, request: bytes) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.parametrize("handler", [close, reset, answers(b"garbage\r\n\r\n"), answers(head(Content_Length=9))])
@pytest.mark.parametrize("proxied", [False, True])
def test_a_request_that_was_sent_is_ambiguous_behind_a_proxy_too(
    call: Transport, serve: Serve, handler: Handler, proxied: bool
) -> None:
    """Promise 1: without a key it is not repeated, although the proxy fails."""
    server = serve(handler)
    proxies = {"all": server.url} if proxied else {}
    url = "http://mail.example" if proxied else server.url
    with pytest.raises(errors.FluxomailConnectionError) as caught:
        call(settings(url, proxies=proxies, allow_http=True, max_attempts=3), "send", MESSAGE)
    assert caught.value.ambiguous
    assert len(server.seen) == 1


def test_a_host_that_no_library_can_use(call: Transport) -> None:
    with pytest.raises((errors.FluxomailValidationError, errors.FluxomailConnectionError)):
        call(settings("https://xn--ls8h=.la"), "send", MESSAGE, idempotency_key="k")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A certificate for 127.0.0.1 that nobody trusts, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + signed.public_bytes(pem))
    return str(path)


@pytest.fixture
def tls_url(serve: Serve, certificate: str) -> str:
    """A server behind TLS that accepts every send."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return serve(ACCEPTS, context).url.replace("http://", "https://")


def test_verify_is_a_bundle_or_off(call: Transport, serve: Serve, tls_url: str, certificate: str) -> None:
    with pytest.raises(errors.FluxomailConnectionError, match=r"TLS failed: self.signed certificate"):
        call(settings(tls_url), "send", MESSAGE, idempotency_key="k")
    assert call(settings(tls_url, verify=certificate), "send", MESSAGE, idempotency_key="k").send_id == "s1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # urllib3 warns of what the connection says
        assert call(settings(tls_url, verify=False), "send", MESSAGE, idempotency_key="k").send_id == "s1"
    without_tls = serve(ACCEPTS).url.replace("http://", "https://")
    for verify in (True, False):
        with pytest.raises(errors.FluxomailConnectionError):
            call(settings(without_tls, verify=verify, timeout=1), "send", MESSAGE, idempotency_key="k")


FIRST, STALE = (b'{"events": [], "nextCursor": "c"}', b'{"events": [{"type": "delivered", "ts": 1}]}')


@pytest.mark.parametrize("size", [0, 9000, 20_000])
@pytest.mark.parametrize("records", [1, 2])
@pytest.mark.parametrize("tls", [False, True])
def test_what_follows_a_response_is_not_taken_for_the_next_one(
    call: Transport, serve: Serve, certificate: str, tls: bool, records: int, size: int
) -> None:
    """Within TLS it does not show on the socket: it is in a buffer of the library, or not decrypted yet."""
    seen: list[bytes] = []
    first, stale = (
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body for body in (FIRST + b" " * size, STALE)
    )

    def too_much(connection: socket.socket, request: bytes) -> None:
        while request:
            seen.append(request)
            if b"cursor=" in request:
                connection.sendall(ACCEPTS_NOTHING)
            elif records == 1 or not tls:
                connection.sendall(first + stale)
            else:
                connection.sendall(first)
                connection.sendall(stale)
            request = read_request(connection)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    url = serve(too_much, context if tls else None).url.replace("http://", "https://" if tls else "http://")
    assert call(settings(url, verify=certificate, timeout=10), "get_timeline", "s1").events == ()
    assert [b"cursor=c" in request for request in seen] == [False, True]


def test_the_environments_bundle_counts_for_both_transports(call: Transport, tls_url: str, certificate: str) -> None:
    """Else the send would trust a server that the deferred wait does not."""
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    for name in names:
        with pytest.MonkeyPatch.context() as patch:
            for other in names:
                patch.delenv(other, raising=False)
            patch.setenv(name, certificate)
            assert call(settings(tls_url), "send", MESSAGE, idempotency_key="k").send_id == "s1"
