"""Health as a step of daemons and of runs from cron."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.cli.wiring.metering import Meter
from pipeline.cli.wiring.service_health import service_troubles
from pipeline.clock import Clock
from pipeline.ledger.protocol import Context
from pipeline.operations.health.look import Look
from pipeline.operations.health.notify import channels
from pipeline.operations.health.step import Step
from pipeline.process.stop import Stop
from pipeline.settings import Settings
from pipeline.stage_names import ON_THE_LAKE


def _despite_estop(context: Context) -> Context:
    """ESTOP ends the work, and is what a look has to tell; a signal ends the look as well."""
    stop = context.stopping
    return replace(context, stopping=lambda: stop.signalled) if isinstance(stop, Stop) else context


@contextlib.contextmanager
def looking(
    settings: Settings, contexts: Sequence[Context], stages: Sequence[str], clock: Clock, meter: Meter
) -> Iterator[Step]:
    """The step of a process, which keeps the host's lock `health` until it ends."""
    expects = any(stage in ON_THE_LAKE for stage in stages)
    look = Look(settings, [_despite_estop(one) for one in contexts], clock, expects_lakes=expects,
                service=service_troubles(settings))  # fmt: skip
    step = Step(settings, look, channels(settings.notify), clock, meter.show)
    try:
        yield step
    finally:
        step.close()


@contextlib.contextmanager
def looked_at(
    settings: Settings, contexts: Sequence[Context], stages: Sequence[str], clock: Clock, meter: Meter, *, once: bool
) -> Iterator[None]:
    """A run from cron looks when it begins and when it has ended; a person's own run leaves health alone."""
    if not once:
        yield
        return
    with looking(settings, contexts, stages, clock, meter) as step:
        step.look()
        yield
        step.look()
