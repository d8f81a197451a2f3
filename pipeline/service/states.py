"""The one table of what may happen to work: from which state to which, and by what."""

from __future__ import annotations

from pipeline.service.words import State

TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

MOVES: dict[str, tuple[tuple[State, State], ...]] = {
    "ready": ((State.WAITING, State.QUEUED),),
    "hopeless": ((State.WAITING, State.FAILED),),
    "claim": ((State.QUEUED, State.RUNNING),),
    "take over": ((State.RUNNING, State.RUNNING),),
    "release": ((State.RUNNING, State.QUEUED), (State.RUNNING, State.CANCELLED)),
    "strike": ((State.RUNNING, State.QUEUED), (State.RUNNING, State.FAILED), (State.RUNNING, State.CANCELLED)),
    "lose": ((State.RUNNING, State.FAILED),),
    "finish": tuple((State.RUNNING, to) for to in (State.SUCCEEDED, State.FAILED, State.CANCELLED)),
    "cancel": ((State.WAITING, State.CANCELLED), (State.QUEUED, State.CANCELLED), (State.RUNNING, State.CANCELLED)),
}
"""By what happens: ready, what it waited for is there; hopeless, it will never be; take over, a lease ended and another
worker goes on; release, a worker parts with it in good order; strike, its process died and the worker saw it; lose, too
many leases ended one after the other; cancel, a person ended it (of running work only where nobody holds it)."""


def may(happening: str, before: State, after: State) -> bool:
    """Whether that leads from one state to the other."""
    return (before, after) in MOVES[happening]


def sources(happening: str) -> tuple[State, ...]:
    """The states in which that may happen: what stands in the WHERE of its statement."""
    return tuple(dict.fromkeys(before for before, _ in MOVES[happening]))
