"""What a tenant may still do: its limits against what it uses, judged at once and named in the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from pipeline.amounts import GB


@dataclass(frozen=True, slots=True)
class Quotas:
    """The limits of a tenant.  stored_bytes: of datafiles and what trainings made.  submitted: jobs within a minute."""

    stored_bytes: int = 50 * GB
    queued: int = 10_000
    running: int = 4
    submitted: int = 600

    @classmethod
    def of(cls, given: Mapping[str, int]) -> Quotas:
        """Those given, and the usual ones.  Raises ValueError for a name that there is not, or less than nothing."""
        known = {field.name for field in fields(cls)}
        for name, value in given.items():
            if name not in known:
                raise ValueError(f"no limit is called {name}: there are {', '.join(sorted(known))}")
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} is {value!r}: a limit is a whole number, 0 or more")
        return cls(**given)


@dataclass(frozen=True, slots=True)
class Exceeded:
    """A limit that stands in the way.  frees: in so many seconds; 0.0 where only the tenant itself can free it."""

    limit: str
    used: int
    allowed: int
    frees: float = 0.0


def judge(quotas: Quotas, limit: str, used: int, wanted: int = 1, frees: float = 0.0) -> Exceeded | None:
    """Whether so much more would be too much; None: it fits."""
    allowed = getattr(quotas, limit)
    return Exceeded(limit, used, allowed, frees) if used + wanted > allowed else None
