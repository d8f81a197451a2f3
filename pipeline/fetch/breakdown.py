"""What it means when libcurl gives a transfer up, in the canonical words of failures."""

from __future__ import annotations

import errno
from typing import Any

import pycurl

from pipeline.records import Failure

BAD_HEADER = 8
"""libcurl's CURLE_WEIRD_SERVER_REPLY, which pycurl has no name for."""
_TLS = (
    pycurl.E_SSL_CONNECT_ERROR,
    pycurl.E_PEER_FAILED_VERIFICATION,
    pycurl.E_SSL_CERTPROBLEM,
    pycurl.E_SSL_CIPHER,
    pycurl.E_SSL_ISSUER_ERROR,
)
# OpenSSL's X509_V_ERR_ numbers; with 0 and 1 the chain holds, and libcurl itself missed the name in it
_CERTIFICATE = {
    0: "wrong name",
    1: "wrong name",
    62: "wrong name",
    9: "certificate not yet valid",
    10: "certificate expired",
    23: "certificate revoked",
    18: "self-signed certificate",
    19: "self-signed certificate",
    20: "unknown issuer",
    21: "unknown issuer",
}
_CONNECT = {
    errno.ECONNREFUSED: "refused",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ECONNRESET: "reset",
    errno.ETIMEDOUT: "no answer",
}
_CODES = {
    pycurl.E_UNSUPPORTED_PROTOCOL: ("protocol", "not http/1"),
    pycurl.E_URL_MALFORMAT: ("bad_url", "malformed"),
    pycurl.E_OPERATION_TIMEDOUT: ("timeout", "connecting"),
    pycurl.E_PARTIAL_FILE: ("truncated", "body ended early"),
    pycurl.E_GOT_NOTHING: ("protocol", "closed before an answer"),
    pycurl.E_RECV_ERROR: ("protocol", "closed before an answer"),
    pycurl.E_SEND_ERROR: ("protocol", "closed before an answer"),
    pycurl.E_SSL_CACERT_BADFILE: ("tls", "no trusted certificates on this machine"),
    BAD_HEADER: ("protocol", "malformed answer"),
    100: ("protocol", "headers over the cap"),
}


def why_broken(curl: Any, code: int, in_body: bool) -> Failure:
    """The failure behind libcurl's `code`; in_body: the answer's head had come whole."""
    if code in _TLS:
        number = curl.getinfo(pycurl.SSL_VERIFYRESULT) if code == pycurl.E_PEER_FAILED_VERIFICATION else None
        return Failure.of("tls", "handshake" if number is None else _CERTIFICATE.get(number, "certificate refused"))
    if code == pycurl.E_COULDNT_CONNECT:
        return Failure.of("connect", _CONNECT.get(curl.getinfo(pycurl.OS_ERRNO), "failed"))
    if in_body and code in (pycurl.E_RECV_ERROR, pycurl.E_SEND_ERROR):
        if not curl.getinfo(pycurl.OS_ERRNO):
            return Failure.of("protocol", "wrong chunking")
        return Failure.of("truncated", "connection reset")
    if code in _CODES:
        return Failure.of(*_CODES[code])
    return Failure.of("protocol", f"transfer error {code}")
