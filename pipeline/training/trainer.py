"""What an attempt asks of whoever computes a training: to begin somewhere, and to say what it has made.

A trainer knows files and iterations and no bucket; `job_trainer.py` is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Made:
    """A training at an iteration.  files: by name.  rows: JSON, made since what was made or begun before."""

    iteration: int
    files: Mapping[str, bytes | Path]
    rows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Computed:
    """What computed a training here.  engine: with its version.  cpu: the kind that decides its last bits."""

    engine: str = ""
    cpu: str = ""


@dataclass(frozen=True)
class Done:
    """The training is at its end.  rows: made after the last snapshot.  predictions: the last test's files, by name."""

    rows: tuple[str, ...] = ()
    computed: Computed = Computed()
    predictions: Mapping[str, bytes | Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Hopeless:
    """However often it is tried, it ends here without a model.  predictions: files of the last test, by name."""

    iteration: int
    cause: str
    computed: Computed = Computed()
    predictions: Mapping[str, bytes | Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Left:
    """It was asked to end.  made: where it is, where there was time to write it."""

    made: Made | None = None


class Start(Protocol):
    """What a training goes on from."""

    @property
    def iteration(self) -> int: ...

    def names(self) -> tuple[str, ...]:
        """Of its files."""

    def content(self, name: str) -> bytes:
        """Of a small file.  Raises NotFound, Damaged."""

    def save(self, name: str, path: Path) -> None:
        """Writes a file to a local path.  Raises NotFound, Damaged."""


class Trainer(Protocol):
    """Computes one training, on this host."""

    def begin(self, start: Start | None) -> None:
        """Goes on from there, whatever it did before; None: from iteration 0.  Raises NotFound, Damaged."""

    def next(self, wanted: Callable[[], bool]) -> Made | Done | Hopeless | Left:
        """Trains to the next snapshot of the chain, or to the end.  wanted: asked often; False: end at a safe point.

        Raises PipelineError for what a person has to mend.
        """

    def close(self) -> None:
        """Ends what it began."""
