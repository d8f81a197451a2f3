"""The laws of the archive and of forgetting, over those of shipments."""

from __future__ import annotations

import hashlib
from typing import Any

from pipeline.codec.packs import read_index
from pipeline.codec.reuse_pages import url_digest
from pipeline.ledger.archive import Archived
from pipeline.ledger.deliveries import Index
from pipeline.ledger.forgetting import Forgotten, Request
from pipeline.ledger.layout import ArchivedBatch, Keys, ShipmentName, seconds_of
from pipeline.ledger.manifest import Batch, Plan
from pipeline.records import item_id_of
from tests.simulation.laws import Laws, Violation
from tests.simulation.light import decode, read_lines

KEYS = Keys("shop")
SLACK = 120.0
"""What is planned so many seconds around a request may be of either side: seconds, as plans are put late."""


class ForgetLaws(Laws):
    """Watches packs and requests as well."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.asked: dict[int, Request] = {}
        self.planned: dict[ShipmentName, float] = {}
        """When the first plan of a round was written."""
        self.urls: dict[str, set[tuple[int, int, ShipmentName]]] = {}
        """Whose image each URL is: partner, item, shipment."""
        self.events = 0
        self.pages: dict[str, int] = {}
        """Pages of features that are used again: when each was written, by number of the event."""
        self.done: dict[int, int] = {}
        """Requests that are done: when, by number of the event."""

    def _bucket_changes(self, what: str, key: str, content: bytes) -> None:
        self.events += 1
        if key.startswith(KEYS.reuse):
            if what != "removed":
                self.pages[key] = self.events
        elif key.startswith(KEYS.archive_data):
            if what == "removed":
                self._file_removed(key)
        elif key.startswith(KEYS.archive):
            if what != "removed":
                self._archived(key, content)
        elif key.startswith(KEYS.forget):
            self._asked(what, key, content)
        else:
            super()._bucket_changes(what, key, content)

    def _committed(self, key: str, content: bytes) -> None:
        super()._committed(key, content)
        name = ShipmentName.parse(key.split("/")[2])
        if key.endswith("/plan"):
            self.planned[name] = self.bucket.now()
        elif key.split("/")[3] == "b":
            for ref in decode(self.bucket.files[self.body(Batch, key).data.key][0], 0):
                self.urls.setdefault(ref.url, set()).add((ref.partner_id, ref.item_id, name))

    def _archived(self, key: str, content: bytes) -> None:
        if key in self.history:
            raise Violation(f"written twice: {key}")
        self.history[key] = content
        body = self.body(Archived, key)
        for file in body.files:
            there = self.bucket.files.get(file.key, (b"", 0.0, 0))[0]
            if hashlib.sha256(there).hexdigest() != file.sha256:
                raise Violation(f"{key} names {file.key}, which does not hold its bytes")
            self.named[file.key] = key
        for row in self.rows(body):
            if self.bucket.files[body.pack.key][0][row.offset : row.offset + row.length] != row.url.encode():
                raise Violation(f"{key} has another image for {row.url}")

    def rows(self, body: Archived) -> list[Any]:
        """Those of an index that is there."""
        return read_index(self.bucket.files[body.index.key][0], body.index.key) if body.index is not None else []

    def _file_removed(self, key: str) -> None:
        """A key that counts names files that are there: it goes before them."""
        by = self.named.get(key)
        if by is None or by not in self.bucket.files:
            return
        batch = ArchivedBatch.parse(by.removeprefix(KEYS.archive))
        later = ArchivedBatch(batch.name, batch.batch, batch.number + 1)
        if KEYS.archived(later) not in self.bucket.files:
            raise Violation(f"{key} is deleted, and {by} names it")

    def _asked(self, what: str, key: str, content: bytes) -> None:
        if what == "removed":
            if f"{key}.done" not in self.bucket.files:
                raise Violation(f"a request was deleted that is not done: {key}")
            return
        if key in self.history:
            raise Violation(f"written twice: {key}")
        self.history[key] = content
        if not key.endswith(".done"):
            self.asked[int(key.rpartition("/")[2])] = self.body(Request, key)
        else:
            self.body(Forgotten, key)
            self.done[int(key.rpartition("/")[2].removesuffix(".done"))] = self.events

    def _data_removed(self, key: str) -> None:
        proc = self._running()
        if proc is None or proc.kind != "forget":
            super()._data_removed(key)
            return
        name = ShipmentName.parse(key.split("/")[2])
        self._was_readable(key, name)
        if KEYS.plan(name) in self.bucket.files and not self.closed(name):
            raise Violation(f"data of an open shipment was forgotten: {key}")

    def _index_goes_on(self, root: str, key: str, content: bytes) -> None:
        try:
            super()._index_goes_on(root, key, content)
        except Violation as violation:
            if "is not there" not in str(violation) or not any(
                "/_tmp/" in k and ".forget-" in k for k in self.lake.files
            ):
                raise
            self.indexes[root] = self._index(key, content)  # between the two renames no folder is there

    def _index(self, key: str, content: bytes) -> Index:
        return Index.model_validate_json(content)

    # --- at rest ---

    def planned_of(self, name: ShipmentName) -> float:
        """When its round was planned."""
        plan = self.body(Plan, KEYS.plan(name))
        first = ShipmentName.of(plan.lake, plan.snapshot_digest, plan.set, name.version, name.round, 0, 0)
        return self.planned.get(first, self.planned[name])

    def is_forgotten(self, item: tuple[int, str], name: ShipmentName) -> bool:
        return any(
            request.partner_id == item[0]
            and (not request.items or item_id_of(item[1]) in request.items)
            and self.planned_of(name) <= seconds_of(request.at) + SLACK
            for request in self.asked.values()
        )

    def check_forgotten(self) -> None:
        """Nothing that anybody names has an item that was forgotten, but of what was planned later."""
        for number, request in self.asked.items():
            if KEYS.forgotten(number) not in self.bucket.files:
                raise Violation(f"request {number} stays open")
            self._pages_are_gone(number, request)
            for name in self.names():
                if self.planned_of(name) < seconds_of(request.at) - SLACK:
                    self._is_gone(request, name)

    def _pages_are_gone(self, number: int, request: Request) -> None:
        """No page that was written before the request was done has a feature of it.

        Later ones their writer takes back (tests/unit/test_forget.py), unless it is killed just then.
        """
        only = [
            url_digest(url)
            for url, refs in self.urls.items()
            if all(
                partner == request.partner_id
                and (not request.items or item in request.items)
                and self.planned_of(name) < seconds_of(request.at) - SLACK
                for partner, item, name in refs
            )
        ]
        for key, written in self.pages.items():
            content = self.bucket.files.get(key, (b"", 0.0, 0))[0]
            if written < self.done[number] and any(digest in content for digest in only):
                raise Violation(f"{key} has a feature of an item that was forgotten")

    def _is_gone(self, request: Request, name: ShipmentName) -> None:
        def has(partner: int, item: int) -> bool:
            return partner == request.partner_id and (not request.items or item in request.items)

        for key, (content, _, _) in list(self.lake.files.items()):
            parts = key.split("/")
            delivered = len(parts) == 5 and parts[1] == str(name) and parts[3] in ("features", "failures")
            if delivered and any(has(row[0], row[1]) for row in read_lines(content)):
                raise Violation(f"{key} has an item that was forgotten")
        for key in list(self.bucket.under(f"{KEYS.data}{name}/")):
            refs = decode(self.bucket.files[key][0], 0) if key in self.named and key.endswith(".pb") else []
            if any(has(ref.partner_id, ref.item_id) for ref in refs):
                raise Violation(f"{key} has an item that was forgotten")
        for key in list(self.bucket.under(f"{KEYS.archive}{name}/")):
            body = self.body(Archived, key)
            there = body.index is not None and body.index.key in self.bucket.files
            if there and any(has(row.partner_id, row.item_id) for row in self.rows(body)):
                raise Violation(f"{key} has an item that was forgotten")
