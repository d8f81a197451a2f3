"""The index of a root: its versions follow each other, and it names all that stands there (docs/protocol.md 8)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.amounts import counted
from pipeline.errors import FormatError, NotFound
from pipeline.ledger.bodies import read_body
from pipeline.ledger.deliveries import Delivery, Index, PartnerManifest, Proposal
from pipeline.ledger.layout import MANIFEST, Root, number_of, seconds_of
from pipeline.ledger.manifest import Done
from pipeline.ledger.protocol import Context
from pipeline.operations.verify.finding import Finding, Looking, Say, body_at
from pipeline.stores.store import Lake
from pipeline.times import DAY

SUSPECTS = 1000
"""Folders that wait for a second look at the index, at the most."""


def chain_of(lake: Lake, root: Root) -> int:
    """The greatest version that was ever proposed, of those that prune left; 0 where there is none."""
    prefix = f"{root.proposals}/"
    names = (entry.key.removeprefix(prefix) for entry in lake.list(prefix, folders=True))
    numbers = ((number_of(name, 10), name) for name in names)
    return max((n for n, name in numbers if n is not None and root.proposal(n) == f"{prefix}{name}"), default=0)


def read_if_good(lake: Lake, root: Root) -> Index | None:
    """The index; version 0 where there is none, None where it cannot be read."""
    try:
        return read_body(lake, Index, root.index)
    except NotFound:
        return Index()
    except FormatError:
        return None


@dataclass(frozen=True)
class Lacking:
    """A delivered folder that the index seemed to miss."""

    folder: str
    body: PartnerManifest
    done: Done


class IndexView:
    """The index as it stands now: read again before something is said to be missing, since deliveries go on."""

    def __init__(self, context: Context, lake: Lake, root: Root) -> None:
        self._context = context
        self._lake = lake
        self._root = root
        self._suspects: list[Lacking] = []
        self._unlisted = self._without_files = 0
        self._first_unlisted = self._first_without_files = ""
        self._look()

    def note(self, body: PartnerManifest, done: Done) -> None:
        """A folder that stands there and whose shipment is done."""
        lake_days = self._context.settings.prune.least_lake_days
        if lake_days is not None and _seconds(done.at) < self._now - lake_days * DAY:
            return  # first out of the index, a day later deleted
        one = Lacking(f"{body.shipment}/{body.partner_id}", body, done)
        if self._index is not None and not (self._lists(one) and self._has_files(one)):
            self._suspects.append(one)
            if len(self._suspects) == SUSPECTS:
                self._judge()

    def findings(self, say: Say) -> Iterator[Finding]:
        """What is missing after a second look: one finding for all folders."""
        self._judge()
        if self._unlisted:
            folders = counted(self._unlisted, "delivered folder")
            what = f"its deliveries lack {folders}; the first is {self._first_unlisted}"
            yield say("index_lacks", self._root.index, what)
        if self._without_files:
            what = f"its partners lack files of {counted(self._without_files, 'folder')}; the first is"
            yield say("index_lacks", self._root.index, f"{what} {self._first_without_files}")

    def _look(self) -> None:
        self._now = self._context.bucket.list(self._context.keys.alive_hints).now
        self._index = read_if_good(self._lake, self._root)
        index = self._index or Index()
        self._folders = frozenset(one.folder for one in index.deliveries)
        self._files = {p: (one.jobTimeStamp, frozenset(one.files)) for p, one in index.partners.items()}

    def _judge(self) -> None:
        if not self._suspects:
            return
        self._look()
        suspects, self._suspects = self._suspects, []
        for one in suspects if self._index is not None else ():
            if not self._lists(one):
                self._unlisted += 1
                self._first_unlisted = self._first_unlisted or one.folder
            if not self._has_files(one):
                self._without_files += 1
                self._first_without_files = self._first_without_files or one.folder

    def _lists(self, one: Lacking) -> bool:
        """Entries stay for index_days from when they entered, which may be some time before `done`."""
        days = self._context.settings.deliver.index_days
        recent = _seconds(one.done.at) > self._now - (days - min(1.0, days / 2)) * DAY
        return not recent or one.folder in self._folders

    def _has_files(self, one: Lacking) -> bool:
        stamp, files = self._files.get(str(one.body.partner_id), ("", frozenset()))
        if stamp != one.body.version:
            return stamp > one.body.version
        return all(f"{one.folder}/{file.name}" in files for file in one.body.files)


def _seconds(version: str) -> float:
    try:
        return seconds_of(version)
    except ValueError:
        return 0.0


def index_findings(say: Say, lake: Lake, root: Root) -> Iterator[Finding]:
    """The chain of versions, and everything that the index names."""
    # Proposals first: whoever proposed n had seen version n - 1, so the index that is read afterwards is not older.
    greatest = chain_of(lake, root)
    body = yield from _read(say, lake, root)
    if body is None:
        return
    yield from _chain(say, lake, root, body.version, greatest)
    for one in body.deliveries:
        yield from _delivery(say, lake, root, one)
    yield from _partners(say, lake, root, body)


def _read(say: Say, lake: Lake, root: Root) -> Looking[Index | None]:
    body = yield from body_at(say, lake.get, root.index, Index, "index_unreadable")
    if body is None and lake.stat(root.index) is None:
        return Index()
    return body


def _chain(say: Say, lake: Lake, root: Root, version: int, greatest: int) -> Iterator[Finding]:
    where = root.index
    if version + 1 < greatest:
        text = "the index does not exist" if version == 0 else f"the index has version {version}"
        yield say(
            "index_behind",
            where,
            f"{text}, but Hathi wrote version {greatest}: somebody put an older file back",
        )
    elif version + 1 == greatest:
        path = root.proposal(greatest)
        proposal = yield from body_at(say, lake.get, path, Proposal, "index_unreadable")
        if proposal is None:
            return
        if lake.stat(root.token(proposal.token)) is not None:
            yield say("index_pending", path, f"version {greatest} of the index is proposed and not yet in place")
        else:
            again = read_if_good(lake, root)
            if again is not None and again.version + 1 == greatest:
                what = f"it has version {version}, but Hathi wrote version {greatest}: somebody put an older file back"
                yield say("index_behind", where, what)


def _delivery(say: Say, lake: Lake, root: Root, one: Delivery) -> Iterator[Finding]:
    path = f"{root.root}/{one.folder}"
    try:
        body = read_body(lake, PartnerManifest, f"{path}/{MANIFEST}")
    except NotFound:
        yield say("index_names_nothing", root.index, f"the index lists {one.folder}, and {path} does not exist")
        return
    except FormatError:
        return  # the folder's own turn says so
    if (body.files, body.fingerprint, f"{body.shipment}/{body.partner_id}") != (one.files, one.fingerprint, one.folder):
        yield say("index_differs", root.index, f"the entry {one.folder} differs from the manifest of that folder")


def _partners(say: Say, lake: Lake, root: Root, body: Index) -> Iterator[Finding]:
    for partner, one in body.partners.items():
        size = 0
        missing = []
        for file in one.files:
            found = lake.stat(f"{root.root}/{file}")
            if found is None:
                missing.append(file)
            else:
                size += found.length
        if missing:
            files = counted(len(missing), "file")
            what = f"the index names {files} of partner {partner} that Hathi cannot find; the first is {missing[0]}"
            yield say("index_names_nothing", root.index, what)
        elif size != one.outputSize:
            what = f"outputSize of partner {partner} is {one.outputSize}; its files have {size}"
            yield say("index_differs", root.index, what)
        if one.outputFolder != root.root:
            what = f"outputFolder of partner {partner} is {one.outputFolder}, not the root of the set"
            yield say("index_differs", root.index, what)
