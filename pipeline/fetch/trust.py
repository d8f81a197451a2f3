"""Whose certificates are believed: the system's, or those that SSL_CERT_FILE and SSL_CERT_DIR name."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import ConfigError

_USUAL = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def trusted(environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """File and folder of trusted certificates, as OpenSSL would choose them; ConfigError for a bad file."""
    named = environ.get("SSL_CERT_FILE")
    if named:
        _check(named)
    paths = ssl.get_default_verify_paths()
    file = named or next((path for path in (paths.openssl_cafile, *_USUAL) if os.path.isfile(path)), None)
    folder = environ.get("SSL_CERT_DIR") or paths.openssl_capath
    return file, folder if os.path.isdir(folder) else None


def _check(named: str) -> None:
    try:
        flaw = "" if b"-----BEGIN CERTIFICATE-----" in Path(named).read_bytes() else "the file holds no PEM certificate"
    except OSError as error:
        flaw = error.strerror or "the file cannot be read"
    if flaw:
        raise ConfigError(
            "SSL_CERT_FILE cannot be used", f"{named}: {flaw}", "set it to a file of PEM certificates, or unset it"
        )
