"""Deals turns: one stage after another over one lake, each through the same protocol (`stages.turn`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor

from pipeline.errors import PipelineError, Stopped
from pipeline.ledger.protocol import Context
from pipeline.sources.found import Named
from pipeline.stage_names import AGGREGATE, COMPUTE, DELIVER, SHIP
from pipeline.stages.aggregating import Aggregating
from pipeline.stages.computing import Computing
from pipeline.stages.delivering import Delivering
from pipeline.stages.performer import Here, Performer
from pipeline.stages.said import Causes, Said
from pipeline.stages.served_sets import Serve, ServedSets
from pipeline.stages.shipping import Shipping
from pipeline.stages.tally import Tally
from pipeline.stages.turn import Polls, Stage, Turn


class LakeStages:
    """The stages of one lake, as one process takes them in turn."""

    def __init__(
        self,
        context: Context,
        serve: Serve,
        *,
        strict: bool,
        performer: Performer | None = None,
        readers: Executor | None = None,
    ) -> None:
        """strict: as ServedSets takes it.

        performer: who computes and aggregates; this process when absent.
        readers: whose threads ship; the calling thread when absent.
        """
        self._context = context
        self._shipping = Shipping(context, readers)
        sets, performer = ServedSets(context, serve, strict=strict), performer or Here()
        self._stages: dict[str, Stage] = {
            SHIP: self._shipping,
            COMPUTE: Computing(sets, performer),
            AGGREGATE: Aggregating(sets, performer),
            DELIVER: Delivering(),
        }
        self._polls = {stage: Polls() for stage in self._stages}
        """Each stage goes round the open shipments on its own."""
        name = context.lake_name if len(context.settings.lakes) > 1 else ""
        monotonic = context.process.clock.monotonic
        causes: Causes = {}
        self._said = {stage: Said(context.say, stage, name, monotonic, causes) for stage in self._stages}

    @property
    def context(self) -> Context:
        return self._context

    @property
    def source_troubles(self) -> Mapping[str, str]:
        """What was wrong with sources when ship last looked at them: cause and remedy, by source."""
        return self._shipping.source_troubles

    @property
    def named(self) -> Named:
        """What the sources named when ship last looked at them."""
        return self._shipping.named

    def look(self, now: float) -> Named:
        """What the sources name, for prune.  now: the store's time."""
        return self._shipping.look(now, wide=True)

    def failed(self, stage: str, error: PipelineError) -> None:
        """A turn raised this, and its program lives on: it is said once, until a turn works."""
        self._said[stage].failed("", error)

    def take(self, stage: str, wanted: Callable[[], bool] = lambda: True, tally: Tally | None = None) -> Tally:
        """One turn of a stage.  wanted: False once nothing further is to be begun.  tally: the one to fill, if given.

        Raises TemporaryError or PermanentError for what stops the whole turn (the poll itself).
        """
        clock = self._context.process.clock
        began = clock.monotonic()
        tally = Tally() if tally is None else tally
        said = self._said[stage]
        one = Turn(self._context, tally, wanted, self._polls[stage], said)
        try:
            self._stages[stage].turn(one)
            one.tried[""] = None
            said.worked(what for what, error in one.tried.items() if error is None)
        except Stopped:
            tally.stopped = True
        except PipelineError as error:
            one.tried[""] = error
            raise
        finally:
            self._context.turned(stage, one.tried)
        tally.seconds = clock.monotonic() - began
        return tally
