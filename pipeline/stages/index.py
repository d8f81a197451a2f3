"""The index `outputByPartner`, with several writers (docs/protocol.md 8).

The index is one JSON file that consumers read, and the only thing on the lake that is ever replaced.  HDFS has no
compare-and-swap, so a writer proposes: it writes the whole new index, of version v+1, under a unique name (the token),
and then puts a small file `_index/<v+1>` that names the token, with a rename that fails where a file stands.  The first
proposal of a version wins.  Whoever meets a proposal, its writer or another one, renames the token it names over the
index.  So every version is written once, whole, and by one rename, and a writer who sleeps in the middle of it
finds his work finished by others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import NotFound, PipelineError, Unknown
from pipeline.ledger.bodies import read_body
from pipeline.ledger.commit import rename_first
from pipeline.ledger.deliveries import Delivery, Index, IndexCurrent, IndexPartner, Proposal
from pipeline.ledger.layout import Root, seconds_of
from pipeline.ledger.protocol import Context
from pipeline.stores.store import Lake
from pipeline.times import DAY, HOUR

STUCK_ROUNDS = 3
FRESH = 60.0
"""What was read so many seconds ago is proposed from: an older index has likely got another version."""


class IndexStuck(PipelineError):
    """The index does not move although a proposal stands: somebody has to look."""


def read_index(lake: Lake, root: Root) -> Index:
    """The index as it stands; version 0 where there is none.  Raises FormatError when it is not ours."""
    try:
        return read_body(lake, Index, root.index)
    except NotFound:
        return Index()


@dataclass(frozen=True)
class Read:
    """The index of a root and the proposal behind it, as they were read."""

    index: Index
    proposal: Proposal | None
    began: float
    """When reading began, in monotonic seconds of this process."""


def look(context: Context, root: Root) -> Read:
    """Read both.  Raises FormatError where one of them cannot be read: nothing enters the index then."""
    assert context.lake is not None
    began = context.process.clock.monotonic()
    index = read_index(context.lake, root)
    return Read(index, _proposal(context.lake, root, index.version + 1), began)


def missing(index: Index, deliveries: Iterable[Delivery]) -> list[Delivery]:
    """Those whose folder is not listed."""
    listed = {delivery.folder for delivery in index.deliveries}
    return [one for one in deliveries if one.folder not in listed]


def next_index(index: Index, deliveries: Sequence[Delivery], root: str, now: str, days: float) -> Index:
    """The index with more deliveries, one version on.  now: the time of entry; days: how long entries stay."""
    listed = {delivery.folder for delivery in index.deliveries}
    entered = [one.model_copy(update={"delivered": now}) for one in deliveries if one.folder not in listed]
    oldest = seconds_of(now) - days * DAY
    kept = [one for one in index.deliveries if seconds_of(one.delivered) >= oldest]
    partners = dict(index.partners)
    for one in entered:
        key = str(one.partner_id)
        partners[key] = _partner(partners.get(key), one, root)
    return Index(
        version=index.version + 1,
        partners=dict(sorted(partners.items(), key=lambda pair: int(pair[0]))),
        deliveries=(*kept, *entered),
        current=index.current,
    )


def _partner(known: IndexPartner | None, one: Delivery, root: str) -> IndexPartner:
    """The files of all parts of the newest version; an older version changes nothing."""
    files = tuple(f"{one.folder}/{file.name}" for file in one.files)
    size = sum(file.size for file in one.files)
    if known is not None and known.jobTimeStamp > one.jobTimeStamp:
        return known
    if known is not None and known.jobTimeStamp == one.jobTimeStamp:
        merged = tuple(sorted({*known.files, *files}))
        return IndexPartner(
            jobTimeStamp=one.jobTimeStamp, outputFolder=root, files=merged, outputSize=known.outputSize + size
        )
    return IndexPartner(jobTimeStamp=one.jobTimeStamp, outputFolder=root, files=tuple(sorted(files)), outputSize=size)


def enter(
    context: Context, root: Root, deliveries: Mapping[str, Sequence[Delivery]], now: str, seen: Read | None = None
) -> Index:
    """Enter deliveries into the index of a root; the index that lists them.

    deliveries: of each shipment, by the key of its `done`: one that is done was in the index once, and its days are
    over where it is not any more.  now: the store's time.  seen: what was read just before, so as not to read it twice.
    Raises IndexStuck when three rounds find the same version behind a proposal.
    """

    def grown(index: Index) -> Index | None:
        wanted = _still_to_enter(context, index, deliveries)
        days = context.settings.deliver.index_days
        return next_index(index, wanted, root.root, now, days) if wanted else None

    return change(context, root, grown, seen)


def point(context: Context, root: Root, tables: Mapping[str, IndexCurrent]) -> Index:
    """Name partners' compacted tables in the index of a root, each unless a later one is named.  Raises as `enter`."""

    def pointed(index: Index) -> Index | None:
        later = {
            partner: one
            for partner, one in tables.items()
            if partner not in index.current or index.current[partner].number < one.number
        }
        if not later:
            return None
        current = dict(sorted({**index.current, **later}.items(), key=lambda pair: int(pair[0])))
        return index.model_copy(update={"version": index.version + 1, "current": current})

    return change(context, root, pointed)


