"""The documents of a training whose existence is the truth (docs/protocol.md 15): from its spec to its out.

A training is a chain of snapshots.  Each names the one before it by iteration and digest, and holds the rows of metrics
that were made in between, so that whoever reads the chain from its beginning reads each row once.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field

from pipeline.ledger.bodies import Body, Part
from pipeline.ledger.layout import JobName, digest
from pipeline.ledger.manifest import AttemptEnd
from pipeline.ledger.values import Count, Delivered, Digest, Inside, Stamp

Iteration = Annotated[int, Field(ge=0, lt=2**31)]


class JobFile(Part):
    """A file of a training under `d/j/`.  name: what it is called in the folder of a training."""

    name: Delivered
    key: Inside
    size: Count
    sha256: Digest


class JobSpec(Body):
    """A training exists from here on.  solver: its text; nets: the texts of the nets that it names, by path."""

    model: str
    solver: str
    nets: dict[str, str] = Field(default={})
    weights: tuple[JobFile, ...] = ()
    """That it begins with."""
    data: dict[str, str] = Field(default={})
    """What its data layers read, by path: a digest, so that other data are another training."""
    folder: str = ""
    """Where paths begin on a host that trains; it decides no number."""
    max_iter: Iteration
    every: Annotated[int, Field(ge=1, lt=2**31)]
    """Iterations between two snapshots: fixed, so that every process writes snapshots of the same iterations."""
    seed: int | None = None
    engine: str = "torch"
    exact: bool = False
    as_caffe: bool = False
    precision: str = "float32"
    """Of convolutions and products."""
    shards: Annotated[int, Field(ge=1)] = 1
    """Into which a batch is cut, each of them computed by itself."""
    stages: tuple[str, ...] = ()
    level: int = 0
    threads: Count = 0
    salt: str = ""
    """Of a training that is to begin anew."""

    def name(self) -> JobName:
        """What it is called: a hash of all that decides a number of it."""
        known = {"precision"} if self.precision == "float32" else set()  # names from before there was a choice
        known |= {"shards"} if self.shards == 1 else set()
        decides = self.model_dump(mode="json", exclude={"format", "nonce", "folder", "weights", *known})
        return JobName.of(self.model, decides, [[one.name, one.sha256] for one in self.weights])

    def due(self, iteration: int) -> bool:
        """Whether the chain has a snapshot of this iteration."""
        return 0 < iteration <= self.max_iter and (iteration % self.every == 0 or iteration == self.max_iter)


class JobParent(Part):
    """The snapshot before."""

    iteration: Iteration
    digest: Digest


class Reached(Part):
    """Where a training is: everything that it goes on from, and the rows of metrics since the snapshot before."""

    iteration: Iteration
    parent: JobParent | None
    """None: it came from iteration 0."""
    files: tuple[JobFile, ...]
    rows: tuple[str, ...] = ()
    """JSON, each with its `step`: the snapshot before <= step < this iteration."""

    @property
    def content(self) -> tuple[tuple[str, str], ...]:
        """Name and SHA-256 of each file: equal where two processes computed the same bits."""
        return tuple(sorted((one.name, one.sha256) for one in self.files))

    def digest(self) -> str:
        """What the next snapshot names it by: of all but who wrote it, and where its files are."""
        parent = [self.parent.iteration, self.parent.digest] if self.parent is not None else None
        return digest(self.iteration, parent, self.content, self.rows)

    def flaw_of_rows(self) -> str:
        """What contradicts the place of a row; "" where nothing does."""
        begin = self.parent.iteration if self.parent is not None else 0
        if begin >= self.iteration:
            return f"it is of iteration {self.iteration}, and comes from {begin}"
        steps = [_step(row) for row in self.rows]
        strays = [step for step in steps if step is None or not begin <= step < self.iteration]
        if strays:
            return f"it has a row of step {strays[0]}, which is not one of {begin} to {self.iteration - 1}"
        return ""


class JobSnapshot(Reached, Body):
    """A link of the chain."""

    process: str
    attempt: Count
    at: Stamp

    def flaw(self) -> str:
        return self.flaw_of_rows()


class JobAttemptEnd(AttemptEnd):
    """An attempt that ended without a result.

    parting: where it was when it was asked to end, between two snapshots.  It is no link of the chain: whoever goes on
    from it has its rows in the next snapshot.
    """

    parting: Reached | None = None

    def flaw(self) -> str:
        return self.parting.flaw_of_rows() if self.parting is not None else ""


class JobOut(Body):
    """What came of it: a model, or failed and why."""

    kind: Literal["model", "failed"]
    iteration: Iteration
    snapshot: JobParent | None = None
    """Of a model: the last link of the chain."""
    files: tuple[JobFile, ...] = ()
    rows: tuple[str, ...] = ()
    """Made after the last snapshot."""
    predictions: tuple[JobFile, ...] = ()
    """What the last test says of each example, for the report; a file for each test net."""
    cause: str = ""
    engine: str = ""
    cpu: str = ""
    """The engine with its version, and the kind of CPU, that computed the last iterations; "": nothing says so."""
    process: str
    at: Stamp

    def flaw(self) -> str:
        if self.kind == "model" and (self.snapshot is None or not self.files):
            return "it is a model and names no snapshot, or no file"
        steps = [_step(row) for row in self.rows]
        strays = [step for step in steps if step is None or step < self.iteration]
        return f"it has a row of step {strays[0]}, and ended at {self.iteration}" if strays else ""


class JobStop(Body):
    """A person wants it to end; who, and why."""

    by: str
    at: Stamp
    why: str = ""


def _step(row: str) -> int | None:
    """The step of a row; None for what is no row: an object with a step, a kind, and numbers or words by name."""
    try:
        found = json.loads(row)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("kind", ""), str):
        return None
    values = found.get("values", {})
    if not isinstance(values, dict) or not all(isinstance(one, int | float | str) for one in values.values()):
        return None
    step = found.get("step")
    return step if type(step) is int else None
