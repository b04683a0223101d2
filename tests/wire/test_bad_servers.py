"""Answers that are not Fluxomail's: typed errors, bounded in size and time, the key kept at home."""

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
from tests.wire.conftest import Transport


@pytest.mark.parametrize(
    ("data", "error", "told"),
    [
        (head(Content_Length=0), errors.FluxomailResponseError, "is empty"),
        (head(Content_Length=6) + b"<html>", errors.FluxomailResponseError, "not JSON"),
        (head(Content_Length=2) + b"[]", errors.FluxomailResponseError, "not a JSON object"),
        (head(Content_Length=2) + b"{}", errors.FluxomailResponseError, "no sendId"),
        (head(Content_Encoding="gzip", Content_Length=7) + b"garbage", errors.FluxomailResponseError, "compression"),
        (head("502 Bad Gateway", Content_Length=3) + b"\xff\xfe\x00", errors.FluxomailServerError, "502"),
        (head("204 No Content"), errors.FluxomailResponseError, "is empty"),
        (b"", errors.FluxomailConnectionError, "closed before"),
        (b"SMTP ready\r\n\r\n", errors.FluxomailConnectionError, "closed before"),
        (head(Content_Length=100) + b'{"sendId": ', errors.FluxomailConnectionError, "closed before"),
        (head(Transfer_Encoding="chunked") + b'5\r\n{"sen', errors.FluxomailConnectionError, "closed before"),
        (head(Transfer_Encoding="chunked") + b"zz\r\nx\r\n", errors.FluxomailConnectionError, "closed before"),
    ],
)
def test_what_is_not_fluxomails_is_a_typed_error(
    call: Transport, serve: Serve, data: bytes, error: type[errors.FluxomailError], told: str
) -> None:
    server = serve(answers(data))
    with pytest.raises(error, match=told) as caught:
        call(settings(server.url), "send", MESSAGE, idempotency_key="k1")
    assert caught.value.idempotency_key == "k1"
    assert not caught.value.permanent


def test_a_huge_answer_is_not_read_whole(call: Transport, serve: Serve) -> None:
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
    server_stopped = time.monotonic() + 10
    while sent > 10 * MAX_RESPONSE_BYTES and time.monotonic() < server_stopped:
        time.sleep(0.01)
    assert sent < 10 * MAX_RESPONSE_BYTES


@pytest.mark.parametrize("part", ["no byte", "trickling head", "head only", "trickling body"])
def test_every_wait_for_a_server_ends(call: Transport, serve: Serve, part: str) -> None:
    def stall(connection: socket.socket, request: bytes) -> None:
        if part in ("head only", "trickling body"):
            connection.sendall(head(Content_Length=10_000))
        if part == "trickling head":
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        with contextlib.suppress(OSError):
            for _ in range(100 if part.startswith("trickling") else 0):
                connection.sendall(b"x")
                time.sleep(0.1)  # the server's pace, not a wait of the test
            connection.recv(1)

    server = serve(stall)
    started = time.monotonic()
    with pytest.raises(errors.FluxomailConnectionError, match=r"timed out after 0\.5 s|not complete after 0\.5 s"):
        call(settings(server.url, timeout=0.5), "send", MESSAGE, idempotency_key="k1")
    assert time.monotonic() - started < 5, "a tenth of what the server would take"


@pytest.mark.parametrize("method", ["send", "get_timeline"])
@pytest.mark.parametrize(
    "status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"]
)
def test_redirects_are_not_followed_and_never_take_the_key_along(
    call: Transport, serve: Serve, status: str, method: str
) -> None:
    thief = serve(answers(head(Content_Length=17) + b'{"sendId": "evil"}'))
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
    body = b'{"sendId": "s1"}'
    server = serve(answers(head(Content_Length=len(body)) + body))
    call(settings(server.url), "send", MESSAGE, idempotency_key="k1")
    (request,) = server.seen
    lines = request.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    assert [line for line in lines if line.startswith(b"authorization:")] == [b"authorization: bearer fm_secret"]
    assert [line for line in lines if line.startswith(b"idempotency-key:")] == [b"idempotency-key: k1"]
    assert b"fm_secret" not in request.partition(b"\r\n")[0], "promise 5: not in the URL"


def test_a_host_that_does_not_exist(call: Transport) -> None:
    with pytest.raises(errors.FluxomailConnectionError, match=r"no response from nowhere\.invalid") as caught:
        call(settings("https://nowhere.invalid"), "send", MESSAGE)
    assert not caught.value.ambiguous


