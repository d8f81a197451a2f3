"""A local file as an object: in one request, or in parts that the server checks one by one."""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import NotFound, PermanentError, PipelineError, TemporaryError
from pipeline.stores.s3.connection import Connection
from pipeline.stores.s3.listing import time_of

CHECKSUM = "CRC32"
MOST_PARTS = 10_000
_SMALL = 1 << 20
"""Smaller files are read at once, which costs less than to send them by pieces."""


@dataclass(frozen=True)
class Upload:
    """Where a file goes.  more: encryption and storage class, in the words of the API."""

    connection: Connection
    bucket: str
    key: str
    more: dict[str, Any]

    def send(self, path: Path, part_bytes: int) -> None:
        """The whole file; with more than `part_bytes` in parts.  In memory is never more than a few blocks of it."""
        size = path.stat().st_size
        if size > part_bytes:
            self._in_parts(path, size, max(part_bytes, -(-size // MOST_PARTS)))
        elif size <= _SMALL:
            self.put(path.read_bytes())
        else:
            self.connection.retry(lambda: self._put_slice(path, size))

    def put(self, body: bytes) -> None:
        self.connection.call("put_object", **self._place, Body=body, ChecksumAlgorithm=CHECKSUM, **self.more)

    @property
    def _place(self) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.key}

    def _put_slice(self, path: Path, size: int) -> None:
        with Slice(path, 0, size) as body:
            self.connection.once("put_object", **self._place, Body=body, ChecksumAlgorithm=CHECKSUM, **self.more)

    def _in_parts(self, path: Path, size: int, part_bytes: int) -> None:
        opened = self.connection.call("create_multipart_upload", **self._place, ChecksumAlgorithm=CHECKSUM, **self.more)
        upload = {**self._place, "UploadId": opened["UploadId"]}
        try:
            parts = [
                self._part(upload, number, path, start, min(part_bytes, size - start))
                for number, start in enumerate(range(0, size, part_bytes), start=1)
            ]
            self._complete(upload, parts, size)
        except BaseException:
            with contextlib.suppress(PipelineError):  # what stays is aborted by `sweep`
                self.connection.once("abort_multipart_upload", **upload)
            raise

    def _part(self, upload: dict[str, str], number: int, path: Path, start: int, length: int) -> dict[str, Any]:
        def once() -> dict[str, Any]:
            with Slice(path, start, length) as body:
                return self.connection.once(
                    "upload_part", **upload, PartNumber=number, Body=body, ChecksumAlgorithm=CHECKSUM
                )

        answer = self.connection.retry(once)
        checksum = f"Checksum{CHECKSUM}"
        told = {checksum: answer[checksum]} if checksum in answer else {}
        return {"PartNumber": number, "ETag": answer["ETag"], **told}

    def _complete(self, upload: dict[str, str], parts: list[dict[str, Any]], size: int) -> None:
        """Asked again after a lost answer the server knows the upload no more: then the object tells."""
        try:
            self.connection.call("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})
        except NotFound as gone:
            found = self.connection.call("head_object", **self._place)
            if found["ContentLength"] != size or not found["ETag"].strip('"').endswith(f"-{len(parts)}"):
                raise TemporaryError(
                    "an upload was lost", f"{self.key}: {gone.detail}", "Hathi tries it again"
                ) from gone


class Slice(io.RawIOBase):
    """A part of a file as a stream of its own."""

    def __init__(self, path: Path, start: int, length: int) -> None:
        super().__init__()
        self._path, self._start, self._length = path, start, length
        self._position = 0
        self._file = path.open("rb", buffering=0)

    def __len__(self) -> int:
        return self._length

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence] + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Raises PermanentError where the file has become shorter."""
        left = self._length - self._position
        wanted = left if size is None or size < 0 else min(size, left)
        content = os.pread(self._file.fileno(), wanted, self._start + self._position)
        if len(content) < wanted and not content:
            raise PermanentError(f"a file became shorter while it was sent: {self._path}")
        self._position += len(content)
        return content

    def close(self) -> None:
        self._file.close()
        super().close()


def abort_old(connection: Connection, bucket: str, prefix: str, seconds: float) -> int:
    """Abort the uploads in parts that began so long ago, by the server's clock; how many."""
    number = 0
    markers: dict[str, str] = {}
    while True:
        page = connection.call("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **markers)
        before = time_of(page) - seconds
        for found in page.get("Uploads", ()):
            if found["Initiated"].timestamp() < before and found["Key"].startswith(prefix):
                with contextlib.suppress(NotFound):  # its writer lives, and has just ended it
                    connection.call(
                        "abort_multipart_upload", Bucket=bucket, Key=found["Key"], UploadId=found["UploadId"]
                    )
                    number += 1
        if not page.get("IsTruncated"):
            return number
        markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
