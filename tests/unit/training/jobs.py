"""Documents of a training, as tests write them."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.ledger.bodies import Body
from pipeline.ledger.layout import JobKeys, Keys
from pipeline.ledger.trainings import JobFile, JobSnapshot, JobSpec, Reached
from pipeline.training.state import Job, derive, parent_of, wanted

SPEC = JobSpec(model="lenet", solver="base_lr: 0.1", max_iter=20, every=5)
KEYS: JobKeys = Keys("shop").job(SPEC.name())
AT = "20261120T185900Z"


def file_of(content: str, name: str = "net.caffemodel") -> JobFile:
    return JobFile(name=name, key=KEYS.file("0", name), size=1, sha256=(content * 64)[:64])


def link(iteration: int, before: Reached | None = None, rows: Sequence[str] = (), content: str = "a") -> JobSnapshot:
    return JobSnapshot(
        iteration=iteration, parent=parent_of(before), files=(file_of(content),), rows=tuple(rows),
        process="box", attempt=1, at=AT,
    )  # fmt: skip


def job_of(bodies: dict[str, Body], troubles: dict[str, Exception] | None = None, *, chain: bool = False) -> Job:
    """The state where these bodies stand, read as a store gives them back."""
    keys = sorted({**bodies, **(troubles or {})})
    asked = wanted(KEYS, keys, chain=chain)
    found = {key: bodies[key] for key in asked if key in bodies}
    return derive(KEYS, [(key, 1.0 + number) for number, key in enumerate(keys)], found, troubles)
