"""What was computed is found again, so that it is neither fetched nor computed twice (docs/protocol.md 19).

Features of committed results go into pages of the bucket, by fingerprint and scope; whoever opens a batch looks for its
URLs there.  Pages are an aid: one that is lost, late, damaged or doubled costs a fetch and decides nothing, since a
feature is used again only where the host says that its image is the same, or the image itself is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from pipeline.codec.reuse_pages import Digests, PageIndex, Remembered, decode, digests_of, encode, url_digest
from pipeline.codec.shards import FeatureRow, Matrix
from pipeline.errors import NotFound, PipelineError, Stopped
from pipeline.ledger.forgetting import done_requests
from pipeline.ledger.layout import MIXED, ShipmentName, scope_of
from pipeline.ledger.protocol import Context
from pipeline.records import ImageRef
from pipeline.times import DAY

OWN_SCOPE = 64
"""Refs of a partner in a batch from which on its features lie in a scope of their own; else in one with others'."""
PAGE_ROWS, PAGE_BYTES = 4096, 32 * 2**20
"""A page is written when it has so many rows, or bytes of records; and at the end."""
MOST_PAGES = 256
"""Pages that a batch reads from, those with the most of its refs: where each row is elsewhere than it was, asking for
every one of them would take longer than computing."""
MOST_INDEX = 128 * 2**20
"""Bytes of indexes that a process holds, of a scope the newest: 8 million refs.  The scope that was asked for last
stays, and of the others those that have room beside it."""
_INDEX_BYTES = 2**26
MOST_TEXT = 600
"""Letters of a tag or a time: nobody asks with a longer one."""
_GAP = 2**18
"""Bytes between two records that are read rather than asked anew for."""


@dataclass(eq=False)
class Scope:
    """The pages of one scope, as a process knows them; sorted by digest, of each URL the newest."""

    indexes: dict[str, PageIndex | None] = field(default_factory=dict)
    """By name; None for one that cannot be used."""
    modified: dict[str, float] = field(default_factory=dict)
    size: int = 0
    """Bytes of the indexes."""
    names: list[str] = field(default_factory=list)
    digests: Digests = field(default_factory=lambda: np.zeros(0, np.uint64))
    pages: npt.NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    """By digest: the place of its page in `names`."""
    rows: npt.NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))

    def sort(self) -> None:
        """Take up what `indexes` holds."""
        self.names = [name for name, index in sorted(self.indexes.items()) if index is not None]
        some = [index for name in self.names if (index := self.indexes[name]) is not None]
        digests = np.concatenate([np.zeros(0, np.uint64), *(one.digests for one in some)])
        sizes = [len(one.digests) for one in some]
        pages = np.repeat(np.arange(len(some), dtype=np.uint32), sizes)
        rows = np.concatenate([np.zeros(0, np.uint32), *(np.arange(size, dtype=np.uint32) for size in sizes)])
        order = np.argsort(digests, kind="stable")  # of equal ones the newest page comes last
        digests = digests[order]
        last = np.append(digests[1:] != digests[:-1], True)[: len(digests)]
        self.digests, self.pages, self.rows = digests[last], pages[order][last], rows[order][last]

    def find(self, wanted: Digests) -> Iterator[tuple[int, str, int, int]]:
        """(place in wanted, page, begin and end of the record) of each that is remembered."""
        places = np.searchsorted(self.digests, wanted)
        inside = np.flatnonzero(places < len(self.digests))
        found = inside[self.digests[places[inside]] == wanted[inside]]
        for at in found.tolist():
            place = places[at]
            name, row = self.names[self.pages[place]], int(self.rows[place])
            index = self.indexes[name]
            assert index is not None
            yield at, name, int(index.ends[row - 1]) if row else 0, int(index.ends[row])


@dataclass
class _Pending:
    """A page that is not written yet."""

    records: list[bytes] = field(default_factory=list)
    urls: list[bytes] = field(default_factory=list)
    results: set[str] = field(default_factory=set)
    newest: ShipmentName | None = None
    size: int = 0


@dataclass(frozen=True)
class _Open:
    """What is known of a batch while it is open."""

    scopes: Mapping[int, str]
    """By partner."""
    young: Mapping[bytes, tuple[bytes, str | None, str | None]]
    """By URL: resource, tag and time of what is remembered in a page that stays for long; it need not be written."""


