"""What `hathi verify` can find: the closed list, with how bad each is and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal, TypeVar

from pipeline.errors import FormatError, NotFound, PermanentError
from pipeline.ledger.bodies import Body, NewerFormat, body_of

Level = Literal["information", "warning", "damage"]
T = TypeVar("T")
B = TypeVar("B", bound=Body)


@dataclass(frozen=True, slots=True)
class Kind:
    """One thing that can be wrong, or just worth a line."""

    level: Level
    do: str


_INDEX = "stop the daemons and run `hathi verify --repair`, which rebuilds the index from the manifests"
_AGAIN = (
    "ship the snapshot again with `hathi ship --again SHIPMENT`; once that is delivered, stop the daemons and run "
    "`hathi verify --repair`, which takes what it replaces out of the index"
)
_VERSIONS = "restore the object from a copy, or from the store's versions (S3: list-object-versions, copy-object)"
_CLOSE = "`hathi ship --close SHIPMENT` ends its shipment and ships the snapshot again"
_NOTHING = "nothing"

KINDS: dict[str, Kind] = {
    # information: normal, or somebody else's
    "not_ours": Kind("information", "nothing; Hathi leaves it alone; remove it if nobody needs it"),
    "unnamed_data": Kind("information", "nothing; prune deletes it later, unless a manifest names it by then"),
    "being_pruned": Kind("information", "nothing; prune deletes the rest of it"),
    "hint_without_plan": Kind("information", "nothing; prune deletes it"),
    "held": Kind("information", "look at it with `hathi quarantine show`, then release or drop it"),
    "replaced": Kind("information", "nothing; delete what is left of the folder, if you like"),
    "index_pending": Kind("information", "nothing; the next delivery finishes it"),
    # warnings: something to look at; nothing is lost
    "newer": Kind("warning", "upgrade this host (compute boxes before gateways); Hathi leaves it alone until then"),
    "no_hint": Kind(
        "warning",
        "no stage sees the shipment: run `hathi verify --repair`, or wait for the daily prune",
    ),
    "set_unknown": Kind("warning", "the shipment waits: configure the set here, or deliver on a host that has it"),
    "lake_not_seen": Kind("warning", "verify read only the bucket: run it again on a host that reaches the lake"),
    "ledger_missing": Kind("warning", "the delivered folder is whole; find out what deleted objects under `c/`"),
    "data_gone_early": Kind(
        "warning", "no work needs it any more; find out what other than prune deletes objects under `d/`"
    ),
    "dataset_damaged": Kind("warning", "bring it back from a copy, or make it again: `hathi dataset make`"),
    "dataset_left": Kind("warning", "`hathi forget` goes on, and deletes it"),
    "archive_lost": Kind("warning", f"{_VERSIONS}; else nothing: a back-fill fetches these images from their hosts"),
    # damage: something is not as it was written
    "unreadable": Kind("damage", f"{_VERSIONS}; where there is none, delete it: a stage writes it again, or {_CLOSE}"),
    "misnamed": Kind("damage", "restore the plan from the store's versions or a copy; only Hathi may write there"),
    "hop_missing": Kind(
        "damage", f"{_VERSIONS}; where there is none, `hathi verify --repair` writes a plan again, or {_CLOSE}"
    ),
    "law": Kind("damage", "change nothing in the bucket and the lake; this is a bug in Hathi: please report it"),
    "data_missing": Kind("damage", f"{_VERSIONS}; if that is impossible, {_CLOSE}"),
    "data_length": Kind("damage", f"{_VERSIONS}; if that is impossible, {_CLOSE}"),
    "data_hash": Kind("damage", f"{_VERSIONS}; if that is impossible, {_CLOSE}"),
    "model_lost": Kind(
        "damage",
        f"{_VERSIONS}; or promote the same files once more (`hathi promote SET --net FILE --weights FILE`), or "
        "an older promotion (`hathi promote NAME@NUMBER SET`)",
    ),
    "child_differs": Kind(
        "damage", "change nothing in the bucket and the lake; this is a bug in Hathi: please report it"
    ),
    "folder_missing": Kind("damage", f"restore the folder from a copy; if that is impossible, {_AGAIN}"),
    "folder_strange": Kind("damage", f"move the folder away; then restore it from a copy, or {_AGAIN}"),
    "file_missing": Kind("damage", f"restore the file from a copy; if that is impossible, {_AGAIN}"),
    "file_length": Kind("damage", f"restore the file from a copy; if that is impossible, {_AGAIN}"),
    "file_hash": Kind("damage", f"restore the file from a copy; if that is impossible, {_AGAIN}"),
    "success_missing": Kind("damage", "put an empty _SUCCESS back; verify checked the other files as well"),
    "manifest_differs": Kind("damage", "restore _manifest.json from a copy: it is not what Hathi wrote"),
    "index_behind": Kind("damage", _INDEX),
    "index_unreadable": Kind("damage", _INDEX),
    "index_names_nothing": Kind("damage", f"restore the folder from a copy, or {_INDEX}"),
    "index_differs": Kind("damage", _INDEX),
    "index_lacks": Kind("damage", _INDEX),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that verify has to say.  where: a key of the bucket, or a path of the lake."""

    kind: str
    lake: str
    where: str
    what: str

    @property
    def level(self) -> Level:
        return KINDS[self.kind].level

    @property
    def do(self) -> str:
        return KINDS[self.kind].do


Say = Callable[[str, str, str], Finding]
"""(kind, where, what) -> the finding, of the lake in question."""

Looking = Generator[Finding, None, T]
"""Yields what it finds on the way to its value."""


def saying(lake: str) -> Say:
    """Findings of one lake.  Raises KeyError for a kind that is not listed."""

    def say(kind: str, where: str, what: str) -> Finding:
        assert kind in KINDS
        return Finding(kind, lake, where, what)

    return say


def body_at(
    say: Say, get: Callable[[str], bytes], key: str, kind: type[B], damage: str = "unreadable"
) -> Looking[B | None]:
    """The body at a key; None where nothing stands (no finding), or where it cannot be read (one finding)."""
    try:
        return body_of(kind, get(key), key)
    except NotFound:
        return None
    except NewerFormat as error:
        yield say("newer", key, f"a newer Hathi wrote it: {error.detail}")
    except FormatError as error:
        yield say(damage, key, f"{error.message}: {error.detail}")
    except PermanentError as error:
        yield say(damage, key, f"it cannot be read: {error.message} {error.detail}".rstrip())
    except RecursionError:
        yield say(damage, key, "it cannot be read: its JSON is nested too deeply")
    return None