def test_a_proxy_from_the_connection_is_used(call: Transport, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    body = b'{"sendId": "s1"}'
    proxy = serve(answers(head(Content_Length=len(body)) + body))
    call(
        settings("http://mail.example", allow_http=True, proxies={"http": proxy.url}),
        "send",
        MESSAGE,
        idempotency_key="k",
    )
    assert proxy.seen[0].startswith(b"POST http://mail.example/api/v1/emails/send")


@pytest.mark.parametrize("bypassed", [False, True])
def test_the_environments_proxy_is_used_but_for_what_no_proxy_names(
    call: Transport, serve: Serve, monkeypatch: pytest.MonkeyPatch, bypassed: bool
) -> None:
    body = b'{"sendId": "s1"}'
    proxy, server = (serve(answers(head(Content_Length=len(body)) + body)) for _ in range(2))
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1" if bypassed else "other.example")
    call(settings(server.url), "send", MESSAGE, idempotency_key="k")
    asked, left = (server, proxy) if bypassed else (proxy, server)
    assert len(asked.seen) == 1
    assert left.seen == []


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
def test_a_socks_proxy_in_the_environment_is_refused_by_name(
    call: Transport, serve: Serve, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    server = serve(answers(head()))
    monkeypatch.setenv("NO_PROXY", "other.example")
    monkeypatch.setenv(name, "socks5://user:proxy_password@127.0.0.1:9")
    expected = r"HTTP_PROXY or ALL_PROXY .*SOCKS .*127\.0\.0\.1 to NO_PROXY"
    with pytest.raises(errors.FluxomailValidationError, match=expected) as caught:
        call(settings(server.url), "send", MESSAGE, idempotency_key="k")
    assert "proxy_password" not in str(caught.value)
    assert server.seen == []


@pytest.mark.parametrize("way", ["no_proxy", "http_proxy", "connection"])
def test_a_socks_proxy_in_the_environment_that_is_not_used_does_no_harm(
    call: Transport, serve: Serve, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """httpx alone refuses it all the same, so that a send works and the deferred wait after it does not."""
    body = b'{"sendId": "s1"}'
    server = serve(answers(head(Content_Length=len(body)) + body))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1" if way == "no_proxy" else "other.example")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    if way == "http_proxy":
        # Without a scheme, as curl takes it too.
        monkeypatch.setenv("HTTP_PROXY", server.url.removeprefix("http://"))
    proxies = {"all": server.url} if way == "connection" else {}
    sent = call(settings(server.url, proxies=proxies), "send", MESSAGE, idempotency_key="k")
    assert sent.send_id == "s1"


def test_a_proxy_that_refuses_is_not_ambiguous(call: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as free:
        proxy = f"http://user:proxy_password@127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(errors.FluxomailConnectionError, match="Connection refused") as caught:
        call(settings("https://mail.example", proxies={"https": proxy}), "send", MESSAGE)
    assert not caught.value.ambiguous
    assert "proxy_password" not in str(caught.value)


def test_a_host_that_no_library_can_use(call: Transport) -> None:
    with pytest.raises((errors.FluxomailValidationError, errors.FluxomailConnectionError)):
        call(settings("https://xn--ls8h=.la"), "send", MESSAGE, idempotency_key="k")


@pytest.mark.parametrize("verify", [True, False])
def test_a_server_without_tls_behind_https(call: Transport, serve: Serve, verify: bool) -> None:
    server = serve(answers(head()))
    url = server.url.replace("http://", "https://")
    with pytest.raises(errors.FluxomailConnectionError):
        call(settings(url, verify=verify), "send", MESSAGE, idempotency_key="k")


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
    body = b'{"sendId": "s1"}'
    return serve(answers(head(Content_Length=len(body)) + body), context).url.replace("http://", "https://")


def test_an_unknown_certificate_is_refused_in_words(call: Transport, tls_url: str) -> None:
    with pytest.raises(errors.FluxomailConnectionError, match=r"TLS failed: self.signed certificate"):
        call(settings(tls_url), "send", MESSAGE, idempotency_key="k")


def test_verify_names_a_bundle_or_trusts_anybody(call: Transport, tls_url: str, certificate: str) -> None:
    assert call(settings(tls_url, verify=certificate), "send", MESSAGE, idempotency_key="k").send_id == "s1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # urllib3 warns of what was asked for
        assert call(settings(tls_url, verify=False), "send", MESSAGE, idempotency_key="k").send_id == "s1"


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_environments_bundle_counts_for_both_transports(
    call: Transport, tls_url: str, certificate: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the send would trust a server that the deferred wait does not."""
    for other in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(variable, certificate)
    assert call(settings(tls_url), "send", MESSAGE, idempotency_key="k").send_id == "s1"


def test_the_connections_proxy_outranks_no_proxy(
    call: Transport, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "mail.example")
    body = b'{"sendId": "s1"}'
    proxy = serve(answers(head(Content_Length=len(body)) + body))
    through = settings("http://mail.example", allow_http=True, proxies={"http": proxy.url})
    assert call(through, "send", MESSAGE, idempotency_key="k").send_id == "s1"