class Reuse:
    """One set's features, found again and remembered, for as long as one call of `perform` takes."""

    def __init__(self, context: Context, fingerprint: str, engine: str) -> None:
        self._context = context
        self._fingerprint = fingerprint
        self._engine = engine
        self._listed: set[str] = set()
        self._open: dict[tuple[ShipmentName, int], _Open] = {}
        self._pending: dict[str, _Pending] = {}
        self._now = 0.0
        """The bucket's time when it was listed last."""
        self._done: frozenset[int] | None = None
        """Requests to forget that were done when the first feature that is pending was remembered, or before."""

    def opened(self, name: ShipmentName, batch: int, refs: Sequence[ImageRef], look: bool) -> dict[int, Remembered]:
        """What is remembered of a batch's refs, by their place.  look: whether to look for it."""
        scopes = scopes_of(ref.partner_id for ref in refs if _has_url(ref))
        found: dict[int, Remembered] = {}
        young: dict[bytes, tuple[bytes, str | None, str | None]] = {}
        if look:
            for place, one, stays in self._found(refs, scopes):
                found[place] = one
                if stays:
                    young[one.url] = (one.resource, one.etag, one.last_modified)
        self._open[name, batch] = _Open(scopes, young)
        return found

    def committed(self, key: str, name: ShipmentName, batch: int, rows: Sequence[FeatureRow], matrix: Matrix) -> None:
        """Remember the features of a result that stands under this key, and is ours."""
        known = self._open.pop((name, batch), None)
        if known is None:
            return
        for at, row in enumerate(rows):
            if not row.url or len(row.resource) != 32:
                continue  # its image came with it, or was computed alone
            url = url_digest(row.url)
            if row.reused and known.young.get(url) == (row.resource, row.etag, row.last_modified):
                continue
            if self._done is None:
                self._done = self._forgotten()
            if self._done is None:
                return  # nobody can say whose feature may stay
            scope = known.scopes.get(row.partner_id, MIXED)
            page = self._pending.setdefault(scope, _Pending())
            record = encode(_remembered(url, row, matrix[at]))
            page.records.append(record)
            page.urls.append(url)
            page.size += len(record)
            page.results.add(key)
            page.newest = max(name, page.newest or name)
            if len(page.urls) >= PAGE_ROWS or page.size >= PAGE_BYTES:
                self._write(scope)

    def dropped(self, name: ShipmentName, batch: int) -> None:
        """Nothing of ours stands for this batch."""
        self._open.pop((name, batch), None)

    def write(self) -> None:
        """What is left to be remembered."""
        for scope in list(self._pending):
            self._write(scope)

    def _write(self, scope: str) -> None:
        """The data, then the index that tells of it; what a store refuses is said, and forgotten.

        Where somebody was forgotten meanwhile, a pending feature can be theirs: all of them go, and what was written.
        """
        page = self._pending.pop(scope)
        context, keys = self._context, self._context.keys
        assert page.newest is not None
        name = f"{page.newest}.{context.process.nonce()}"
        ends = np.cumsum([len(record) for record in page.records]).astype(np.uint64)
        results = tuple(sorted(page.results))
        index = PageIndex(self._fingerprint, self._engine, results, digests_of(page.urls), ends)
        try:
            files = (keys.reuse_data(self._fingerprint, scope, name), keys.reuse_index(self._fingerprint, scope, name))
            context.bucket.put(files[0], b"".join(page.records))
            context.bucket.put(files[1], index.encode())
            done = self._forgotten()
            if done != self._done:
                self._pending.clear()
                self._done = done
                for key in reversed(files):
                    context.bucket.delete(key)
        except Stopped:
            raise
        except PipelineError as error:
            self._said("write", error)

    def _forgotten(self) -> frozenset[int] | None:
        """Requests to forget that are done; None where the store does not say."""
        try:
            return done_requests(self._context)
        except Stopped:
            raise
        except PipelineError as error:
            self._said("forget", error)
            return None

    # --- what is remembered ---

    def _found(self, refs: Sequence[ImageRef], scopes: Mapping[int, str]) -> Iterator[tuple[int, Remembered, bool]]:
        """(place, what is remembered, whether its page stays for long) of each ref that is."""
        by_scope: dict[str, list[int]] = {}
        for place, ref in enumerate(refs):
            if _has_url(ref):
                by_scope.setdefault(scopes[ref.partner_id], []).append(place)
        for scope, places in by_scope.items():
            known = self._scope(scope)
            urls = [url_digest(refs[place].url) for place in places]
            wanted: dict[str, list[tuple[int, int, int]]] = {}
            for at, page, begin, end in known.find(digests_of(urls)):
                wanted.setdefault(page, []).append((begin, end, at))
            most = sorted(wanted, key=lambda page: len(wanted[page]), reverse=True)[:MOST_PAGES]
            stays = self._now - self._context.settings.prune.reuse_days * DAY / 2
            for page in most:
                for at, one in self._read(self._context.keys.reuse_data(self._fingerprint, scope, page), wanted[page]):
                    if one.url == urls[at]:
                        yield places[at], one, known.modified.get(page, 0.0) > stays

    def _scope(self, scope: str) -> Scope:
        """Its pages; listed once."""
        prefix = self._context.keys.reuse_index(self._fingerprint, scope, "")
        known = self._context.kept.pop(prefix, None)
        if not isinstance(known, Scope):
            known = Scope()
        self._context.kept[prefix] = known  # the one that was asked for last stands last
        if prefix not in self._listed:
            self._listed.add(prefix)
            try:
                self._list(prefix, known)
            except Stopped:
                raise
            except PipelineError as error:
                self._said("list", error)
            self._let_go()
        return known

    def _let_go(self) -> None:
        """Scopes that nobody has asked for the longest, where all of them are too much."""
        scopes = {prefix: one for prefix, one in self._context.kept.items() if isinstance(one, Scope)}
        size = sum(one.size for one in scopes.values())
        for prefix in list(scopes)[:-1]:
            if size <= MOST_INDEX:
                return
            size -= scopes[prefix].size
            del self._context.kept[prefix]
            self._listed.discard(prefix)

    def _list(self, prefix: str, known: Scope) -> None:
        listing = self._context.bucket.list(prefix)
        self._now = listing.now
        entries = {entry.key.removeprefix(prefix): entry for entry in listing}
        room, kept = MOST_INDEX, set()
        for name in sorted(entries, reverse=True):
            room -= entries[name].size
            if room < 0:
                break
            kept.add(name)
        new = kept - known.indexes.keys()
        if new or known.indexes.keys() - kept:
            for name in known.indexes.keys() - kept:
                del known.indexes[name]
            for name in sorted(new):
                self._context.safe_point()
                known.indexes[name] = self._index(prefix + name)
            known.sort()
        known.modified = {name: entries[name].modified for name in kept}
        known.size = sum(entries[name].size for name in kept)

    def _index(self, key: str) -> PageIndex | None:
        try:
            index = PageIndex.decode(self._context.bucket.get(key, _INDEX_BYTES), key)
        except NotFound:
            return None
        except Stopped:
            raise
        except PipelineError as error:
            self._said(key, error)
            return None
        return index if (index.fingerprint, index.engine) == (self._fingerprint, self._engine) else None

    def _read(self, key: str, wanted: list[tuple[int, int, int]]) -> Iterator[tuple[int, Remembered]]:
        """Records of one page, in the order in which they lie there."""
        try:
            with self._context.bucket.open(key) as stream:
                yield from _records(stream, key, sorted(wanted))
        except NotFound:
            return  # pruned
        except Stopped:
            raise
        except PipelineError as error:
            self._said(key, error)

    def _said(self, what: str, error: PipelineError) -> None:
        self._context.once(f"reuse {what}", f"What was computed before is not all found again: {error}")


