"""What classifies: a snapshot's net with its labels, and what it says of pictures, the likeliest first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import FormatError
from pipeline.records import Failure
from pipeline.service.database.statements import Row
from pipeline.service.serving.parent import Serving
from pipeline.service.serving.placing import Model

FACTS_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Prediction:
    """A class of the net.  score: the net's own number; probability: the same, or None where it is none."""

    label: str
    index: int
    score: float
    probability: float | None


@dataclass(frozen=True)
class Classifier:
    """model: what answers.  labels: a name for each class.  facts: of `facts_of`.

    number: of the model's version that its alias names now; None without an alias.
    """

    model: Model
    name: str
    labels: Sequence[str]
    facts: Mapping[str, Any]
    number: int | None = None

    @classmethod
    def of(cls, row: Row) -> Classifier:
        """As a row of the database says it."""
        given, files = json.loads(row["given"]), json.loads(row["files"])
        model = Model(row["tenant_id"], row["id"], files, given)
        return cls(model, row["name"], json.loads(row["labels"]), json.loads(row["facts"]))

    @property
    def takes_pictures(self) -> bool:
        return self.facts["pictures"] is not None or bool(self.model.given)

    def predictions(self, values: NDArray[np.float32], top: int) -> list[Prediction]:
        """The classes with the greatest values; of equal ones the one with the smaller number."""
        order = np.argsort(-values, kind="stable")[:top]
        likely = self.facts["probabilities"]
        scores = [(at, float(values[at])) for at in order.tolist()]
        return [Prediction(self.labels[at], at, score, score if likely else None) for at, score in scores]


def facts_of(content: bytes) -> dict[str, Any]:
    """What a row keeps of how a net serves, without its text and its mean.  Raises FormatError for what is no such."""
    try:
        said = json.loads(content)
        if "refused" in said:
            return {"refused": str(said["refused"])}
        found = {name: said[name] for name in ("input", "shape", "classes", "probabilities", "pictures")}
        if found["pictures"] is not None:
            found["pictures"] = {**found["pictures"], "mean": _mean(found["pictures"]["mean"])}
        return found
    except (ValueError, TypeError, KeyError) as error:
        raise FormatError("the job does not say how its net serves", str(error)[:200], "train it again") from error


def _mean(said: Mapping[str, Any] | None) -> list[float] | str | None:
    """One number a channel, `image` for a mean image, None without one."""
    if said is None:
        return None
    if said["shape"][1:] != [1, 1]:
        return "image"
    import array
    import base64

    return array.array("f", base64.b64decode(said["values"])).tolist()


async def classify(
    serving: Serving, classifier: Classifier, contents: Sequence[bytes | Failure], top: int
) -> list[list[Prediction] | Failure]:
    """Of each picture its classes, or why there are none.  contents: what could not even be read is its own failure.

    Raises Busy, Lost, CannotServe.
    """
    pictures = [one for one in contents if not isinstance(one, Failure)]
    answers = iter(await serving.answer(classifier.model, pictures))
    found: list[list[Prediction] | Failure] = []
    for one in contents:
        said = one if isinstance(one, Failure) else next(answers)
        found.append(said if isinstance(said, Failure) else classifier.predictions(said, top))
    return found
