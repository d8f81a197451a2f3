"""A bucket of S3 as a store: the verbs of docs/protocol.md 2.

put_new is PutObject with `If-None-Match: *`.  Every upload carries a checksum that the server verifies (CRC32), and
data objects, the keys under `<lake>/d/`, the configured storage class; manifests stay in STANDARD.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipeline.clock import random_nonce
from pipeline.errors import ConfigError, Exists, NotFound, PermanentError, TemporaryError, Unknown
from pipeline.settings import Bucket
from pipeline.stores.retrying import Retry
from pipeline.stores.s3 import retention
from pipeline.stores.s3.connection import Connection
from pipeline.stores.s3.errors import code_of, unsent
from pipeline.stores.s3.examining import examine
from pipeline.stores.s3.listing import Request
from pipeline.stores.s3.reading import open_object, whole_object
from pipeline.stores.s3.upload import CHECKSUM, Upload, abort_old
from pipeline.stores.store import Examined, Listing

_NO_RULES = {"NoSuchLifecycleConfiguration", "AccessDenied", "NotImplemented", "MethodNotAllowed"}
"""None, not for us to see, or not known to this server."""


class S3Store:
    """Store over `s3://bucket/prefix`; threads may share it."""

    def __init__(self, settings: Bucket, retry: Retry | None = None) -> None:
        """Nothing is asked yet.  Raises ConfigError for a URL without a bucket."""
        self.bucket, _, prefix = settings.url.removeprefix("s3://").partition("/")
        if not self.bucket:
            raise ConfigError("bucket.url names no bucket", settings.url, "write s3://bucket/prefix")
        self.base = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.connection = Connection(settings, retry or Retry(settings.retry_seconds))

    def __repr__(self) -> str:
        return f"S3Store({self.connection.where})"

    def list(self, prefix: str, *, after: str = "", until: str = "", folders: bool = False) -> Listing:
        return Request(self.connection, self.bucket, self.base, prefix, after, until, folders).listing()

    def get(self, key: str, at_most: int | None = None) -> bytes:
        return whole_object(self.connection, self.bucket, self._full(key), at_most)

    def open(self, key: str) -> BinaryIO:
        return cast(BinaryIO, open_object(self.connection, self.bucket, self._full(key)))

    def put(self, key: str, body: bytes | Path) -> None:
        upload = Upload(self.connection, self.bucket, self._full(key), self._more(key))
        if isinstance(body, bytes):
            upload.put(body)
        else:
            upload.send(body, self.connection.settings.multipart_bytes)

    def put_new(self, key: str, body: bytes) -> None:
        place = {"Bucket": self.bucket, "Key": self._full(key), **self._more(key)}

        def once() -> None:
            try:
                self.connection.once("put_object", **place, Body=body, IfNoneMatch="*", ChecksumAlgorithm=CHECKSUM)
            except TemporaryError as error:
                if unsent(error):
                    raise
                raise Unknown(error.message, f"{key}: {error.detail}", error.hint, error.delay) from error

        try:
            self.connection.retry(once)
        except Exists as error:
            raise Exists(f"{key} exists", error.detail) from error

    def delete(self, key: str) -> None:
        with contextlib.suppress(NotFound):
            self.connection.call("delete_object", Bucket=self.bucket, Key=self._full(key))

    def sweep(self, seconds: float) -> int:
        """Uploads in parts of killed writers cost their room until they are aborted."""
        return abort_old(self.connection, self.bucket, self.base, seconds)

    def credentials_end(self) -> float | None:
        return self.connection.credentials_end()

    def forgets(self, prefix: str) -> str:
        try:
            answer = self.connection.call("get_bucket_lifecycle_configuration", Bucket=self.bucket)
        except PermanentError as error:
            if code_of(error.__cause__) in _NO_RULES:
                return ""
            raise
        return retention.in_words(answer.get("Rules", ()), self.base + prefix)

    def examine(self, scratch: str) -> Iterator[Examined]:
        """Each step is tried once: who looks does not want to wait."""
        impatient = S3Store(self.connection.settings)
        impatient.connection = replace(self.connection, retry=Retry(0.0))
        key = f"{scratch}examined-{random_nonce()}"
        yield from examine(impatient, key)

    def _full(self, key: str) -> str:
        if key.startswith("/") or ".." in key.split("/"):
            raise PermanentError(f"not a key of this store: {key}", "", "keys are relative and hold no `..`")
        return self.base + key

    def _more(self, key: str) -> dict[str, Any]:
        """What an object is written with beside its content."""
        settings = self.connection.settings
        more: dict[str, Any] = {}
        if settings.encryption is not None:
            more["ServerSideEncryption"] = settings.encryption
            if settings.encryption == "aws:kms" and settings.kms_key is not None:
                more["SSEKMSKeyId"] = settings.kms_key
        if settings.storage_class is not None and key.split("/")[1:2] == ["d"]:
            more["StorageClass"] = settings.storage_class
        return more
