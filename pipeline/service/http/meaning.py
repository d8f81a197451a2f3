"""What a classifier is made of: a job's snapshot, a model's version, or the version that an alias names just now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.service import blobs
from pipeline.service.classifying import FACTS_BYTES, Classifier, facts_of
from pipeline.service.database.statements import Row, Statements
from pipeline.service.http.asking import Behind
from pipeline.service.http.datasets import classes_of
from pipeline.service.problems import absent, conflict, invalid
from pipeline.service.serving.parent import files_of
from pipeline.service.serving.placing import Model
from pipeline.service.words import Actor
from pipeline.service.work.preparing import SERVING


@dataclass(frozen=True)
class Origin:
    """Files, facts and labels of one net.  number: of its version, None for one of a job."""

    iteration: int
    files: dict[str, dict[str, Any]]
    facts: dict[str, Any]
    labels: list[str]
    number: int | None = None


def named(row: Row, origin: Origin) -> Classifier:
    """The classifier of a row, as it answers with that net."""
    if row["alias"] is None:
        return Classifier.of(row)
    model = Model(row["tenant_id"], f"{row['id']}-{origin.number}", origin.files, json.loads(row["given"]))
    return Classifier(model, row["name"], origin.labels, origin.facts, origin.number)


async def meant(service: Behind, actor: Actor, classifier: str) -> Classifier:
    """A classifier by its id; else the newest of that name.  Raises Refused: 404; 409 where its alias names nothing."""
    async with service.database.reading(actor.realm) as statements:
        row = await statements.row(
            """select * from classifiers where id = $1 or name = $1
               order by case when id = $1 then 0 else 1 end, id desc limit 1""",
            classifier,
        )
    if row is None:
        raise absent()
    if row["alias"] is None:
        return Classifier.of(row)
    return named(row, await origin_of(service, actor, {"model_id": row["model_id"], "alias": row["alias"]}))


async def origin_of(service: Behind, actor: Actor, said: Mapping[str, Any]) -> Origin:
    """said: training_job_id and iteration, or model_id with version or alias.

    Raises Refused where there is no such thing, or one that classifies nothing.
    """
    job, model = said.get("training_job_id"), said.get("model_id")
    version, alias = said.get("version"), said.get("alias")
    async with service.database.reading(actor.realm) as statements:
        if job is not None and await _lacks(statements, "work", job):
            raise invalid("#/training_job_id", "there is no such training job", "list what is there")
        if model is not None and await _lacks(statements, "models", model):
            raise invalid("#/model_id", "there is no such model", "list what is there")
        if (job is None) == (model is None):
            raise invalid("#/training_job_id", "a classifier is made of a training job or of a model", "give one")
        if job is not None and (version is not None or alias is not None):
            raise invalid("#/training_job_id", "a version and an alias are a model's", "give model_id instead")
        if model is not None and ((version is None) == (alias is None) or said.get("iteration") is not None):
            raise invalid("#/model_id", "a model answers by its version or by an alias", "give one of them")
        names: list[str] = []
        if job is not None:
            row = await _of_job(statements, job, said.get("iteration"))
            names = await classes_of(statements, job) or []
        else:
            row = await _of_model(statements, str(model), version, alias)
    files = files_of(json.loads(row["files"]))
    if not files:
        raise conflict("this snapshot does not say how its net serves", "train the job again")
    facts = await _facts(service, files[SERVING])
    labels = json.loads(row["labels"]) if row.get("labels") else None
    if labels is not None and len(labels) != facts["classes"]:
        says = f"the version has {len(labels)} labels, and its net {facts['classes']} classes"
        raise conflict(says, "make a version with a label for each class")
    # a net may have more classes than its dataset: these have numbers
    names += [str(number) for number in range(len(names), facts["classes"])]
    return Origin(row["iteration"], files, facts, labels or names[: facts["classes"]], row.get("number"))


async def _lacks(statements: Statements, table: str, name: str) -> bool:
    return await statements.row(f"select id from {table} where id = $1", name) is None


async def _of_job(statements: Statements, job: str, iteration: int | None) -> Row:
    only, values = ("", []) if iteration is None else ("and iteration = $2", [iteration])
    row = await statements.row(
        f"select iteration, files from snapshots where work_id = $1 {only} order by iteration desc limit 1",
        job, *values,
    )  # fmt: skip
    if row is None and iteration is not None:
        raise invalid("#/iteration", "the job has no such snapshot", "GET its snapshots")
    if row is None:
        raise conflict("the job has no snapshot yet", "wait until it has one, or let its solver write them sooner")
    return row


async def _of_model(statements: Statements, model: str, version: int | None, alias: str | None) -> Row:
    if alias is not None:
        row = await statements.row(
            "select number from model_aliases where model_id = $1 and alias = $2", model, alias
        )  # fmt: skip
        if row is None:
            raise conflict(f"the model has no alias {alias} now", "let it name a version")
        version = row["number"]
    found = await statements.row("select * from model_versions where model_id = $1 and number = $2", model, version)
    if found is None:
        raise invalid("#/version", "the model has no such version", "list its versions")
    return found


async def _facts(service: Behind, said: Mapping[str, Any]) -> dict[str, Any]:
    facts = facts_of(await blobs.get(service.store, said["key"], min(int(said["size"]), FACTS_BYTES)))
    if "refused" in facts:
        raise conflict("the net of this job classifies nothing", facts["refused"])
    return facts
