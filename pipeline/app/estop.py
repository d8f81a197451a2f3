"""ESTOP: where it stands, and how a person engages it and takes it back.

It stands in two places.  The file in a state folder stops what uses that folder, within a second.  The object in the
bucket, one for each lake, stops every host at its next poll or beat: for hosts that share no disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.ledger.protocol import Context, beats
from pipeline.process.lock import ESTOP, estop_since
from pipeline.stores.store import Examined
from pipeline.times import readable_time


@dataclass(frozen=True)
class Standing:
    """An ESTOP that stands.  place: the file, or the object with its bucket.  since: seconds since 1970."""

    place: str
    since: float
    remote: bool


def standing_here(state: Path) -> list[Standing]:
    """That of this host, if it stands."""
    since = estop_since(state)
    return [] if since is None else [Standing(str(state / ESTOP), since, remote=False)]


def standing_remote(contexts: Sequence[Context]) -> list[Standing]:
    """Those in the bucket.  One request for each lake; raises what the bucket raises."""
    found = [(context, beats(context, 0.0).estop) for context in contexts]
    return [Standing(_place(context), since, remote=True) for context, since in found if since is not None]


def examined(state: Path, contexts: Callable[[], Sequence[Context]]) -> Iterator[Examined]:
    """What `hathi doctor` says of both places.  contexts: one for each lake; it may raise what the bucket raises."""
    here = standing_here(state)
    for one in here:
        said = f"ESTOP is engaged since {readable_time(one.since)}: nothing starts on this host"
        yield Examined("ESTOP", False, said, f"remove {one.place}, then start the programs again")
    if not here:
        yield Examined("ESTOP", True, "not engaged on this host")
    try:
        lakes = contexts()
        remote = standing_remote(lakes)
    except PipelineError as error:
        said = f"it cannot be seen whether ESTOP stands in the bucket: {error.message}"
        yield Examined("ESTOP", False, said, error.hint)
        return
    for one in remote:
        said = f"ESTOP is engaged in the bucket since {readable_time(one.since)}: nothing starts on any host"
        yield Examined("ESTOP", False, said, f"`hathi start --remote` deletes {one.place}; then start the programs")
    if lakes and not remote:
        yield Examined("ESTOP", True, "not engaged in the bucket")


def engage_here(state: Path) -> str:
    """Put the file; the place of it."""
    state.mkdir(parents=True, exist_ok=True)
    (state / ESTOP).touch()
    return str(state / ESTOP)


def engage_remote(contexts: Sequence[Context]) -> list[str]:
    """Put the object of each lake; their places."""
    for context in contexts:
        context.bucket.put(context.keys.estop, b"")
    return [_place(context) for context in contexts]


def lift_here(state: Path) -> None:
    """Remove the file, if it stands."""
    (state / ESTOP).unlink(missing_ok=True)


def lift_remote(contexts: Sequence[Context]) -> None:
    """Delete the object of each lake, if it stands."""
    for context in contexts:
        context.bucket.delete(context.keys.estop)


def _place(context: Context) -> str:
    return f"{context.settings.bucket.url}/{context.keys.estop}"
