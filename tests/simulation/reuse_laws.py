"""What must never be seen of features that are used again: docs/protocol.md 19."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from pipeline.codec.reuse_pages import PageIndex
from pipeline.errors import FormatError
from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.manifest import Batch, Result
from pipeline.settings import Settings
from tests.simulation.laws import KEYS, Laws, Violation
from tests.simulation.light import decode, read_lines
from tests.simulation.memory import Disk
from tests.simulation.scheduler import Proc
from tests.simulation.world import Hosts, feature


def salt_of(fingerprint: str) -> bytes:
    """What features depend on beside the image."""
    return f"{fingerprint[:12]} ".encode()


class ReuseLaws(Laws):
    """The laws of shipments, and over them: a feature is of the image as it stood after its batch was shipped, and of
    its own fingerprint; a page tells of results that stand, and of data that is there."""

    def __init__(
        self, bucket: Disk, lake: Disk, settings: Settings, running: Callable[[], Proc | None], hosts: Hosts
    ) -> None:
        super().__init__(bucket, lake, settings, running)
        self._hosts = hosts
        self._oldest: dict[str, dict[str, int]] = {}
        """By key of a batch: the revision of each image when the batch was shipped."""
        self.reused = 0

    def _bucket_changes(self, what: str, key: str, content: bytes) -> None:
        if key.startswith(KEYS.reuse):
            if what != "removed" and key.startswith(f"{KEYS.reuse}i/"):
                self._tells_of_what_stands(key, content)
            return
        super()._bucket_changes(what, key, content)

    def _tells_of_what_stands(self, key: str, content: bytes) -> None:
        try:
            index = PageIndex.decode(content, key)
        except FormatError as error:
            raise Violation(f"a page cannot be read: {error}") from error
        data = self.bucket.files.get(key.replace("/u/i/", "/u/d/"), (b"", 0.0, 0))[0]
        if len(data) != int(index.ends[-1]):
            raise Violation(f"{key} tells of data that is not there")
        for one in index.results:
            result = self.body(Result, one)
            if result is None or result.kind != "shard" or result.fingerprint != index.fingerprint:
                raise Violation(f"{key} remembers {one}, which does not stand")

    def _committed(self, key: str, content: bytes) -> None:
        super()._committed(key, content)
        name = ShipmentName.parse(key.split("/")[2])
        rest = key.split("/", 3)[3]
        if rest.startswith("b/"):
            refs = decode(self.bucket.files[self.body(Batch, key).data.key][0], 0)
            self._oldest[key] = {ref.url: self._hosts.revisions.get(ref.url, 0) for ref in refs}
        elif "/r/" in rest:
            self._is_right(key, name, int(rest[-5:]))

    def _is_right(self, key: str, name: ShipmentName, number: int) -> None:
        result = self.body(Result, key)
        if result.features_file is None:
            return
        self.reused += result.not_modified + result.equal_bytes
        oldest = self._oldest[KEYS.batch(name, number)]
        for row in read_lines(self.bucket.files[result.features_file.key][0]):
            url, values = row[4], row[5]
            revisions = range(oldest[url], self._hosts.revisions.get(url, 0) + 1)
            if not any(self._are(values, result.fingerprint, url, one) for one in revisions):
                raise Violation(f"{key} has a feature of {url} that its image does not have: {json.dumps(values)}")

    def _are(self, values: list[float], fingerprint: str, url: str, revision: int) -> bool:
        wanted = feature(salt_of(fingerprint) + self._hosts.image(url, revision))
        return bool(np.allclose(values, wanted, atol=2e-6))
