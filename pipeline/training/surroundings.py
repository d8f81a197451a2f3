"""What is around a training: where its words and files go, what may ask it to end, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from pipeline.training.log import Log
from pipeline.training.metrics import Metrics
from pipeline.training.requests import Requests
from pipeline.training.sharing.exchange import Alone, Exchange
from pipeline.training.sharing.rounds import Rounds
from pipeline.training.snapshot import Places


class Ending(Enum):
    """done: max_iter.  until: what `until` asked for.  early: SIGINT.  left: SIGTERM or ESTOP."""

    DONE = "done"
    UNTIL = "until"
    EARLY = "early"
    LEFT = "left"


@dataclass(frozen=True)
class Shown:
    """What a progress display says.  loss: smoothed.  waited: seconds of waiting for data, since the start."""

    iteration: int
    loss: float
    rate: float
    examples: int
    waited: float


@dataclass(frozen=True)
class Surroundings:
    """Where a training's words and files go, and what may ask it to end.  now: since 1970.

    predictions: where those of the last test of a test net go, by its number; None: nobody wants them.
    saved: hears of each snapshot that is begun, by its iteration.  exchange: with the processes that train the same
    net; 0 of them writes snapshots, and tests.  taken: hears of each pass of the training net that is computed here.
    rounds: who computes the shards in place of this process.
    """

    log: Log
    metrics: Metrics
    requests: Requests
    places: Places
    job: str
    now: Callable[[], float]
    monotonic: Callable[[], float]
    show: Callable[[Shown], None]
    threads: int = 2
    kept: Callable[[str], Path] = lambda name: Path(name)
    predictions: Callable[[int], Path] | None = None
    saved: Callable[[int], None] = lambda iteration: None
    exchange: Exchange = field(default_factory=Alone)
    taken: Callable[[int], None] = lambda number: None
    rounds: Rounds | None = None
