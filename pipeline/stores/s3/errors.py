"""What boto3 raises, as typed errors: what happened, the server's words, and what to do, in one line.

The codes are those of Amazon's table "List of error codes" (S3 API reference) and of MinIO and versitygw beyond it.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from pipeline.errors import ConfigError, Exists, NotFound, PermanentError, PipelineError, TemporaryError

CAUGHT: tuple[type[Exception], ...] = (boto.BotoCoreError, boto.ClientError, ResponseParserError)
"""All that boto3 raises on purpose."""

_KEYS = "correct bucket.access_key and secret_key, or where they come from: the profile, the variables AWS_*, the role"
_AGAIN = "Hathi tries it again by itself"
_REGION = "set bucket.region to the region of the bucket"
NO_S3 = ("the server that answers is not S3", "correct bucket.endpoint, and check that no proxy answers instead")
_CLOCK = "set this host's clock: `timedatectl` says whether it is synchronised"


@dataclass(frozen=True, slots=True)
class Said:
    """What a code of the server means.  delay: seconds until it may be tried again; None: it is permanent."""

    message: str
    hint: str
    delay: float | None = None


_IDENTITY = {
    "InvalidAccessKeyId": Said("S3 does not know the access key", _KEYS),
    "SignatureDoesNotMatch": Said("the secret key is not that of the access key", _KEYS),
    "ExpiredToken": Said("the session token has expired", "get new temporary keys: Hathi reads them again by itself"),
    "InvalidToken": Said("S3 does not know the session token", _KEYS),
    "RequestTimeTooSkewed": Said("this host's clock and that of S3 differ too much", _CLOCK),
}
_PERMANENT = {
    "AccessDenied": Said("S3 does not allow it", "give these keys the rights in docs/permissions.md"),
    "PermanentRedirect": Said("the bucket lies in another region", _REGION),
    "AuthorizationHeaderMalformed": Said("the bucket lies in another region", _REGION),
    "IllegalLocationConstraintException": Said("the bucket lies in another region", _REGION),
    "NoSuchBucket": Said("there is no such bucket", "correct the name in bucket.url, or create the bucket"),
    "InvalidBucketName": Said("no bucket can have this name", "correct the name in bucket.url"),
    "InvalidObjectState": Said("the object was moved into an archive", "remove the archiving rule from the bucket"),
    "NotImplemented": Said(
        "this server does not support a request that Hathi needs", "use another server; `hathi doctor` tests it"
    ),
    "KMS.DisabledException": Said("the key of bucket.kms_key is disabled", "enable the key"),
    "KMS.NotFoundException": Said("there is no such key", "correct bucket.kms_key"),
}
_TEMPORARY = {
    "SlowDown": Said("S3 gets too many requests and answers: slow down", _AGAIN, 2.0),
    "ConditionalRequestConflict": Said("another writer writes the same key", _AGAIN, 0.1),
    "OperationAborted": Said("another writer writes the same key", _AGAIN, 0.1),
    "RequestTimeout": Said("S3 did not get the rest of a request in time", _AGAIN, 1.0),
    "BadDigest": Said(
        "what S3 received is not what was sent", f"{_AGAIN}; if it happens often, check the network", 0.1
    ),
    "XAmzContentSHA256Mismatch": Said("what S3 received is not what was sent", _AGAIN, 0.1),
    "IncompleteBody": Said("S3 received less than was sent", _AGAIN, 0.1),
    "XMinioStorageFull": Said(
        "the disk of the S3 server is full", "free space there; Hathi then continues by itself", 30.0
    ),
}
_ALIASES = {
    "ExpiredTokenException": "ExpiredToken",
    "InvalidClientTokenId": "InvalidAccessKeyId",
    "XAmzContentChecksumMismatch": "BadDigest",
    "InsufficientStorage": "XMinioStorageFull",
}
_BY_STATUS = {"403": "AccessDenied", "301": "PermanentRedirect"}
"""For answers to HEAD, which have no body to name a code in."""
_SAID = _IDENTITY | _PERMANENT | _TEMPORARY
_MISSING = {"NoSuchKey", "NoSuchUpload", "404"}
_REFUSED = {"PreconditionFailed", "412"}

_NO_KEYS = (
    boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError, boto.TokenRetrievalError,
    boto.SSOError,
)  # fmt: skip
_UNSENT = (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError, *_NO_KEYS)
_MISWRITTEN = (
    boto.ProfileNotFound, boto.ConfigParseError, boto.InvalidRegionError, boto.ParamValidationError, boto.NoRegionError,
    boto.InvalidS3AddressingStyleError, boto.UnknownEndpointError, boto.UnsupportedS3ConfigurationError,
)  # fmt: skip


def typed(error: Exception, where: str) -> PipelineError:
    """The typed error of what boto3 raised.

    where: store and server, for the detail; a comma after it keeps its port from looking like a password.
    """
    if isinstance(error, boto.ClientError):
        return _answered(error, where)
    inner = getattr(error, "kwargs", {}).get("error")
    if isinstance(inner, PipelineError):  # raised by what was read while it was sent
        return inner
    detail = f"{where}, {_one_line(error)}"
    if isinstance(error, _NO_KEYS):
        if isinstance(error, boto.CredentialRetrievalError):
            return TemporaryError("the machine's role gives no keys", detail, _KEYS, 5.0)
        return PermanentError("there are no keys for S3 on this host", detail, _KEYS)
    if isinstance(error, _MISWRITTEN):
        return ConfigError("the settings of the bucket are wrong", detail, "correct the table [bucket] of the settings")
    return _unanswered(error, inner, where, detail)


def unsent(error: PipelineError) -> bool:
    """Whether it is sure that the request never reached the server, so that it has done nothing."""
    return isinstance(error.__cause__, _UNSENT)


def about_keys(error: PipelineError) -> bool:
    """Whether other keys, or a clock set right, would help: they are worth being read again."""
    return isinstance(error.__cause__, _NO_KEYS) or code_of(error.__cause__) in _IDENTITY


def about_reach(error: PipelineError) -> bool:
    """Whether no answer came at all."""
    return isinstance(error.__cause__, (boto.HTTPClientError, boto.ConnectionError, ResponseParserError))


def code_of(error: BaseException | None) -> str:
    """The server's code, in Amazon's words; empty where it gave none."""
    if not isinstance(error, boto.ClientError):
        return ""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return _ALIASES.get(code, code)


def _answered(error: Any, where: str) -> PipelineError:
    """The server answered with an error."""
    code, status = code_of(error), int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    told = error.response.get("Error", {})
    asked = getattr(error, "operation_name", "")
    key = f" {told['Key']}" if "Key" in told else ""
    region = f", it lies in {told['Region']}" if "Region" in told else ""
    detail = f"{where}, {asked}{key}: {code}: {_words(told.get('Message', ''))}{region}"
    if code in _MISSING:
        return NotFound("nothing at this key", detail)
    if code in _REFUSED:
        return Exists("the key exists, or has changed", detail)
    said = _SAID.get(_BY_STATUS.get(code, code))
    if said is None and status == 501:
        said = _PERMANENT["NotImplemented"]
    if said is None and (status >= 500 or status == 429 or "Throttl" in code):
        said = Said("the S3 server reports an error of its own", _AGAIN, 1.0)
    if said is None:
        return PermanentError("S3 refuses it", detail, "the server's own words above say why")
    if said.delay is not None:
        return TemporaryError(said.message, detail, said.hint, said.delay)
    return PermanentError(said.message, detail, said.hint)


def _unanswered(error: Exception, inner: object, where: str, detail: str) -> PipelineError:
    """No answer, or half of one."""
    if isinstance(error, boto.EndpointConnectionError):
        if isinstance(inner, socket.gaierror) or "NameResolution" in type(inner).__name__:
            hint = "correct bucket.endpoint, or check that this host finds the name: `getent hosts NAME`"
            return TemporaryError("the name of the S3 server is not known", detail, hint, 2.0)
        hint = "check that the server runs, that bucket.endpoint is right and that the firewall lets this host through"
        return TemporaryError("the S3 server cannot be reached", detail, hint)
    if isinstance(error, (boto.ConnectTimeoutError, boto.ProxyConnectionError)):
        hint = "check that firewall and proxy let this host through; raise bucket.connect_seconds for a slow line"
        return TemporaryError("the S3 server cannot be reached", detail, hint)
    if isinstance(error, boto.SSLError):
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return PermanentError("the S3 server's certificate is not trusted", detail, "set bucket.ca_bundle")
        return TemporaryError(
            "the TLS connection to S3 broke",
            detail,
            "write http:// or https:// in bucket.endpoint as the server needs it",
        )
    if isinstance(error, boto.ReadTimeoutError):
        return TemporaryError(
            "the S3 server stopped answering",
            detail,
            f"{_AGAIN}; if it lasts, the server hangs: see its log, and start it again; for a slow one raise "
            "bucket.read_seconds",
        )
    if isinstance(error, (boto.ChecksumError, boto.FlexibleChecksumError)):
        return TemporaryError("what came from S3 is not what was stored", detail, _AGAIN)
    if isinstance(error, ResponseParserError):
        return TemporaryError(NO_S3[0], detail, NO_S3[1])
    if isinstance(error, (boto.HTTPClientError, boto.IncompleteReadError, boto.ConnectionError)):
        return TemporaryError("the connection to S3 broke", detail, _AGAIN)
    return PermanentError("a request to S3 failed", f"{where}, {type(error).__name__}: {_one_line(error)}", "")


def _words(text: object) -> str:
    return " ".join(str(text).split())[:300]


def _one_line(error: Exception) -> str:
    return _words(error)