def change(context: Context, root: Root, changed: Callable[[Index], Index | None], seen: Read | None = None) -> Index:
    """Bring the index of a root from version to version until there is nothing to change; the index that stands then.

    changed: the next version of an index, or None where it is as wanted.  seen: what was read just before; where
    others have written meanwhile, its proposal does not win, as with any writer who comes late.  Raises IndexStuck.
    """
    lake = context.lake
    assert lake is not None
    clock = context.process.clock
    last, rounds = -1, 0
    while True:
        context.safe_point()
        read = look(context, root) if seen is None or clock.monotonic() - seen.began > FRESH else seen
        seen = None
        index, proposal = read.index, read.proposal
        rounds = rounds + 1 if index.version == last else 1
        last = index.version
        if proposal is not None:
            if rounds > STUCK_ROUNDS:
                raise IndexStuck(
                    f"the index {root.index} stays at version {index.version}: "
                    "Hathi cannot put the next version in its place",
                    f"proposal {root.proposal(index.version + 1)} names {proposal.token}, which cannot be moved",
                    "stop the daemons and run `hathi verify --repair`",
                )
            _finish(lake, root, proposal)
            continue
        wanted = changed(index)
        if wanted is None:
            return index
        if clock.monotonic() - read.began > HOUR:
            continue  # this process was frozen: what it has read is too old to propose from
        _propose(context, lake, root, wanted)


def _still_to_enter(context: Context, index: Index, deliveries: Mapping[str, Sequence[Delivery]]) -> list[Delivery]:
    found: list[Delivery] = []
    for key, mine in deliveries.items():
        left = missing(index, mine)
        if left and not _is_done(context, key):
            found += left
    return found


def _is_done(context: Context, done_key: str) -> bool:
    try:
        context.bucket.get(done_key)
    except NotFound:
        return False
    return True


def _proposal(lake: Lake, root: Root, version: int) -> Proposal | None:
    path = root.proposal(version)
    try:
        return read_body(lake, Proposal, path)
    except NotFound:
        return None


def _finish(lake: Lake, root: Root, proposal: Proposal) -> None:
    """Whoever sees a proposal completes it; a missing token means that somebody did."""
    try:
        lake.rename_over(f"{root.proposals}/tokens/{proposal.token}", root.index)
    except (NotFound, Unknown):
        return


def _propose(context: Context, lake: Lake, root: Root, index: Index) -> None:
    token = context.process.nonce()
    body = index.model_copy(update={"nonce": token})
    lake.put(root.token(token), body.encode())
    small = f"{root.token(token)}.proposal"
    lake.put(small, Proposal(token=token, nonce=token).encode())
    rename_first(lake, small, root.proposal(index.version))
    stands = _proposal(lake, root, index.version)
    if stands is not None and stands.token != token:
        lake.delete(root.token(token))
        lake.delete(small)
