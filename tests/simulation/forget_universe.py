"""One schedule with an archive and persons who want to be forgotten, beside all that works.

Two gateways forget; each image is kept, and read by every shipment.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

from pipeline.errors import PipelineError
from pipeline.ledger.forgetting import Request, ask
from pipeline.ledger.layout import Keys, version_of
from pipeline.operations.forget import forget
from pipeline.records import item_id_of
from pipeline.settings import Settings
from tests.simulation.forget_laws import ForgetLaws
from tests.simulation.laws import Laws, Violation
from tests.simulation.scheduler import Proc
from tests.simulation.universe import DAY, Universe, simulated_settings
from tests.simulation.world import settings_of

KEYS = Keys("shop")


def keeping_settings() -> Settings:
    """Every image is kept, every shipment reads them, and there is room for a few; features are used again."""
    archive = {"enabled": True, "read": True, "days": 0.5, "max_bytes": 1500}
    values = simulated_settings().model_dump()
    sets = {name: {**one, "reuse": True} for name, one in values["sets"].items()}
    compute = {**values["compute"], "free_bytes": 0}
    return settings_of(**{**values, "archive": archive, "compute": compute, "sets": sets})


@dataclass
class ForgetUniverse(Universe):
    """A seeded world in which items are forgotten."""

    settings: Settings = field(default_factory=keeping_settings)

    def __post_init__(self) -> None:
        super().__post_init__()
        for _ in range(2):
            self.scheduler.add("forget", self._forget)

    def _laws(self) -> Laws:
        return ForgetLaws(self.bucket, self.lake, self.settings, lambda: self.scheduler.running)

    def _forget(self, proc: Proc) -> None:
        """A gateway whose daily prune comes often, and a person who asks there now and then."""
        context = self._context(proc, lambda: False)
        while True:
            often = 1.0 if self.scheduler.faults else 20.0
            self.scheduler.sleep(proc, often * (30.0 + 250.0 * self.random.random()))
            try:
                if self.scheduler.faults and self.random.random() < 0.5:
                    now = context.bucket.list(KEYS.forget).now
                    items = () if self.random.random() < 0.1 else (item_id_of(self.random.choice("pqrstuvw")),)
                    ask(context, Request(partner_id=self.random.randint(7, 8), items=items, at=version_of(now)))
                list(forget(context))
            except PipelineError as error:
                self.said.append(f"{proc.name}: {error}")

    def run(self, steps: int) -> None:
        """As every schedule; then until each request is done.  Raises Violation."""
        assert isinstance(self.laws, ForgetLaws)
        with contextlib.suppress(KeyError):  # a folder that is in no place until the next pass
            super().run(steps)
        try:
            for _ in range(12):
                self.hand.at += 2 * DAY
                for _ in range(1500):
                    self.scheduler.step()
                self._come_to_rest(steps)
                if all(KEYS.forgotten(number) in self.bucket.files for number in self.laws.asked):
                    break
            self.laws.check_at_rest()
            self.laws.check_forgotten()
        except KeyError as error:
            raise Violation(f"something is lost: {error}") from error
