"""What is asked of a specification, and what comes of it.  Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline.errors import SolverError
from pipeline.times import DAY

SOLVER, NET = "/solver", "/net"
"""Where the two texts stand in a request."""


@dataclass(frozen=True, slots=True)
class Data:
    """What the dataset is, as far as a net's shapes ask.

    labels: classes, numbered from 0.  channels, height, width: of every image; 0: they differ.  sides: examples by
    side.
    """

    labels: int
    channels: int
    height: int
    width: int
    sides: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant's training may be.

    text: bytes of solver or net.  memory: bytes.  seconds: of the whole training, at `rate` multiply-adds a second.
    """

    text: int = 2**20
    layers: int = 2000
    parameters: int = 200_000_000
    memory: int = 8 * 2**30
    iterations: int = 10_000_000
    steps: int = 10_000
    snapshots: int = 1000
    seconds: float = 7 * DAY
    rate: float = 5e10


@dataclass(frozen=True, slots=True)
class Asked:
    """net: "" where the solver holds it as net_param.  data: None where a job brings databases of its own: a data
    layer's source is the name of one of them then, and shapes, labels and the price are not known."""

    solver: str
    net: str
    data: Data | None
    limits: Limits = field(default_factory=Limits)


class Problem(NamedTuple):
    """Why a specification is refused.  pointer: a JSON pointer into the request; line, column: from 1, 0: none."""

    pointer: str
    message: str
    detail: str = ""
    hint: str = ""
    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """What is to be trained.

    solver, net: texts of ours; they name the files of FILES, or inputs of the job, and no other.  price: as
    `training.price` has it, and `seconds` of the whole training; {} where the data is not known.  warnings: what was
    left out or changed, in sentences.  inputs: names of the databases that a job has to bring.
    """

    solver: str
    net: str
    price: Mapping[str, Any]
    warnings: Sequence[str]
    inputs: Sequence[str] = ()


class BadSpecification(SolverError):
    """A specification that is refused: all that is wrong with it, as far as it can be read."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        place = f"{first.pointer}:{first.line}:{first.column}: " if first.line else f"{first.pointer}: "
        super().__init__(f"{place}{first.message}{more}", first.detail, first.hint)
        self.problems = tuple(problems)


NET_FILE, MEAN_FILE, PREFIX = "net.prototxt", "mean.binaryproto", "snapshot"
DATABASES = {"TRAIN": "train_lmdb", "TEST": "test_lmdb"}
"""By phase: what the worker puts beside the texts."""
FILES = (NET_FILE, MEAN_FILE, *DATABASES.values())
INPUTS = "inputs"
"""The folder of what a job brings."""
INPUT_NAME = r"[a-z][a-z0-9_]{0,30}"
