"""ElasticThought's own requests at `/`, over the resources of /v1: its words, its Basic auth, its states.

As its document (`apiary.apib`) has them and as its code bound them, where the two differ.  What its clients post next
needs what came before: 409 with Retry-After says that it is not there yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from pipeline.errors import PermanentError, PipelineError
from pipeline.records import Failure
from pipeline.service import quotas, states, tenants
from pipeline.service.auth import passwords, tokens
from pipeline.service.database.statements import Taken
from pipeline.service.fetching import fetched
from pipeline.service.http import classifiers, classifying, datafiles, datasets, job_records, solvers, training_jobs
from pipeline.service.http.asking import FETCHING, Behind, Service
from pipeline.service.http.basic import Member, Platform, Viewer
from pipeline.service.http.documents import ClassifierId, JobId, problems
from pipeline.service.http.elasticthought_documents import (
    ElasticClassified,
    ElasticClassifier,
    ElasticDatafile,
    ElasticDataset,
    ElasticDatasetMade,
    ElasticMade,
    ElasticSolver,
    ElasticStatus,
    ElasticTraining,
    ElasticUser,
    ElasticUserMade,
    KebabTold,
)
from pipeline.service.ids import Kind, new_id
from pipeline.service.neutral import neutral
from pipeline.service.problems import Problem, Refused, conflict, invalid, over
from pipeline.service.words import PLATFORM, Actor, Role, State

router = APIRouter(tags=["ElasticThought"])
STATES = {
    State.WAITING: "pending", State.QUEUED: "pending", State.RUNNING: "processing",
    State.SUCCEEDED: "finished_successfully", State.FAILED: "failed", State.CANCELLED: "failed",
}  # fmt: skip
TEXT_BYTES, ARCHIVE_BYTES = 2**20, 10**10
"""Of a specification, and of an archive by its URL."""
AGAIN_SECONDS = 5
_SHARES = 10_000


def _made(answer: Response) -> dict[str, Any]:
    """What a route of /v1 answers."""
    found: dict[str, Any] = json.loads(bytes(answer.body))
    return found


def _named(name: str, state: State) -> dict[str, Any]:
    return {"id": name, "_id": name, "processing-state": STATES[state]}


@contextlib.contextmanager
def _spelled() -> Iterator[None]:
    """Pointers of a problem of /v1 in ElasticThought's spelling."""
    try:
        yield
    except Refused as error:
        errors = tuple({**one, "pointer": one["pointer"].replace("_", "-")} for one in error.problem.errors)
        raise Refused(replace(error.problem, errors=errors)) from error


async def add_user(service: Service, actor: Platform, body: ElasticUser) -> ElasticUserMade:
    """A user, who is a member of the asker's tenant.  Only an operator of the installation may ask."""
    hashed = await service.passwords.hashed(body.password) if body.password else ""
    try:
        async with service.database.transaction(PLATFORM, serial=True) as statements:
            now = service.clock.now()
            name = await tenants.add_user(statements, body.username, service.clock)
            await tenants.add_member(statements, actor.tenant, name, Role.MEMBER)
            mine = Actor(actor.tenant, name, "", Role.MEMBER)
            token, secret = await tokens.add(statements, mine, "of POST /users", now)
            if hashed:
                await passwords.keep(statements, name, hashed, platform=False)
                await tokens.note(statements, actor.realm, actor.user, "password set", (name, "", now))
            for action, said in (("user added", body.username), ("member added", Role.MEMBER), ("token added", token)):
                await tokens.note(statements, actor.realm, actor.user, action, (name, said, now))
    except Taken as error:
        raise conflict(f"a user is called {body.username} already", "choose another name") from error
    return ElasticUserMade(id=name, username=body.username, token=secret)


async def add_datafile(
    request: Request, service: Service, actor: Member, body: ElasticDatafile
) -> ElasticMade:  # fmt: skip
    """Fetches the archive: the answer comes when it is there, and a URL that brings none is 422 with the reason."""
    async with service.database.reading(actor.realm) as statements:
        most, used = await datafiles.limits(statements), await datafiles.stored_bytes(statements)
    if (exceeded := quotas.judge(most, "stored_bytes", used)) is not None:
        raise over(exceeded)
    if service.downloading.locked():
        raise Refused(Problem(503, "too many archives are fetched just now", "ask again", "busy", retry_after=10))
    async with service.downloading:
        with tempfile.TemporaryDirectory(prefix="archive-", dir=service.scratch) as folder:
            path = Path(folder) / "archive"
            await _download(service, body.url, path, min(ARCHIVE_BYTES, most.stored_bytes - used))
            last = re.sub(r"[^A-Za-z0-9._-]", "_", body.url.split("?")[0].rstrip("/").rpartition("/")[2])[:200]
            given = datafiles.DatafileGiven(name=last or "datafile", size=path.stat().st_size)
            name = _made(await datafiles.add(request, service, actor, given))["id"]
            await datafiles.put(service, actor, name, path)
    return ElasticMade.model_validate(_named(name, State.SUCCEEDED))


