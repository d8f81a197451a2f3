"""What the service answers, as types; out of pipeline/service/http/openapi.json.

`python -m tests.unit.service.test_openapi` writes this file anew.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

Role = Literal["viewer", "member", "operator", "admin"]


class Me(TypedDict):
    name: str
    platform: bool
    quotas: dict[str, int]
    role: Role
    tenant: str
    tenant_id: str
    used: dict[str, int]
    user_id: str


class Datafile(TypedDict):
    complete: bool
    created_at: float
    id: str
    name: str
    received: int
    size: int


class Side(TypedDict):
    examples: int
    labels: dict[str, int]


class Contents(TypedDict):
    classes: list[str]
    digest: str
    duplicates: int
    entries: int
    examples: int
    labels: dict[str, int]
    rejected: dict[str, int]
    sides: dict[str, Side]
    warnings: list[str]


State = Literal["waiting", "queued", "running", "succeeded", "failed", "cancelled"]


class Dataset(TypedDict):
    contents: Contents | None
    created_at: float
    datafile_id: str
    detail: str
    extends_id: str | None
    finished_at: float | None
    id: str
    name: str
    progress: dict[str, Any]
    reason: str | None
    state: State


class Solver(TypedDict):
    created_at: float
    dataset_id: str | None
    id: str
    inputs: list[str]
    name: str
    net: str
    price: dict[str, Any] | None
    solver: str
    warnings: list[str]


class Resumes(TypedDict):
    iteration: int | None
    training_job_id: str


class Job(TypedDict):
    attempt: int
    cancel_requested: bool
    created_at: float
    detail: str
    finished_at: float | None
    id: str
    inputs: dict[str, str]
    max_iter: int | None
    max_seconds: float
    name: str
    priority: int
    progress: dict[str, Any]
    reason: str | None
    result: dict[str, Any] | None
    resumes: Resumes | None
    solver_id: str
    started_at: float | None
    state: State


class JobSeen(TypedDict):
    attempt: int
    cancel_requested: bool
    created_at: float
    detail: str
    finished_at: float | None
    id: str
    inputs: dict[str, str]
    max_iter: int | None
    max_seconds: float
    name: str
    position: int | None
    priority: int
    progress: dict[str, Any]
    reason: str | None
    result: dict[str, Any] | None
    resumes: Resumes | None
    solver_id: str
    started_at: float | None
    state: State
    waits_for: list[str]


class SnapshotFile(TypedDict):
    name: str
    sha256: str
    size: int


class Snapshot(TypedDict):
    attempt: int
    created_at: float
    files: list[SnapshotFile]
    iteration: int
    size: int


class Model(TypedDict):
    aliases: dict[str, int]
    created_at: float
    id: str
    name: str


class Lineage(TypedDict):
    dataset_id: str | None
    inputs: dict[str, str]
    iteration: int
    solver_id: str
    training_job_id: str


class Version(TypedDict):
    created_at: float
    created_by: str
    figures: dict[str, float]
    files: list[SnapshotFile]
    labels: list[str] | None
    lineage: Lineage
    model_id: str
    note: str
    number: int


class Alias(TypedDict):
    alias: str
    version: int


class Pictures(TypedDict):
    channels: int
    crop: int
    mean: list[float] | str | None
    scale: float
    size: list[int]


class Preprocessing(TypedDict):
    channel_order: NotRequired[str]
    mean: NotRequired[list[float]]
    scale: NotRequired[float]


class Classifier(TypedDict):
    alias: str | None
    classes: int
    created_at: float
    id: str
    iteration: int | None
    labels: list[str]
    model_id: str | None
    name: str
    pictures: Pictures | None
    preprocessing: Preprocessing | None
    probabilities: bool
    shape: list[int]
    training_job_id: str | None
    version: int | None


class Failed(TypedDict):
    detail: str
    reason: str
    retriable: bool


class Prediction(TypedDict):
    index: int
    label: str
    probability: float | None
    score: float


class Classified(TypedDict):
    failure: Failed | None
    name: str
    predictions: list[Prediction] | None


class InUse(TypedDict):
    before: str
    fingerprint: str
    lake: str
    model: str
    new: bool
    number: int


class BackFill(TypedDict):
    computed: int
    delivered: int
    failures: int
    features: int
    refs: int
    snapshots: int


class PromotionSeen(TypedDict):
    alias: str | None
    asked_by: str
    attempt: int
    backfill: bool
    created_at: float
    detail: str
    feature_set: str
    finished_at: float | None
    id: str
    in_use: list[InUse] | None
    lake: str | None
    model_id: str | None
    number: int | None
    progress: BackFill | None
    reason: str | None
    started_at: float | None
    state: State
    version: int | None
    why: str


class Promotion(TypedDict):
    alias: str | None
    asked_by: str
    attempt: int
    backfill: bool
    created_at: float
    detail: str
    feature_set: str
    finished_at: float | None
    id: str
    in_use: list[InUse] | None
    lake: str | None
    model_id: str | None
    number: int | None
    reason: str | None
    started_at: float | None
    state: State
    version: int | None
    why: str
