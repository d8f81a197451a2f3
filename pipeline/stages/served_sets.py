"""The feature sets that this process can compute, each loaded when open work asks for it first.

A set that follows a model is loaded once for each promotion that open shipments were planned with, and the older one is
let go once two others are in use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.errors import ConfigError, NetError, PermanentError, PipelineError
from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.manifest import Plan
from pipeline.ledger.protocol import Context, Seen
from pipeline.settings import FeatureSet
from pipeline.stages.agreement import Agreement
from pipeline.stages.compute import Served
from pipeline.stages.following import Asked, Computable, Following

LOAD_AGAIN_SECONDS = 300.0
"""After so long a set that could not be loaded is tried again."""

PROMOTIONS = 2
"""Of one set, loaded at the same time: the one in use, and the one that is running out."""

Serve = Callable[[Asked, FeatureSet], Served]
"""A feature set with its files on this host, ready to compute.  Raises ConfigError or NetError."""


class ServedSets:
    """Sets of the configuration by name, as far as they are loaded; of other names nothing is kept."""

    def __init__(self, context: Context, serve: Serve, *, strict: bool) -> None:
        """strict: a set that cannot be loaded is the caller's error where there is no other; else it is said once, its
        work waits, and it is tried again now and then."""
        self._context = context
        self._serve = serve
        self._strict = strict
        self._following = Following(context)
        self._agreement = Agreement(context, self._following.configured)
        self._served: dict[Asked, Served] = {}
        """The one that was asked for last stands last."""
        self._again: dict[Asked, float] = {}
        """Sets that could not be loaded -> when to try again, in monotonic seconds."""
        self._refused: dict[Asked, PipelineError] = {}

    def __getitem__(self, asked: Asked) -> Served:
        return self._served[asked]

    @property
    def loaded(self) -> frozenset[Asked]:
        """What this host computes with just now."""
        return frozenset(self._served)

    @property
    def problems(self) -> int:
        """How many sets could not be loaded, where the caller wants to hear of it."""
        return len(self._again) if self._strict else 0

    @property
    def tried(self) -> Mapping[str, PipelineError | None]:
        """What became of loading each set: why it could not be loaded, None where it was."""
        return {str(asked): error for asked, error in {**dict.fromkeys(self._served), **self._refused}.items()}

    @property
    def refused(self) -> int:
        """How many shipments are left alone, since the gateway expects other features of them."""
        return self._agreement.refused

    def agreed(self, seen: Seen) -> Seen:
        """Without the shipments of which the gateway expects other features than this host would compute.

        Raises as `computable`.
        """
        return self._agreement.of(seen, self.computable(seen))

    def computable(self, seen: Seen) -> dict[ShipmentName, Computable]:
        """What open shipments are computed with here, as far as this host can.

        Raises ConfigError or NetError where the only set cannot be loaded, and `strict` says so.
        """
        self._following.refresh()
        old = self._context.process.clock.monotonic() - LOAD_AGAIN_SECONDS
        for given_up in [one for one, when in self._again.items() if when < old]:  # nobody has asked for it since
            del self._again[given_up], self._refused[given_up]
        found: dict[ShipmentName, Computable] = {}
        for state in seen.states:
            if state.plan is not None and not state.unreadable and state.out is None and not state.void:
                asked = self._asked(state.plan)
                if asked is not None and self._load(asked):
                    found[state.name] = Computable(asked, self._served[asked].fingerprint)
        return {name: one for name, one in found.items() if one.asked in self._served}

    def _asked(self, plan: Plan) -> Asked | None:
        """None where this host has no such set, or no files for it; that is said once."""
        context, name = self._context, plan.set
        if name not in context.settings.sets:
            context.once(
                f"set {name}",
                f"this configuration has no set {name}, and its shipments wait; "
                "add the set, or compute them on another host",
            )
            return None
        try:
            asked = self._following.asked(plan)
        except PermanentError as error:
            self._cannot(Asked(name), error)
            return None
        if asked.number:  # there is one now
            self._again.pop(Asked(name), None)
            self._refused.pop(Asked(name), None)
        return asked

    def _load(self, asked: Asked) -> bool:
        """Whether this host computes with it."""
        context = self._context
        now = context.process.clock.monotonic()
        if self._again.get(asked, now) > now:
            return False
        try:
            feature_set = self._following.configured(asked)  # each time: a model that is asked for stays on the disk
            served = self._served.pop(asked, None) or self._serve(asked, feature_set)
            _ = served.fingerprint  # reads what is left to be read: a file that changes just now is the set's trouble
        except (ConfigError, NetError) as error:
            if self._strict and len(context.settings.sets) == 1:
                raise
            self._cannot(asked, error)
            return False
        except PermanentError as error:
            if not asked.number:
                raise
            self._cannot(asked, error)
            return False
        self._served[asked] = served
        for cause in (self._again, self._refused):
            cause.pop(asked, None)
        mine = [one for one in self._served if one.set == asked.set]
        for one in mine[:-PROMOTIONS]:
            del self._served[one]
        return True

    def _cannot(self, asked: Asked, error: PipelineError) -> None:
        self._refused[asked] = error
        self._again[asked] = self._context.process.clock.monotonic() + LOAD_AGAIN_SECONDS  # a file may still be copied
        self._context.once(f"set {asked}", f"this host cannot compute set {asked}: {error}")
