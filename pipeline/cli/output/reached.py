"""How far a run has come that is stopped before its end: what is done, what is not, and how it goes on."""

from __future__ import annotations

import signal

from pipeline.amounts import counted
from pipeline.cli.output.progress import UNITS, Show
from pipeline.process.stop import Stop
from pipeline.stage_names import AGGREGATE, COMPUTE, DELIVER, SHIP


class Reached:
    """A display (`progress.Show`) that counts what it shows.  Once nobody reads it, the run is asked to end."""

    def __init__(self, show: Show, stop: Stop) -> None:
        self._show = show
        self._stop = stop
        self._done: dict[str, int] = {}
        self._to_do: dict[str, int] = {}

    def __call__(self, stage: str, done: int, to_do: int) -> None:
        self._done[stage] = self._done.get(stage, 0) + done
        self._to_do[stage] = self._to_do.get(stage, 0) + to_do
        try:
            self._show(stage, done, to_do)
        except BrokenPipeError:
            self._stop.ask(signal.SIGPIPE)

    def told(self) -> str:
        """One line for who stopped the run."""
        first = "Type the same command to go on."
        if self._stop.estop:
            first = "`hathi start` takes ESTOP back; then type the same command to go on."
        return f"stopped by {self._stop.why}: {self._so_far()}. {first}"

    def _so_far(self) -> str:
        done, to_do = self._done.get(COMPUTE, 0), self._to_do.get(COMPUTE, 0)
        if done < to_do:
            images = counted(to_do, "image is done", "images are done")
            return f"{done:,} of {images}; those of an unfinished batch are fetched again"
        parts = [counted(done, "image is done", "images are done")] if done else []
        for stage, what in ((SHIP, "shipped"), (AGGREGATE, "aggregated"), (DELIVER, "delivered")):
            if self._done.get(stage):
                parts.append(f"{self._done[stage]:,} {UNITS[stage]} are {what}")
        return ", ".join(parts) or "nothing was finished yet"
