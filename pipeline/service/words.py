"""What travels through the service: who asks, what work is and how it ends.  Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """What a member may do; each may do what those before it may."""

    VIEWER = "viewer"
    MEMBER = "member"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, other: Role) -> bool:
        """Whether who has this role may do what `other` may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


class State(StrEnum):
    """Where work is; the last three never change again."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Reason(StrEnum):
    """Why work failed: a closed list."""

    BAD_SPEC = "bad_spec"
    BAD_ARCHIVE = "bad_archive"
    NO_DATA = "no_data"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    TIME_LIMIT = "time_limit"
    DISK_LIMIT = "disk_limit"
    CRASHED = "crashed"
    ENGINE_MISSING = "engine_missing"
    DEPENDENCY_FAILED = "dependency_failed"
    OVERTAKEN = "overtaken"


class Slot(StrEnum):
    """Work of one slot never waits behind work of another."""

    TRAIN = "train"
    LIGHT = "light"


class Part(StrEnum):
    """A role of the database: what a connection may see (`database/wall.py`)."""

    TENANT = "hathi_tenant"
    WORKER = "hathi_worker"
    PLATFORM = "hathi_platform"


@dataclass(frozen=True, slots=True)
class Realm:
    """Who a transaction acts for.  tenant: whose rows alone are seen; "" where the part sees its tables whole."""

    part: Part
    tenant: str = ""


WORKER = Realm(Part.WORKER)
PLATFORM = Realm(Part.PLATFORM)


def scope(tenant: str) -> Realm:
    """The realm of one tenant.  Raises ValueError for none: no row would be seen, and nobody would know why."""
    if not tenant:
        raise ValueError("a scope has a tenant")
    return Realm(Part.TENANT, tenant)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks, as the token says it."""

    tenant: str
    user: str
    token: str
    role: Role
    platform: bool = False
    """Whether it may also do what belongs to the installation: tenants, users, scaling."""

    @property
    def realm(self) -> Realm:
        return scope(self.tenant)


@dataclass(frozen=True, slots=True)
class Claimed:
    """Work in a worker's hands.  epoch: what fences it; lease_seconds: for so long without a beat."""

    tenant: str
    id: str
    kind: str
    epoch: int
    body: dict[str, Any]
    cancel: bool
    """Somebody wants it to end already."""
    seconds_left: float
    """Of its wall time; it is over where nothing is left."""


@dataclass(frozen=True, slots=True)
class Beaten:
    """What a beat was told.  cancel: end it."""

    cancel: bool


@dataclass(frozen=True, slots=True)
class Ending:
    """How work ends.  state: of the last three."""

    state: State
    reason: Reason | None = None
    detail: str = ""
    result: dict[str, Any] | None = None
