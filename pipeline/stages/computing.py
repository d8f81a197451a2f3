"""The compute stage of one lake: batches that wait, set by set, through whoever performs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pipeline.stages import compute
from pipeline.stages.following import Asked
from pipeline.stages.opening import BatchTask
from pipeline.stages.performer import Performer
from pipeline.stages.publishing import Published
from pipeline.stages.served_sets import ServedSets
from pipeline.stages.turn import Turn


class Computing:
    """What a process keeps of the compute stage from turn to turn: its sets, and who performs."""

    def __init__(self, sets: ServedSets, performer: Performer) -> None:
        self._sets = sets
        self._performer = performer

    def turn(self, one: Turn) -> None:
        """Compute what waits for this box; a set that fails leaves the other sets at work."""
        tasks = self._batches(one)
        one.tally.problems += self._sets.problems + self._sets.refused
        one.tried.update({f"set {name}": error for name, error in self._sets.tried.items()})
        for asked in sorted({task.by for task in tasks} & self._sets.loaded):
            mine = [task for task in tasks if task.by == asked]
            one.attempt(f"compute {asked}", self._compute, one, asked, mine)

    def _batches(self, one: Turn) -> list[BatchTask]:
        """What waits for this box, of as many polls as it takes to have a shipment for each place of the window.

        A shipment is about one host, and a turn may last as long as a run: it fetches from no hosts but these.
        """
        context = one.context
        limits = context.settings.compute
        tasks: dict[BatchTask, None] = {}
        looked = 0
        while not looked or looked < one.tally.polls_to_see_all:
            seen = self._sets.agreed(one.poll())
            looked += 1
            more = compute.plan(seen, self._sets.computable(seen), limits)
            context.progress("compute", 0, compute.expected(seen.states, [task for task in more if task not in tasks]))
            tasks.update(dict.fromkeys(more))
            if not more or len({task.name for task in tasks}) >= limits.open_batches:
                break
        return list(tasks)

    def _compute(self, one: Turn, asked: Asked, tasks: list[BatchTask]) -> None:
        ended = _Ended(one.context.progress)
        context = replace(one.context, progress=ended)
        try:
            for published in self._performer.compute(context, self._sets[asked], tasks, one.wanted):
                if published is not None:
                    _count(one, published)
                ended.published(published.counts.refs if published is not None else 0)
        except BaseException:
            ended.given_up()
            raise
        one.tally.paced.update(self._sets[asked].paced)


class _Ended:
    """Progress that counts an image once: as it ends, where this process computes, else with its batch."""

    def __init__(self, progress: Callable[[str, int, int], None]) -> None:
        self._progress = progress
        self._ahead = 0
        """Images that ended and whose batch is not published."""

    def __call__(self, stage: str, done: int, to_do: int) -> None:
        self._ahead += done
        self._progress(stage, done, to_do)

    def published(self, refs: int) -> None:
        """So many images of a batch that ended."""
        told = min(refs, self._ahead)
        self._ahead -= told
        self._progress("compute", refs - told, 0)

    def given_up(self) -> None:
        """Images of batches that were not finished are done by nobody: they are fetched again."""
        self._progress("compute", -self._ahead, 0)
        self._ahead = 0


def _count(one: Turn, published: Published) -> None:
    tally = one.tally
    tally.tasks += 1
    if published.kind == "shard":
        tally.counts += published.counts
        tally.bytes += published.bytes
        tally.shipments.add(str(published.task.name))
        tally.add_reasons(published.reasons or {})
    elif published.kind in ("strike", "held"):
        tally.problems += 1
    elif published.counts.features + published.counts.failures:
        one.drop(f"batch {published.task.batch} of {published.task.name}", published.counts.refs)
