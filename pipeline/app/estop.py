"""ESTOP: where it stands, and how a person engages it and takes it back.

It stands in two places.  The file in a state folder stops what uses that folder, within a second.  The object in the
bucket, one for each lake and one for the service, stops every host at its next poll or beat: for hosts that share no
disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.app.contexts import lakes_asked_once
from pipeline.errors import PipelineError
from pipeline.ledger.protocol import Context
from pipeline.process.lock import ESTOP, estop_since
from pipeline.service.keys import ESTOP as OF_THE_SERVICE
from pipeline.settings import Settings
from pipeline.stores.opening import hasty, open_bucket
from pipeline.stores.store import Examined, Store
from pipeline.times import readable_time


@dataclass(frozen=True)
class Place:
    """Where an ESTOP stands in a bucket, if it does.  url: of the bucket."""

    bucket: Store
    url: str
    key: str

    def __str__(self) -> str:
        return f"{self.url}/{self.key}"


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


def of_lakes(contexts: Sequence[Context]) -> list[Place]:
    """Their places in the bucket."""
    return [Place(context.bucket, context.settings.bucket.url, context.keys.estop) for context in contexts]


def has_service(settings: Settings) -> bool:
    """Whether a service is there: its database is a server's, or a file that was made."""
    return "://" in settings.service.database or Path(settings.service.database).exists()


def places_asked_once(settings: Settings, program: str) -> list[Place]:
    """Those of each lake and of the service that a configuration has; a bucket that is away is not asked again."""
    found = of_lakes(lakes_asked_once(settings, program)) if settings.lakes else []
    if has_service(settings):
        found.append(Place(open_bucket(hasty(settings)), settings.bucket.url, OF_THE_SERVICE))
    return found


def standing_remote(places: Sequence[Place]) -> list[Standing]:
    """Those in the bucket.  One request for each place; raises what the bucket raises."""
    return [
        Standing(str(place), entry.modified, remote=True)
        for place in places
        for entry in place.bucket.list(place.key, until=place.key)
        if entry.key == place.key
    ]


def examined(state: Path, places: Callable[[], Sequence[Place]]) -> Iterator[Examined]:
    """What `hathi doctor` says of this host and of the bucket.  places: it may raise what the bucket raises."""
    here = standing_here(state)
    for one in here:
        said = f"ESTOP is engaged since {readable_time(one.since)}: nothing starts on this host"
        yield Examined("ESTOP", False, said, f"remove {one.place}, then start the programs again")
    if not here:
        yield Examined("ESTOP", True, "not engaged on this host")
    try:
        looked = places()
        remote = standing_remote(looked)
    except PipelineError as error:
        said = f"it cannot be seen whether ESTOP stands in the bucket: {error.message}"
        yield Examined("ESTOP", False, said, error.hint)
        return
    for one in remote:
        said = f"ESTOP is engaged in the bucket since {readable_time(one.since)}: nothing starts on any host"
        yield Examined("ESTOP", False, said, f"`hathi start --remote` deletes {one.place}; then start the programs")
    if looked and not remote:
        yield Examined("ESTOP", True, "not engaged in the bucket")


def engage_here(state: Path) -> str:
    """Put the file; the place of it."""
    state.mkdir(parents=True, exist_ok=True)
    (state / ESTOP).touch()
    return str(state / ESTOP)


def engage_remote(places: Sequence[Place]) -> list[str]:
    """Put the object of each place; what they are called."""
    for place in places:
        place.bucket.put(place.key, b"")
    return [str(place) for place in places]


def lift_here(state: Path) -> None:
    """Remove the file, if it stands."""
    (state / ESTOP).unlink(missing_ok=True)


def lift_remote(places: Sequence[Place]) -> None:
    """Delete the object of each place, if it stands."""
    for place in places:
        place.bucket.delete(place.key)
