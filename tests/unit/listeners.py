"""Real servers that hear what health tells: SMTP (RFC 5321, with AUTH and STARTTLS) and HTTP."""

from __future__ import annotations

import base64
import contextlib
import json
import socketserver
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class MailServer:
    """What it was told, and how it answers."""

    port: int = 0
    mails: list[tuple[list[str], EmailMessage]] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    secured: list[bool] = field(default_factory=list)
    refuse: set[str] = field(default_factory=set)
    down: bool = False
    password: str | None = None
    tls: ssl.SSLContext | None = None


class _MailHandler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server: MailServer = self.server.facts  # type: ignore[attr-defined]
        self._secure = False
        if server.down:
            self._say("421 not now")
            return
        self._say("220 here")
        to: list[str] = []
        while line := self.rfile.readline().decode().strip():
            word = line.split()[0].upper()
            if word in ("EHLO", "HELO"):
                offers = ["AUTH PLAIN", *(["STARTTLS"] if server.tls and not self._secure else [])]
                self._say("\r\n".join(["250-here", *(f"250-{one}" for one in offers[:-1]), f"250 {offers[-1]}"]))
            elif word == "STARTTLS":
                self._say("220 go on")
                assert server.tls is not None
                self.connection = server.tls.wrap_socket(self.connection, server_side=True)
                self.rfile = self.connection.makefile("rb")
                self.wfile = self.connection.makefile("wb")
                self._secure = True
            elif word == "AUTH":
                _, user, password = base64.b64decode(line.split()[2]).decode().split("\0")
                server.logins.append((user, password))
                good = server.password in (None, password)
                self._say("235 welcome" if good else f"535 not with {password}")
            elif word == "RCPT":
                address = line.partition(":")[2].strip("<>")
                refused = address in server.refuse
                to += [] if refused else [address]
                self._say(f"550 no {address} here" if refused else "250 ok")
            elif word == "DATA":
                self._say("354 go on")
                lines = []
                while (part := self.rfile.readline()) != b".\r\n":
                    lines.append(part[1:] if part.startswith(b"..") else part)
                mail = message_from_bytes(b"".join(lines), policy=policy.default)
                assert isinstance(mail, EmailMessage)
                server.mails.append((to, mail))
                server.secured.append(self._secure)
                to = []
                self._say("250 taken")
            elif word == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 ok")

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())
        self.wfile.flush()


class _Threads(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextlib.contextmanager
def mail_server(**how: Any) -> Iterator[MailServer]:
    """Listens on a port of its own."""
    with _Threads(("127.0.0.1", 0), _MailHandler) as server:
        facts = MailServer(port=server.server_address[1], **how)
        server.facts = facts  # type: ignore[attr-defined]
        with _serving(server):
            yield facts


@dataclass
class Hook:
    """What was posted, and how it answers."""

    url: str = ""
    posts: list[dict[str, Any]] = field(default_factory=list)
    status: int = 204


@contextlib.contextmanager
def hook_server(path: str = "/hook") -> Iterator[Hook]:
    """Takes POSTs of JSON."""
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if hook.status < 300 and self.path == path:
                hook.posts.append(body)
            self.send_response(hook.status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hook.url = f"http://127.0.0.1:{server.server_address[1]}{path}"
        with _serving(server):
            yield hook


@contextlib.contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def self_signed(folder: Path, name: str) -> ssl.SSLContext:
    """A server's side of TLS for a host; `cert.pem` in the folder is what its clients have to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
    builder = builder.not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8
    encoded = key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(encoded)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
