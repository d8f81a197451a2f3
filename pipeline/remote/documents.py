"""What the service answers, as types; out of pipeline/service/http/openapi.json.

`python -m tests.unit.service.test_openapi` writes this file anew.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

Role = Literal["viewer", "member", "operator", "admin"]


class Me(TypedDict):
    user_id: str
    tenant_id: str
    tenant: str
    role: Role
    platform: bool
    quotas: dict[str, int]


class Datafile(TypedDict):
    id: str
    name: str
    size: int
    received: int
    complete: bool
    created_at: float


State = Literal["waiting", "queued", "running", "succeeded", "failed", "cancelled"]


class Side(TypedDict):
    examples: int
    labels: dict[str, int]


class Contents(TypedDict):
    entries: int
    examples: int
    duplicates: int
    rejected: dict[str, int]
    labels: dict[str, int]
    classes: list[str]
    sides: dict[str, Side]
    warnings: list[str]
    digest: str


class Dataset(TypedDict):
    id: str
    name: str
    datafile_id: str
    extends_id: str | None
    state: State
    reason: str | None
    detail: str
    progress: dict[str, Any]
    contents: Contents | None
    created_at: float
    finished_at: float | None


class Solver(TypedDict):
    id: str
    name: str
    created_at: float
    solver: str
    net: str
    dataset_id: str | None
    inputs: list[str]
    price: dict[str, Any] | None
    warnings: list[str]


class Job(TypedDict):
    id: str
    name: str
    state: State
    reason: str | None
    detail: str
    solver_id: str
    inputs: dict[str, str]
    priority: int
    max_seconds: float
    attempt: int
    progress: dict[str, Any]
    result: dict[str, Any] | None
    cancel_requested: bool
    created_at: float
    started_at: float | None
    finished_at: float | None


class JobSeen(TypedDict):
    id: str
    name: str
    state: State
    reason: str | None
    detail: str
    solver_id: str
    inputs: dict[str, str]
    priority: int
    max_seconds: float
    attempt: int
    progress: dict[str, Any]
    result: dict[str, Any] | None
    cancel_requested: bool
    created_at: float
    started_at: float | None
    finished_at: float | None
    position: int | None


class SnapshotFile(TypedDict):
    name: str
    size: int
    sha256: str


class Snapshot(TypedDict):
    iteration: int
    attempt: int
    size: int
    created_at: float
    files: list[SnapshotFile]


class Model(TypedDict):
    id: str
    name: str
    aliases: dict[str, int]
    created_at: float


class Lineage(TypedDict):
    training_job_id: str
    iteration: int
    solver_id: str
    dataset_id: str | None
    inputs: dict[str, str]


class Version(TypedDict):
    model_id: str
    number: int
    lineage: Lineage
    figures: dict[str, float]
    labels: list[str] | None
    note: str
    files: list[SnapshotFile]
    created_by: str
    created_at: float


class Alias(TypedDict):
    alias: str
    version: int


class Pictures(TypedDict):
    channels: int
    size: list[int]
    crop: int
    scale: float
    mean: list[float] | str | None


class Preprocessing(TypedDict):
    channel_order: NotRequired[str]
    mean: NotRequired[list[float]]
    scale: NotRequired[float]


class Classifier(TypedDict):
    id: str
    name: str
    training_job_id: str | None
    iteration: int | None
    model_id: str | None
    version: int | None
    alias: str | None
    created_at: float
    classes: int
    labels: list[str]
    shape: list[int]
    pictures: Pictures | None
    preprocessing: Preprocessing | None
    probabilities: bool


class Prediction(TypedDict):
    label: str
    index: int
    score: float
    probability: float | None


class Failed(TypedDict):
    reason: str
    detail: str
    retriable: bool


class Classified(TypedDict):
    name: str
    predictions: list[Prediction] | None
    failure: Failed | None


class InUse(TypedDict):
    lake: str
    model: str
    number: int
    new: bool
    fingerprint: str
    before: str


class BackFill(TypedDict):
    snapshots: int
    delivered: int
    refs: int
    computed: int
    features: int
    failures: int


class PromotionSeen(TypedDict):
    id: str
    state: State
    reason: str | None
    detail: str
    feature_set: str
    model_id: str | None
    version: int | None
    alias: str | None
    number: int | None
    lake: str | None
    backfill: bool
    why: str
    asked_by: str
    attempt: int
    in_use: list[InUse] | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    progress: BackFill | None


class Promotion(TypedDict):
    id: str
    state: State
    reason: str | None
    detail: str
    feature_set: str
    model_id: str | None
    version: int | None
    alias: str | None
    number: int | None
    lake: str | None
    backfill: bool
    why: str
    asked_by: str
    attempt: int
    in_use: list[InUse] | None
    created_at: float
    started_at: float | None
    finished_at: float | None
