"""Which files of a training may go: those of all snapshots but the last two, the best one and the model.

The keys of snapshots stay: they are the chain, and hold its metrics.  No I/O.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from pipeline.ledger.trainings import JobAttemptEnd, Reached
from pipeline.training.outputs import ACCURACY, LOSS, Kinds, is_element, kind_of, kinds_within
from pipeline.training.state import Job, parent_of

LAST = 2
"""So many snapshots stay whatever they are."""


def rows_of(job: Job) -> list[dict[str, Any]]:
    """All rows of metrics of a training, each once, in order.  job: with its whole chain."""
    texts = [row for iteration in job.iterations if (one := job.snapshots.get(iteration)) for row in one.rows]
    texts += job.out.rows if job.out is not None else ()
    return [json.loads(text) for text in texts]


def best_of(job: Job) -> int | None:
    """The iteration of the best snapshot, the first of equal ones.  job: with its whole chain."""
    kinds = kinds_within(job.spec.solver) if job.spec is not None else {}
    return best_among(rows_of(job), job.snapshots, kinds)


def best_among(rows: Iterable[Mapping[str, Any]], iterations: Container[int], kinds: Kinds) -> int | None:
    """The best of the snapshots of these iterations, the first of equal ones.

    Best is the greatest accuracy that a test of it gave; where no test gives one, the least loss.  kinds: of outputs,
    by blob.  None: none was tested.
    """
    tests = [row for row in rows if row.get("kind") == "test" and row["step"] in iterations]
    for kind, sign in ((ACCURACY, 1.0), (LOSS, -1.0)):
        scores: dict[int, float] = {}
        for row in tests:
            for name, value in row.get("values", {}).items():
                wanted = kind_of(name, kinds) == kind and not is_element(name)
                if wanted and isinstance(value, int | float) and math.isfinite(value):
                    scores[row["step"]] = max(sign * value, scores.get(row["step"], -math.inf))
        if scores:
            return max(sorted(scores), key=scores.__getitem__)
    return None


def kept(job: Job) -> frozenset[str]:
    """The data that stays.  job: with its whole chain."""
    stay: list[Reached] = [job.snapshots[iteration] for iteration in job.iterations[-LAST:]]
    best = best_of(job)
    if best is not None:
        stay.append(job.snapshots[best])
    stay += [one for one in _partings(job) if one.parent == parent_of(job.newest) and not job.closed]
    keys = {file.key for one in stay for file in one.files}
    keys |= {file.key for file in (*job.out.files, *job.out.predictions)} if job.out is not None else set()
    keys |= {file.key for file in job.spec.weights} if job.spec is not None else set()
    return frozenset(keys)


def forgettable(job: Job, data: Mapping[str, float], old: float) -> Iterator[tuple[str, str]]:
    """(key, why) of what may go.  job: with its whole chain.  data: times by key; old: what nobody names goes before.

    Of a training that is open only what a snapshot or a parting names may go: what nobody names may be on its way.
    """
    if job.unreadable or any(iteration not in job.snapshots for iteration in job.iterations):
        return
    stay = kept(job)
    passed = {key: f"the training is {at - of} iterations further" for of, at, key in _passed(job)}
    gone = job.closed or job.spec is None
    for key, modified in data.items():
        if key in stay:
            continue
        if key in passed:
            yield key, passed[key]
        elif gone and modified < old:
            yield key, "no document of its training names it"


def _passed(job: Job) -> Iterable[tuple[int, int, str]]:
    last = job.iterations[-1] if job.iterations else 0
    for one in (*job.snapshots.values(), *_partings(job)):
        yield from ((one.iteration, max(last, one.iteration), file.key) for file in one.files)


def _partings(job: Job) -> Iterator[Reached]:
    for made in job.tries:
        if isinstance(made.end, JobAttemptEnd) and made.end.parting is not None:
            yield made.end.parting
