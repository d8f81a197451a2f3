"""Keys of a bucket by pages of 1,000 (ListObjectsV2), one page in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from pipeline.errors import PermanentError
from pipeline.stores.s3.connection import Connection
from pipeline.stores.store import Entry, Listing


@dataclass(frozen=True)
class Request:
    """One listing.  base: the store's own prefix within the bucket, which keys are told without."""

    connection: Connection
    bucket: str
    base: str
    prefix: str
    after: str = ""
    until: str = ""
    folders: bool = False

    def listing(self) -> Listing:
        """The first page is asked for at once, for its time; the others as they are needed."""
        first = self._page("")
        return Listing(time_of(first), self._entries(first))

    def _page(self, token: str) -> dict[str, Any]:
        more: dict[str, str] = {}
        if token:
            more["ContinuationToken"] = token
        elif self.after:
            more["StartAfter"] = self.base + self.after
        if self.folders:
            more["Delimiter"] = "/"
        return self.connection.call("list_objects_v2", Bucket=self.bucket, Prefix=self.base + self.prefix, **more)

    def _entries(self, page: dict[str, Any]) -> Iterator[Entry]:
        while True:
            for entry in self._in_order(page):
                if self.until and entry.key > self.until:
                    return
                if entry.key > self.after:  # a folder that begins before `after` is listed for what lies behind it
                    yield entry
            if not page.get("IsTruncated"):
                return
            page = self._page(page["NextContinuationToken"])

    def _in_order(self, page: dict[str, Any]) -> list[Entry]:
        """Keys and folders of one page as one; code points order as their bytes in UTF-8 do."""
        cut = len(self.base)
        entries = [
            Entry(found["Key"][cut:], found["Size"], found["LastModified"].timestamp())
            for found in page.get("Contents", ())
        ]
        entries += [Entry(found["Prefix"][cut:], 0, 0.0) for found in page.get("CommonPrefixes", ())]
        return sorted(entries, key=lambda entry: entry.key) if self.folders else entries


def time_of(answer: dict[str, Any]) -> float:
    """The server's own time when it answered, seconds since 1970.  Raises PermanentError when it does not say."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    if date is None:
        raise PermanentError(
            "the S3 server does not say its time", "an answer without Date", "use a server that sends Date headers"
        )
    return parsedate_to_datetime(date).timestamp()
