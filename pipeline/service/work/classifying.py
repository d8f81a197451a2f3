"""A classification job as work: many pictures through one net, whose answers are the work's one snapshot.

Pictures are fetched and read beside the net's process, a group at a time; a cancel is heard whatever is waited for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Generator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from pipeline.errors import FormatError, PipelineError, TemporaryError
from pipeline.records import Failure
from pipeline.service import blobs, classifying, queue
from pipeline.service.archive.entries import Refused
from pipeline.service.classifying import Classifier, Prediction
from pipeline.service.fetching import fetched
from pipeline.service.keys import TenantKeys
from pipeline.service.queue import Snapshot
from pipeline.service.serving.parent import CannotServe, Lost, Serving, files_of
from pipeline.service.serving.placing import Model
from pipeline.service.words import WORKER, Claimed, Ending, Reason, State
from pipeline.service.work import room
from pipeline.service.work.attempt import Hands, placed
from pipeline.service.work.importing import datafiles_of
from pipeline.service.work.lease import Lease
from pipeline.service.work.wanted import Unwanted, wanted

KIND = "classify"
TOGETHER = 64
"""Pictures of one group."""
ROWS = 1000
"""Of one file of results."""


class Given(NamedTuple):
    """A picture, or why there is none.  name: its URL, or its path in the archive."""

    name: str
    content: bytes | Failure


def results_of(number: int) -> str:
    """The file that holds a row of the results.  number: of the row, from 0."""
    return f"results-{number // ROWS:06d}.jsonl"


async def attempt(hands: Hands, held: Claimed) -> None:
    """Answers all pictures, or until a cancel, the worker's own end, or until the work is somebody else's."""
    if held.cancel:
        await queue.finish(hands.database, held, Ending(State.CANCELLED))
        return
    async with placed(hands, held) as folder, Lease(hands.database, held, hands.clock).beating() as lease:
        await _Attempt(hands, lease, folder).run()


@dataclass
class _Attempt:
    hands: Hands
    lease: Lease
    folder: Path
    done: int = 0
    failed: int = 0
    ends: float = field(init=False)

    def __post_init__(self) -> None:
        self.ends = self.hands.clock.monotonic() + self.lease.held.seconds_left

    async def run(self) -> None:
        held, hands = self.lease.held, self.hands
        try:
            files = await wanted(self._answered(), self._why)
            await queue.beat(hands.database, held, self.lease.progress)
            if not await queue.keep(hands.database, held, Snapshot(1, files)):
                return
            result = {"pictures": self.done, "failed": self.failed}
            await queue.finish(hands.database, held, Ending(State.SUCCEEDED, result=result))
        except Unwanted as end:
            if end.why == "cancel":
                await queue.finish(hands.database, held, Ending(State.CANCELLED))
            elif end.why == "time":
                says = "it was not at its end after max_seconds"
                await queue.finish(hands.database, held, Ending(State.FAILED, Reason.TIME_LIMIT, says))
            elif end.why == "part":
                await queue.release(hands.database, held)
        except Lost as error:
            hands.say(f"{held.id}: {error}")
            await queue.strike(hands.database, held, hands.told(held, error, self.folder))
        except TemporaryError:
            await queue.release(hands.database, held)
            raise
        except CannotServe as error:
            await queue.finish(hands.database, held, self._failed(Reason.BAD_SPEC, error))
        except (PipelineError, OSError) as error:
            if room.is_full(error):
                says = hands.told(held, error, self.folder)
                await queue.strike(hands.database, held, says, Reason.DISK_LIMIT)
                raise room.no_room(hands.scratch, str(error)) from error
            await queue.finish(hands.database, held, self._failed(Reason.NO_DATA, error))

    def _failed(self, reason: Reason, error: Exception) -> Ending:
        return Ending(State.FAILED, reason, self.hands.told(self.lease.held, error, self.folder))

    def _why(self) -> str:
        """Why the attempt has to end; "": it goes on."""
        if self.lease.lost:
            return "lost"
        if self.lease.cancel:
            return "cancel"
        if self.hands.clock.monotonic() >= self.ends:
            return "time"
        return "part" if self.hands.stopping() else ""

    async def _answered(self) -> list[dict[str, Any]]:
        """The files of the results, which are in the bucket.  Raises PipelineError, OSError."""
        held = self.lease.held
        classifier = await _classifier(self.hands, held)
        serving = Serving(self.hands.store, self.folder / "net", self.hands.say, self.hands.sizes)
        names: list[str] = []
        try:
            async for some in self._groups():
                found = await classifying.classify(serving, classifier, [one.content for one in some], held.body["top"])
                for one, said in zip(some, found, strict=True):
                    if not names or names[-1] != results_of(self.done):
                        names.append(results_of(self.done))
                    with (self.folder / names[-1]).open("a", encoding="utf-8") as file:
                        _tell(file, self.done, one.name, said)
                    self.done, self.failed = self.done + 1, self.failed + isinstance(said, Failure)
                self.lease.progress = {"pictures": self.done, "failed": self.failed}
        finally:
            await serving.close()
        return [await self._kept(name) for name in names]

    async def _kept(self, name: str) -> dict[str, Any]:
        held, path = self.lease.held, self.folder / name
        key = TenantKeys(held.tenant).snapshot(held.id, held.epoch, 1, name)
        await blobs.put(self.hands.store, key, path)
        sha256 = await asyncio.to_thread(blobs.digest, path)
        return {"name": name, "key": key, "size": path.stat().st_size, "sha256": sha256}

    async def _groups(self) -> AsyncIterator[list[Given]]:
        urls = self.lease.held.body["urls"]
        if urls is not None:
            for first in range(0, len(urls), TOGETHER):
                yield await asyncio.to_thread(self._fetched, urls[first : first + TOGETHER])
            return
        path = self.folder / "archive"
        (pieces,) = (await datafiles_of(self.hands, self.lease.held)).values()
        await asyncio.to_thread(blobs.save, self.hands.store, pieces, path)
        entries = _packed(path)
        try:
            while some := await asyncio.to_thread(lambda: list(islice(entries, TOGETHER))):
                yield some
        except Refused as error:
            raise FormatError(error.message, error.detail, error.hint) from error
        finally:
            await asyncio.to_thread(entries.close)

    def _fetched(self, urls: Sequence[str]) -> list[Given]:
        found = fetched(self.hands.fetcher(), urls, stopped=lambda: bool(self._why()))
        return [Given(url, one) for url, one in zip(urls, found, strict=True)]


def _packed(path: Path) -> Generator[Given, None, None]:
    from pipeline.service.archive.entries import Picture
    from pipeline.service.archive.reading import read

    for one in read(path):
        if isinstance(one, Picture):
            yield Given("/".join(one.path), one.content)
        elif one.reason != "junk":
            yield Given(one.name, Failure(one.reason, one.detail))


async def _classifier(hands: Hands, held: Claimed) -> Classifier:
    """What was meant when the job was posted.  Raises FormatError where it is gone."""
    async with hands.database.reading(WORKER) as statements:
        row = await statements.row(
            "select * from classifiers where tenant_id = $1 and id = $2", held.tenant, held.body["classifier_id"]
        )
        version = None
        if row is not None and row["alias"] is not None:
            version = await statements.row(
                "select files from model_versions where tenant_id = $1 and model_id = $2 and number = $3",
                held.tenant, row["model_id"], held.body["number"],
            )  # fmt: skip
    if row is None or (row["alias"] is not None and version is None):
        raise FormatError("the classifier of this job is gone", held.body["classifier_id"], "make it again")
    if version is None:
        return Classifier.of(row)
    model = Model(held.tenant, row["id"], files_of(json.loads(version["files"])), json.loads(row["given"]))
    return Classifier(model, row["name"], held.body["labels"], {"probabilities": held.body["probabilities"]})


def _tell(file: IO[str], number: int, name: str, said: list[Prediction] | Failure) -> None:
    told: dict[str, Any] = {"number": number, "name": name, "predictions": None, "failure": None}
    if isinstance(said, Failure):
        told["failure"] = {"reason": said.reason, "detail": said.detail, "retriable": said.retriable}
    else:
        told["predictions"] = [asdict(one) for one in said]
    print(json.dumps(told), file=file)
