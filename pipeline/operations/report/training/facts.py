"""What the page of a training tells, as values.  Times are seconds since 1970, UTC."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.training.predictions.judgement import Judgement

Row = dict[str, Any]
"""One of metrics.jsonl: step, time, kind, values."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """iteration: from which on it trained.  at, ended: None and "" where nothing says it.  why: of its end."""

    number: int
    process: str
    iteration: int
    at: float | None = None
    ended: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """bytes: of its files.  there: they are not pruned."""

    iteration: int
    at: float | None
    bytes: int
    best: bool = False
    there: bool = True


@dataclass(frozen=True)
class Training:
    """state: in a word.  why: what there is to say of it.  of: the iteration at which it ends; None: nothing says it.

    facts: (name, value) of solver, data and engine.  kinds: of outputs by their blob: "loss" or "accuracy".
    """

    title: str
    made: float
    state: str
    why: str
    iteration: int
    of: int | None
    rows: tuple[Row, ...]
    snapshots: tuple[Snapshot, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    kinds: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What is not in here, and why."""