async def _download(service: Behind, url: str, path: Path, most: int) -> None:
    """Raises Refused: 422 for what is no archive or cannot be fetched."""
    from pipeline.service.archive.forms import packed_by
    from pipeline.service.downloading import download

    over_with = threading.Event()

    def told(size: int) -> None:
        if over_with.is_set():
            raise PermanentError("nobody waits for it any more", "", "ask again")

    def fetch() -> None:
        download(url, path, service.files(lambda head: packed_by(head) or None, most), told)

    try:
        await asyncio.to_thread(fetch)
    except PipelineError as error:
        raise invalid("#/url", neutral(f"{error.message}: {error.detail}", web=False), error.hint) from error
    finally:
        over_with.set()


async def add_dataset(request: Request, service: Service, actor: Member, body: ElasticDataset) -> ElasticDatasetMade:
    """Queues the import of an archive: its pictures are dealt to two sides, and no picture stands on both."""
    if (body.testing is None) == (body.test is None):
        raise invalid("#/testing", "a dataset has testing or test", "give one of them")
    train, test = body.training, body.testing or body.test
    assert test is not None
    shares = [round(one.split_percentage * _SHARES) for one in (train, test)]
    if train.datafile_id != test.datafile_id:
        hint = "pack both in one archive, in folders train and test; give its id twice, and 0.0 as both percentages"
        raise invalid("#/testing/datafile-id", "the sides of a dataset are of one datafile", hint)
    if any(shares) and not all(shares):
        raise invalid("#/training/split-percentage", "one side would be empty", "give both a share, or both 0.0")
    split = datasets.SplitGiven(train=shares[0], test=shares[1]) if any(shares) else None
    given = datasets.DatasetGiven(name="ElasticThought", datafile_id=train.datafile_id, split=split)
    with _spelled():
        said = _made(await datasets.add(request, service, actor, given))
    sides = {"training": train.split_percentage, "testing": test.split_percentage, "test": test.split_percentage}
    return ElasticDatasetMade.model_validate(
        {**_named(said["id"], State(said["state"])), "datafile-id": train.datafile_id,
         **{side: {"split-percentage": share} for side, share in sides.items()}}
    )  # fmt: skip


async def add_solver(request: Request, service: Service, actor: Member, body: ElasticSolver) -> ElasticMade:
    """Fetches both texts, and judges them for the dataset; 409 with Retry-After while that is imported."""
    async with service.database.reading(actor.realm) as statements:
        await datasets.made(statements, "#/dataset-id", body.dataset_id)
    solver, net = await _texts(service, {
        "#/specification-url": body.specification_url, "#/specification-net-url": body.specification_net_url,
    })  # fmt: skip
    given = solvers.SolverGiven(name="ElasticThought", solver=solver, net=net, dataset_id=body.dataset_id)
    with _spelled():
        said = _made(await solvers.add(request, service, actor, given))
    return ElasticMade.model_validate(_named(said["id"], State.SUCCEEDED))


async def _texts(service: Behind, urls: dict[str, str]) -> list[str]:
    """By URL, in order.  urls: by the pointer that names each.  Raises Refused: 422; 503 where too many are fetched."""
    if service.fetching.locked():
        raise classifying.busy("fetching", FETCHING, FETCHING)
    asked = list(urls.values())
    async with service.fetching:
        found = await asyncio.to_thread(lambda: fetched(service.files(lambda head: "text", TEXT_BYTES), asked))
    texts = []
    for (pointer, _), content in zip(urls.items(), found, strict=True):
        if isinstance(content, Failure):
            raise invalid(pointer, f"{content.reason}: {content.detail}", "give the URL of a specification as text")
        try:
            texts.append(content.decode())
        except UnicodeDecodeError as error:
            raise invalid(pointer, "the body is no text", "give the URL of a specification as text") from error
        if not texts[-1]:
            raise invalid(pointer, "the body is empty", "give the URL of a specification as text")
    return texts