def scopes_of(partners: Iterable[int]) -> dict[int, str]:
    """Where the features of each partner of a batch lie."""
    return {
        partner: scope_of(partner) if number >= OWN_SCOPE else MIXED for partner, number in Counter(partners).items()
    }


def _has_url(ref: ImageRef) -> bool:
    return bool(ref.url) and not ref.content


def _records(stream: BinaryIO, key: str, wanted: Sequence[tuple[int, int, int]]) -> Iterator[tuple[int, Remembered]]:
    at = 0
    last: Remembered | None = None
    known = (-1, -1)
    for begin, end, place in wanted:
        if (begin, end) != known or last is None:
            if begin - at > _GAP:
                stream.seek(begin)
            else:
                stream.read(begin - at)
            last, known, at = decode(stream.read(end - begin), key), (begin, end), end
        yield place, last


def _remembered(url: bytes, row: FeatureRow, vector: Matrix) -> Remembered:
    values = vector if row.image is None else bytes(row.image)
    etag, last_modified = _asked_with(row.etag), _asked_with(row.last_modified)
    return Remembered(url, row.resource, row.content_sha256, row.fetched_at, etag, last_modified, row.damage, values)


def _asked_with(text: str | None) -> str | None:
    """What a host said, where it is short enough to ask with."""
    return text if text is not None and len(text) <= MOST_TEXT else None
