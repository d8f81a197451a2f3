"""The service's resources as calls: push, import, train, watch, classify; `hathi.remote` is its public face."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pipeline.clock import Clock, random_nonce
from pipeline.errors import ConfigError, NotFound
from pipeline.remote.documents import (
    Alias,
    Classified,
    Classifier,
    Datafile,
    Dataset,
    Job,
    JobSeen,
    Me,
    Model,
    Promotion,
    PromotionSeen,
    Snapshot,
    Solver,
    Version,
)
from pipeline.remote.transfer import Moved, downloaded, opened, part_of, uploaded
from pipeline.remote.transport import PATIENCE_SECONDS, Asked, Event, Problem, Transport

PICTURES = 64
"""In one request to a classifier."""
_PICTURES_BYTES = 32 * 2**20
_FETCH_SECONDS = 700.0
"""The service fetches an archive for ten minutes at most."""
_LOOK_SECONDS = 1.0
_OVER = ("succeeded", "failed", "cancelled")


class Client:
    """A service, asked as whoever has the token.

    url: as `https://hathi.example`; patience: seconds for which a request is tried again while nobody answers.
    Whatever creates is sent with an Idempotency-Key, so that a lost answer makes nothing twice.
    Each call raises `Problem` where the service refuses (status, message, detail, hint) and `Away` where none answers.
    """

    def __init__(
        self, url: str, token: str, *, patience: float = PATIENCE_SECONDS, clock: Clock | None = None,
        waiting: Callable[[str], None] = lambda text: None,
    ) -> None:  # fmt: skip
        self._transport = Transport(url, token, patience, clock, waiting)
        self._clock = self._transport.clock

    def me(self) -> Me:
        """Who asks, for which tenant, with which role and limits."""
        return cast(Me, self._get("/v1/me"))

    # ---- data

    def push(
        self, path: str | os.PathLike[str], name: str = "", *, datafile: str = "", moved: Moved = lambda at: None
    ) -> Datafile:
        """Uploads a file; where the connection breaks it goes on from what the service has.

        datafile: one that was begun before, whose upload goes on.  Raises ConfigError where the file cannot be read.
        """
        path = Path(path)
        with opened(path) as file:
            size = file.seek(0, os.SEEK_END)
            begun = self._begun(datafile, name or path.name, size)
            return uploaded(self._transport, begun, file, moved)

    def _begun(self, datafile: str, name: str, size: int) -> Datafile:
        """The datafile that a file of that size fills.  Raises ConfigError."""
        if not size:
            raise ConfigError(f"{name} is empty", "", "give a file with something in it")
        if not datafile:
            return self.announce(name, size)
        there = self.datafile(datafile)
        if there["size"] != size:
            said = f"{name} has {size} bytes, and the datafile was announced with {there['size']}"
            raise ConfigError("that is not the file that was begun", said, "push it without --datafile")
        return there

    def announce(self, name: str, size: int) -> Datafile:
        """A datafile without its bytes, which `push` brings."""
        return cast(Datafile, self._create("/v1/datafiles", {"name": name, "size": size}))

    def push_url(self, url: str) -> Datafile:
        """The service fetches an archive, from public addresses alone: ten minutes and 10 GB at most."""
        made = self._transport.ask(
            Asked("POST", "/datafiles", {"url": url}, again=False, seconds=_FETCH_SECONDS)
        ).json()
        return self.datafile(made["id"])

    def datafile(self, datafile: str) -> Datafile:
        """One of them."""
        return cast(Datafile, self._get(f"/v1/datafiles/{datafile}"))

    def datafiles(self) -> Iterator[Datafile]:
        """All of them, the newest first."""
        return self._all("/v1/datafiles")

    def make_dataset(self, name: str, datafile: str, split: Mapping[str, int] | None = None, **more: Any) -> Dataset:
        """Queues the import of an archive.  split: such as `{"train": 80, "test": 20}`; more: of POST /v1/datasets."""
        return cast(
            Dataset, self._create("/v1/datasets", {"name": name, "datafile_id": datafile, **_some(split=split), **more})
        )

    def dataset(self, dataset: str) -> Dataset:
        """One of them."""
        return cast(Dataset, self._get(f"/v1/datasets/{dataset}"))

    def datasets(self) -> Iterator[Dataset]:
        """All of them, the newest first."""
        return self._all("/v1/datasets")

    def imported(self, dataset: str, looked: Callable[[Dataset], None] = lambda one: None) -> Dataset:
        """It, once its import is over; `state` says how.  looked: told of each look."""
        while (one := self.dataset(dataset))["state"] not in _OVER:
            looked(one)
            self._clock.sleep(_LOOK_SECONDS)
        return one

    # ---- trainings

    def make_solver(self, name: str, solver: str, net: str, dataset: str | None = None) -> Solver:
        """The texts of a solver and a net; the answer has their price and the warnings."""
        body = {"name": name, "solver": solver, "net": net, **_some(dataset_id=dataset)}
        return cast(Solver, self._create("/v1/solvers", body))

    def train(self, name: str, solver: str, inputs: Mapping[str, str] | None = None, **more: Any) -> Job:
        """Queues a training.  inputs: datafiles by the names that the net reads, where it has no dataset; more: seed,
        threads, priority, max_seconds."""
        return cast(
            Job, self._create("/v1/training-jobs", {"name": name, "solver_id": solver, **_some(inputs=inputs), **more})
        )

    def resume(self, job: str, **changes: Any) -> Job:
        """Queues a job that goes on from a snapshot of this one.  changes: iteration, max_iter, name, threads, priority
        or max_seconds."""
        return cast(Job, self._create(f"/v1/training-jobs/{job}/resume", changes))

    def clone(self, job: str, **changes: Any) -> Job:
        """Queues a job like this one, from iteration 0.  changes: solver_id, inputs, seed, and those of `resume` but
        iteration."""
        return cast(Job, self._create(f"/v1/training-jobs/{job}/clone", changes))

    def job(self, job: str) -> JobSeen:
        """One of them, with its place in the queue."""
        return cast(JobSeen, self._get(f"/v1/training-jobs/{job}"))

    def jobs(self, state: str = "") -> Iterator[Job]:
        """All of them, or those in a state, the newest first."""
        return self._all("/v1/training-jobs", **_some(state=state or None))

    def events(self, job: str, last: str = "") -> Iterator[Event]:
        """What happens to it until it is over: `job` its document, `metrics` its rows, `end`; or `gone`.

        last: the id of an event, behind which the stream begins.
        """
        return self._transport.events(f"/v1/training-jobs/{job}/events", last)

    def ended(self, job: str) -> JobSeen:
        """It, once it is over."""
        for _ in self.events(job):
            pass
        return self.job(job)

    def cancel(self, job: str) -> Job:
        """Ends it; from this answer on it never succeeds.  Raises Problem where it is over."""
        try:
            return cast(Job, self._transport.ask(Asked("POST", f"/v1/training-jobs/{job}/cancel")).json())
        except Problem as error:
            if error.status == 409 and (one := self.job(job))["cancel_requested"]:  # an answer of ours was lost
                return one
            raise

    def log(self, job: str, tail: int = 65_536) -> str:
        """The last bytes of its log."""
        answer = self._transport.ask(Asked("GET", f"/v1/training-jobs/{job}/logs?tail={tail}"))
        return answer.content.decode("utf-8", "replace")

    def snapshots(self, job: str) -> list[Snapshot]:
        """Those that are kept, the newest first."""
        return cast("list[Snapshot]", self._get(f"/v1/training-jobs/{job}/snapshots")["items"])

    def download(self, job: str, iteration: int, name: str, to: str | os.PathLike[str]) -> Path:
        """A file of a snapshot; it appears whole or not at all."""
        return downloaded(self._transport, f"/v1/training-jobs/{job}/snapshots/{iteration}/{name}", Path(to))

    # ---- models

    def models(self) -> Iterator[Model]:
        """All of them, the newest first, with what their aliases name."""
        return self._all("/v1/models")

    def model_named(self, name: str) -> Model:
        """The one of that name, or of that id.  Raises NotFound."""
        for one in self.models():
            if name in (one["name"], one["id"]):
                return one
        raise NotFound(f"there is no model {name}", "", "hathi remote models lists them")

    def make_model(self, name: str) -> Model:
        """One without a version."""
        return cast(Model, self._create("/v1/models", {"name": name}))

    def add_version(self, model: str, job: str, iteration: int | None = None, note: str = "") -> Version:
        """A job's snapshot, the newest by default, as the model's next version.  model: its id."""
        body = {"training_job_id": job, **_some(iteration=iteration), "note": note}
        return cast(Version, self._create(f"/v1/models/{model}/versions", body))

    def versions(self, model: str) -> Iterator[Version]:
        """All of a model's, the newest first."""
        return self._all(f"/v1/models/{model}/versions")

    def put_alias(self, model: str, alias: str, version: int) -> Alias:
        """The alias names that version from now on.  Raises Problem where somebody else moved it meanwhile."""
        path = f"/v1/models/{model}/aliases/{alias}"
        try:
            match = {"If-Match": self._transport.ask(Asked("GET", path)).headers["ETag"]}
        except Problem as error:
            if error.status != 404:
                raise
            match = {"If-None-Match": "*"}
        try:
            return cast(Alias, self._transport.ask(Asked("PUT", path, {"version": version}, match)).json())
        except Problem as error:
            if error.status == 412 and (now := self._get(path))["version"] == version:  # an answer of ours was lost
                return cast(Alias, now)
            raise

    def promote(self, feature_set: str, model: str, **more: Any) -> Promotion:
        """Queues that a model's version goes into use in the lake, for a set that is granted to the tenant.

        model: its id; more: `version` or `alias`; lake, blob, backfill, why.
        """
        return cast(Promotion, self._create("/v1/promotions", {"feature_set": feature_set, "model_id": model, **more}))

    def promotion(self, promotion: str) -> PromotionSeen:
        """One of them; `progress` says how far its back-fill is."""
        return cast(PromotionSeen, self._get(f"/v1/promotions/{promotion}"))

    def promoted(self, promotion: str) -> PromotionSeen:
        """It, once it is over; `state` says how.  A back-fill goes on after that."""
        while (one := self.promotion(promotion))["state"] not in _OVER:
            self._clock.sleep(_LOOK_SECONDS)
        return one

    # ---- classifiers

    def make_classifier(self, name: str, **of: Any) -> Classifier:
        """of: `training_job_id` with or without `iteration`, or `model_id` with `version` or `alias`; `labels`."""
        return cast(Classifier, self._create("/v1/classifiers", {"name": name, **of}))

    def classify(
        self, classifier: str, pictures: Sequence[str | os.PathLike[str] | bytes], top: int = 5
    ) -> Iterator[Classified]:
        """What the net says of each, in order: `predictions`, or `failure` and why.

        pictures: paths, URLs, or the bytes of encoded pictures.
        """
        held: list[tuple[str, Any]] = []
        size = 0
        for number, one in enumerate(pictures):
            part = part_of(one, number)
            length = len(part[1][1])
            if held and (len(held) == PICTURES or size + length > _PICTURES_BYTES):
                yield from self._classified(classifier, held, top)
                held, size = [], 0
            held.append(part)
            size += length
        if held:
            yield from self._classified(classifier, held, top)

    def _classified(self, classifier: str, parts: list[tuple[str, Any]], top: int) -> Iterator[Classified]:
        asked = Asked("POST", f"/v1/classifiers/{classifier}/classify?top={top}", files=tuple(parts))
        found = iter(cast("list[Classified]", self._transport.ask(asked).json()["results"]))
        by_kind = {kind: [next(found) for name, _ in parts if name == kind] for kind in ("files", "urls")}
        return iter([by_kind[kind].pop(0) for kind, _ in parts])

    # ---- what each of them does

    def _get(self, path: str) -> Any:
        return self._transport.ask(Asked("GET", path)).json()

    def _create(self, path: str, body: Mapping[str, Any]) -> Any:
        headers = {"Idempotency-Key": random_nonce()}
        return self._transport.ask(Asked("POST", path, dict(body), headers)).json()

    def _all(self, path: str, **query: str) -> Iterator[Any]:
        """The pages of a list, as far as they are read."""
        more: str | None = ""
        while more is not None:
            words = (
                [f"{name}={value}" for name, value in query.items()] + ["limit=200"] + [f"cursor={more}"] * bool(more)
            )
            page = self._get(f"{path}?{'&'.join(words)}")
            yield from page["items"]
            more = page["next"]


def _some(**given: Any) -> dict[str, Any]:
    """Those that are given."""
    return {name: value for name, value in given.items() if value is not None}