async def add_training(request: Request, service: Service, actor: Member, body: ElasticTraining) -> ElasticMade:
    """Queues a training."""
    solver = body.solver_id or body.solver
    if solver is None or (body.solver_id is not None and body.solver is not None):
        raise invalid("#/solver-id", "a training job has solver-id or solver", "give one of them")
    with _spelled():
        given = training_jobs.JobGiven(name="ElasticThought", solver_id=solver, inputs={})
        said = _made(await training_jobs.add(request, service, actor, given))
    return ElasticMade.model_validate(_named(said["id"], State(said["state"])))


async def status(service: Service, actor: Viewer, job: JobId) -> ElasticStatus:
    """How far a training is."""
    row = await training_jobs.row_of(service, actor, job)
    said, loss = training_jobs.shown(row), None
    for chunk in reversed(await job_records.chunks_of(service, actor, job, "metrics")):
        for one in await job_records.rows_of(service, chunk):
            loss = one["values"].get("train/loss", loss)
        if loss is not None:
            break
    state = STATES[State(said["state"])]
    finite = loss is not None and loss - loss == 0
    return ElasticStatus.model_validate({
        "id": job, "state": "running" if state == "processing" else state, "processing-state": state,
        "processing-log": said["detail"], "loss": loss if finite else None,
        "last-iteration": said["progress"].get("iteration") or 0, "max-iterations": said["progress"].get("of"),
        "logs": f"/training-jobs/{job}/logs",
    })  # fmt: skip


async def logs(service: Service, actor: Viewer, job: JobId) -> Response:
    """The log of a training, also of one that failed: its last MiB."""
    await training_jobs.row_of(service, actor, job)
    return await job_records.log_of(service, actor, job, job_records.LOG_BYTES)


async def add_classifier(request: Request, service: Service, actor: Member, body: ElasticClassifier) -> ElasticMade:
    """Of a job that is over; 409 with Retry-After while it trains."""
    async with service.database.reading(actor.realm) as statements:
        sql = "select state from work where id = $1 and kind = 'train'"
        row = await statements.row(sql, body.training_job_id)
    if row is not None and row["state"] != State.SUCCEEDED:
        ended = State(row["state"]) in states.TERMINAL
        hint = "train another one" if ended else f"GET /training-jobs/{body.training_job_id}/status"
        raise conflict(f"the training job is {STATES[row['state']]}", hint, None if ended else AGAIN_SECONDS)
    given = classifiers.ClassifierGiven(name="ElasticThought", training_job_id=body.training_job_id)
    with _spelled():
        said = _made(await classifiers.add(request, service, actor, given))
    return ElasticMade.model_validate(_named(said["id"], State.SUCCEEDED))


async def classify(request: Request, service: Service, actor: Member, classifier: ClassifierId) -> ElasticClassified:
    """Pictures by `urls` and `files` of a form: the labels stand in the answer, since nothing else told them."""
    answer = await classifying.classify(request, service, actor, classifier)
    results = {one.name: one.predictions[0].label for one in answer.results if one.predictions}
    name = new_id(Kind.CLASSIFICATION_JOB, service.clock.now())
    return ElasticClassified.model_validate(
        {**_named(name, State.SUCCEEDED), "results": results, "pictures": answer.results}
    )


def _post(path: str, route: object, model: type[KebabTold], *codes: int, **more: Any) -> None:
    found = problems(*codes)
    router.add_api_route(
        path, route, methods=["POST"], response_model=model, status_code=201, responses=found, **more
    )  # fmt: skip


_post("/users", add_user, ElasticUserMade, 409)
_post("/datafiles", add_datafile, ElasticMade, 409)
_post("/datasets", add_dataset, ElasticDatasetMade, 409)
_post("/solvers", add_solver, ElasticMade, 409)
_post("/training-jobs", add_training, ElasticMade, 409)
_post("/classifiers", add_classifier, ElasticMade, 409)
_post("/classifiers/{classifier}/classify", classify, ElasticClassified, 404, 409,
      openapi_extra={"requestBody": classifying.BODY})  # fmt: skip
router.add_api_route(
    "/training-jobs/{job}/status", status, methods=["GET"], response_model=ElasticStatus, responses=problems(404)
)
router.add_api_route(
    "/training-jobs/{job}/logs", logs, methods=["GET"],
    responses={**problems(404), 200: {"description": "As it is", "content": job_records.PLAIN}},
)  # fmt: skip
