"""TLS is verified against the trusted certificates, and what is wrong with it is named."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipeline.errors import ConfigError
from pipeline.fetch import Fetched
from pipeline.fetch.dns import Answer
from pipeline.records import Failure
from tests.integration.fetch.asking import Hand, Names, fetch_one
from tests.integration.fetch.hostile import JPEG, Hostile

NOW = datetime.now(UTC)
HERE = Names({"shop.example": Answer(["127.0.0.1"], 60.0)})


class Authority:
    """A certificate authority of the tests' own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self.name, self.key.public_key(), NOW - timedelta(days=9), NOW + timedelta(days=9))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        certificate = builder.sign(self.key, hashes.SHA256())
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def context(self, *names: str, begins: int = -1, ends: int = 1) -> ssl.SSLContext:
        """For a server called `names`; begins, ends: days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        general: list[x509.GeneralName] = [
            x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
        ]
        builder = self._builder(subject, key.public_key(), NOW + timedelta(days=begins), NOW + timedelta(days=ends))
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        path = self.folder / f"{names[0]}{begins}{ends}.pem"
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime, ends: datetime
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
        )


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    authority = Authority(tmp_path, "trusted")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


def detail_of(outcome: Fetched | Failure) -> str:
    assert isinstance(outcome, Failure), outcome
    assert (outcome.reason, outcome.retriable) == ("tls", True)
    return outcome.detail


def test_a_certificate_that_the_named_file_trusts_is_accepted(authority: Authority) -> None:
    with Hostile(authority.context("shop.example")) as server:
        outcome = fetch_one(server.url("/ok.jpg", "shop.example"), resolver=HERE)
    assert isinstance(outcome, Fetched)
    assert outcome.content == JPEG


@pytest.mark.parametrize(
    ("names", "days", "detail"),
    [
        (("other.example",), (-1, 1), "wrong name"),
        (("*.shop.example",), (-1, 1), "wrong name"),
        (("shop.example",), (-3, -1), "certificate expired"),
        (("shop.example",), (1, 3), "certificate not yet valid"),
    ],
)
def test_a_certificate_that_does_not_hold_is_refused_by_its_flaw(
    authority: Authority, names: tuple[str, ...], days: tuple[int, int], detail: str
) -> None:
    with Hostile(authority.context(*names, begins=days[0], ends=days[1])) as server:
        assert detail_of(fetch_one(server.url("/ok.jpg", "shop.example"), resolver=HERE)) == detail
        assert not server.visits


def test_an_issuer_that_nobody_trusts_is_refused(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    with Hostile(stranger.context("shop.example")) as server:
        assert detail_of(fetch_one(server.url("/ok.jpg", "shop.example"), resolver=HERE)) == "unknown issuer"


def test_allowing_private_addresses_does_not_allow_bad_certificates(authority: Authority) -> None:
    with Hostile(authority.context("other.example")) as server:
        assert detail_of(fetch_one(server.url("/ok.jpg"), allow_private=True)) == "wrong name"


def test_https_to_a_server_without_tls_is_a_failed_handshake(server: Hostile) -> None:
    server.greeting = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    assert detail_of(fetch_one(server.url("/ok.jpg").replace("http:", "https:"))) == "handshake"


def test_a_handshake_that_hangs_ends_at_the_limit_for_connecting(server: Hostile, hand: Hand) -> None:
    url = server.url("/ok.jpg").replace("http:", "https:")
    server.greeting = b""
    outcome = fetch_one(url, hand=hand, turn=4.0, when=lambda: server.connections > 0)
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.detail) == ("timeout", "tls handshake")
    assert hand.passed() < 60


def test_a_redirect_from_https_to_http_is_refused_unless_allowed(authority: Authority, server: Hostile) -> None:
    with Hostile(authority.context("127.0.0.1")) as safe:
        url = safe.url(f"/to?{server.url('/ok.jpg')}")
        outcome = fetch_one(url)
        assert isinstance(outcome, Failure)
        assert (outcome.reason, outcome.detail) == ("redirect", "from https to http")
        assert isinstance(fetch_one(url, allow_downgrade=True), Fetched)


@pytest.mark.parametrize("name", ["missing.pem", "empty.pem"])
def test_a_file_of_certificates_that_cannot_be_used_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "empty.pem").touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / name))
    with pytest.raises(ConfigError, match="SSL_CERT_FILE"):
        fetch_one("http://127.0.0.1/")
