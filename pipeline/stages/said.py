"""What the stages of one lake try in vain: a line when a cause comes, and a line when it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pipeline.errors import PipelineError, TemporaryError
from pipeline.process.troubles import TRIED_AGAIN

Causes = dict[tuple[str, str], str]
"""By stage and by what it tried: why in vain."""


class Said:
    """What was said of one stage, from turn to turn.

    What may pass by itself is said once for all tasks and all stages that it meets; anything else once for each task.
    scripts/troubles.awk reads the lines.
    """

    def __init__(
        self, say: Callable[[str], None], stage: str, lake: str, monotonic: Callable[[], float], causes: Causes
    ) -> None:
        """lake: how each line begins; "" where there is only one lake.  causes: one for all stages of the lake."""
        self._say = say
        self._stage = stage
        self._lake = f"lake {lake}: " if lake else ""
        self._monotonic = monotonic
        self._causes = causes
        self._tried: dict[str, float] = {}
        """By what was tried in vain: when last."""

    def failed(self, what: str, error: PipelineError) -> None:
        """what: the task; "" for the whole turn."""
        passing = isinstance(error, TemporaryError)
        cause = error.message if passing or not what else f"{what}: {error.message}"
        key = self._stage, what
        news, before = cause not in self._causes.values(), self._causes.get(key, cause)
        self._causes[key] = cause
        self._tried[what] = self._monotonic()
        if news:
            again = "; the next turn tries it again" if passing else ""
            self._say(f"{self._lake}{f'{what}: ' if what else ''}{error}{again}")
        self._end({before})

    def worked(self, what: Iterable[str]) -> None:
        """A turn has come to its end, and these worked; what nobody tries any more is over as well."""
        untried = [one for one, when in self._tried.items() if when < self._monotonic() - TRIED_AGAIN]
        over = {self._causes.pop((self._stage, one)) for one in {*what, *untried} & self._tried.keys()}
        self._tried = {what: self._tried[what] for stage, what in self._causes if stage == self._stage}
        self._end(over)

    def _end(self, causes: set[str]) -> None:
        for cause in sorted(causes.difference(self._causes.values())):
            how = "still fails" if self._tried else "works again"
            self._say(f"{self._lake}{self._stage} {how}; this is over: {cause}")
