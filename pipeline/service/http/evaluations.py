"""What a job's last test says of its examples: which labels it takes for which, and its surest mistakes."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, ValidationError

from pipeline.errors import FormatError
from pipeline.service import blobs
from pipeline.service.http.asking import Service, Viewer
from pipeline.service.http.datasets import classes_of
from pipeline.service.http.documents import JobId, Told, problems
from pipeline.service.problems import absent
from pipeline.service.work.preparing import EVALUATION_BYTES

router = APIRouter(prefix="/v1/training-jobs", tags=["training-jobs"])


class Confused(Told):
    """Examples of one label that the net takes for another one."""

    label: int
    predicted: int
    examples: int


class Score(Told):
    """recall: the part of a label's examples that is found; precision: the part of what is taken for it that is it."""

    label: int
    examples: int
    recall: float | None
    precision: float | None


class Likely(Told):
    label: int
    score: Annotated[float | None, Field(description="Its probability, where the net tells one")]


class Mistake(Told):
    name: Annotated[str, Field(description="Of the example, in the dataset")]
    label: int
    of_label: Annotated[float | None, Field(description="The probability of the label")]
    likeliest: list[Likely]
    picture: Annotated[str, Field(description="A PNG of what the net was fed, in base64; empty where there is none")]


class Test(Told):
    """Of one test net.  matrix: a row for each label, a column for each prediction, of the labels in `shown`.

    Where `shown` is not all, a last row and column hold the others.
    """

    name: str
    iteration: int
    examples: int
    right: int
    classes: int
    left_out: int
    probabilities: bool
    shown: list[int]
    matrix: list[list[int]]
    pairs: Annotated[list[Confused], Field(description="Those that are confused most")]
    scores: list[Score]
    mistakes: Annotated[list[Mistake], Field(description="The surest first")]
    why: Annotated[str, Field(description="Why the test says nothing of its examples")]


class Evaluation(Told):
    labels: Annotated[list[str] | None, Field(description="The names of the classes, of a job with a dataset")]
    tests: Annotated[list[Test], Field(description="None before the job has succeeded, or where it tests nothing")]


async def evaluation(service: Service, actor: Viewer, job: JobId) -> Evaluation:
    """Confusion matrix, scores of each label, and the surest mistakes with their pictures, of a job that succeeded."""
    async with service.database.reading(actor.realm) as statements:
        row = await statements.row("select result from work where id = $1 and kind = 'train'", job)
        if row is None:
            raise absent()
        labels = await classes_of(statements, job)
    said = json.loads(row["result"]).get("evaluation") if row["result"] else None
    if said is None:
        return Evaluation(labels=labels, tests=[])
    text = await blobs.get(service.store, said["key"], EVALUATION_BYTES)
    try:
        return Evaluation(labels=labels, tests=[Test(**one) for one in json.loads(text)["tests"]])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise FormatError("the evaluation of a job cannot be read", said["key"], "tell an operator") from error


router.add_api_route(
    "/{job}/evaluation", evaluation, methods=["GET"], response_model=Evaluation, responses=problems(404)
)
