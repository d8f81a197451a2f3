"""The feature sets that this process can compute, each loaded when open work asks for it first."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.errors import ConfigError, NetError, PipelineError
from pipeline.ledger.protocol import Context, Seen
from pipeline.stages.agreement import Agreement
from pipeline.stages.compute import Served

LOAD_AGAIN_SECONDS = 300.0
"""After so long a set that could not be loaded is tried again."""

Serve = Callable[[str], Served]
"""The feature set of a name, ready to compute.  Raises ConfigError or NetError."""


class ServedSets:
    """Sets of the configuration by name, as far as they are loaded; of other names nothing is kept."""

    def __init__(self, context: Context, serve: Serve, *, strict: bool) -> None:
        """strict: a set that cannot be loaded is the caller's error where there is no other; else it is said once, its
        work waits, and it is tried again now and then."""
        self._context = context
        self._serve = serve
        self._strict = strict
        self._agreement = Agreement(context)
        self._served: dict[str, Served] = {}
        self._again: dict[str, float] = {}
        """Sets that could not be loaded -> when to try again, in monotonic seconds."""
        self._refused: dict[str, PipelineError] = {}

    def __getitem__(self, name: str) -> Served:
        return self._served[name]

    @property
    def problems(self) -> int:
        """How many sets could not be loaded, where the caller wants to hear of it."""
        return len(self._again) if self._strict else 0

    @property
    def tried(self) -> Mapping[str, PipelineError | None]:
        """What became of loading each set: why it could not be loaded, None where it was."""
        return {**dict.fromkeys(self._served), **self._refused}

    @property
    def refused(self) -> int:
        """How many shipments are left alone, since the gateway expects other features of them."""
        return self._agreement.refused

    def agreed(self, seen: Seen) -> Seen:
        """Without the shipments of which the gateway expects other features than this host would compute.

        Raises as `fingerprints`.
        """
        return self._agreement.of(seen, self.fingerprints(seen))

    def fingerprints(self, seen: Seen) -> dict[str, str]:
        """Fingerprints of the sets that are loaded, among them those that open work asks for.

        Raises ConfigError or NetError where the only set cannot be loaded, and `strict` says so.
        """
        for state in seen.states:
            if state.plan is not None and not state.unreadable and state.out is None and not state.void:
                self._load(state.plan.set)
        return {name: served.fingerprint for name, served in self._served.items()}

    def _load(self, name: str) -> None:
        context = self._context
        if name not in context.settings.sets:
            context.once(
                f"set {name}",
                f"this configuration has no set {name}, and its shipments wait; "
                "add the set, or compute them on another host",
            )
            return
        now = context.process.clock.monotonic()
        if name in self._served or self._again.get(name, now) > now:
            return
        try:
            served = self._serve(name)
            _ = served.fingerprint  # reads what is left to be read: a file that changes just now is the set's trouble
        except (ConfigError, NetError) as error:
            if self._strict and len(context.settings.sets) == 1:
                raise
            self._refused[name] = error
            self._again[name] = now + LOAD_AGAIN_SECONDS  # a file may still be being copied
            context.once(f"set {name}", f"this host cannot compute set {name}: {error}")
        else:
            self._served[name] = served
            self._again.pop(name, None)
            self._refused.pop(name, None)
