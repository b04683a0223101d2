"""Stubs of the services that people come from: an SMTP server, and the HTTP APIs of SendGrid and Amazon SES."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import email
import json
import socketserver
import threading
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qs

Server = TypeVar("Server", bound=socketserver.BaseServer)


@dataclasses.dataclass
class OldMail:
    """One message that an old service accepted: one for all its recipients.

    :param recipients: of the envelope, copies among them.
    """

    sender: str
    recipients: list[str]
    message: Message


class SmtpStub(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP as ``smtplib`` needs to hand a message over."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _SmtpHandler)
        self.mails: list[OldMail] = []

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])


class _SmtpHandler(socketserver.StreamRequestHandler):
    server: SmtpStub
    timeout = 30

    def handle(self) -> None:
        sender, recipients = "", list[str]()
        self._say("220 stub")
        while line := self.rfile.readline().decode().strip():
            verb, _, rest = line.partition(" ")
            address = rest.partition("<")[2].partition(">")[0]
            if verb.upper() == "MAIL":
                sender, recipients = address, []
            elif verb.upper() == "RCPT":
                recipients.append(address)
            elif verb.upper() == "DATA":
                self._say("354 go on")
                self.server.mails.append(OldMail(sender, recipients, email.message_from_bytes(self._data())))
            elif verb.upper() == "QUIT":
                self._say("221 bye")
                return
            self._say("250 stub")

    def _data(self) -> bytes:
        lines: list[bytes] = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")


class HttpStub(ThreadingHTTPServer):
    """Accepts every message that SendGrid's and Amazon's clients send."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _HttpHandler)
        #: Bodies of requests to SendGrid.
        self.sendgrid: list[dict[str, Any]] = []
        #: Messages that SES accepted.
        self.ses: list[OldMail] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _HttpHandler(BaseHTTPRequestHandler):
    server: HttpStub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v3/mail/send":
            self.server.sendgrid.append(json.loads(body))
            self._answer(202, b"")
            return
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        assert form["Action"] == "SendRawEmail", "the only one that the operators use"
        recipients = [value for name, value in sorted(form.items()) if name.startswith("Destinations.")]
        message = email.message_from_bytes(base64.b64decode(form["RawMessage.Data"]))
        self.server.ses.append(OldMail(form["Source"], recipients, message))
        self._answer(
            200,
            b"<SendRawEmailResponse xmlns='http://ses.amazonaws.com/doc/2010-12-01/'><SendRawEmailResult>"
            b"<MessageId>0100-stub</MessageId></SendRawEmailResult></SendRawEmailResponse>",
        )

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the library calls it
        """Say nothing."""


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """Serve in a thread while the block runs."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
