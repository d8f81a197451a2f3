"""One schedule with promotions: two people who promote and go back, beside ships, boxes, delivers, prune, an operator.

Each process has a state folder of its own for the models that it fetches, as hosts have.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.app import promoting
from pipeline.app.candidates import Candidate, Files, of_files, of_promotion
from pipeline.errors import PipelineError
from pipeline.ledger.layout import Keys
from pipeline.ledger.manifest import Promoted
from pipeline.ledger.protocol import Context
from pipeline.settings import FeatureSet, Settings
from pipeline.stages import operator_requests
from pipeline.stages.following import Asked
from tests.simulation.laws import Laws
from tests.simulation.promotion_laws import MODEL, PromotionLaws, print_of
from tests.simulation.scheduler import Proc
from tests.simulation.universe import Universe, simulated_settings
from tests.simulation.world import settings_of

KEYS = Keys("shop")
NET = """
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 3 dim: 2 dim: 2 }} }} }}
layer {{ name: "out" type: "Power" bottom: "data" top: "out" power_param {{ scale: {scale} }} }}
"""
KINDS = 4
"""Nets that people choose from, so that the same files are promoted more than once."""


def following_settings() -> Settings:
    """One set follows a model, the other names its net."""
    sets = {
        "demo": {"model": MODEL, "blob": "out", "root": "features", "reuse": False},
        "other": {"net": "n", "blob": "b", "root": "features2", "reuse": False},
    }
    return settings_of(**{**simulated_settings().model_dump(), "sets": sets})


@dataclass
class PromotionUniverse(Universe):
    """A seeded world in which a set's model changes."""

    settings: Settings = field(default_factory=following_settings)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._nets = Path(self._spill.name) / "nets"
        self._nets.mkdir()
        for kind in range(KINDS):
            (self._nets / f"{kind}.prototxt").write_text(NET.format(scale=kind + 1))
        for _ in range(2):
            self.scheduler.add("person", self._promote)

    def _laws(self) -> Laws:
        return PromotionLaws(self.bucket, self.lake, self.settings, lambda: self.scheduler.running)

    def _fingerprint(self, asked: Asked, feature_set: FeatureSet, upgraded: bool) -> str:
        if asked.set != "demo":
            return super()._fingerprint(asked, feature_set, upgraded)
        return print_of(Path(feature_set.net).read_bytes())

    def _context(self, proc: Proc, stopping: object) -> Context:  # type: ignore[override]
        context = super()._context(proc, stopping)  # type: ignore[arg-type]
        state = f"{self._spill.name}/{proc.kind}-{proc.number}"
        mine = replace(context, settings=self.settings.model_copy(update={"state": state}))
        self._contexts[-1] = mine
        return mine

    def _promote(self, proc: Proc) -> None:
        """A person who promotes now and then; the first one soon."""
        context = self._context(proc, lambda: False)
        self.scheduler.sleep(proc, 200.0 * self.random.random())
        while True:
            if self.scheduler.faults or not self.laws.newest():  # type: ignore[attr-defined]
                try:
                    self.promote(context, self._candidate(context))
                except PipelineError as error:
                    self.said.append(f"{proc.name}: {error}")
            self.scheduler.sleep(proc, 60.0 + 600.0 * self.random.random())

    def promote(self, context: Context, candidate: Candidate) -> None:
        """As `hathi promote` does."""
        judged = promoting.judge(context, promoting.Wanted(MODEL, candidate))
        if not judged.in_use:
            promoting.promote(judged)

    def _candidate(self, context: Context) -> Candidate:
        if self.random.random() < 0.3:
            number = self.random.randint(1, 4)
            return of_promotion(context, Promoted(model=MODEL, number=number))
        return of_files(Files(net=self._nets / f"{self.random.randrange(KINDS)}.prototxt"))

    # --- a run ---

    def run(self, steps: int) -> None:
        """As every schedule; then a last promotion without faults, a back-fill, and rest again.  Raises Violation."""
        super().run(steps)
        person = next(proc for proc in self.scheduler.procs if proc.kind == "person")
        context = self._context(person, lambda: False)
        other = self._nets / "last.prototxt"
        other.write_text(NET.format(scale=99))
        self.promote(context, of_files(Files(net=other)))
        self.change_source()
        self._come_to_rest(steps)
        for name, plan in operator_requests.newest(context, "", ["demo"]):
            if plan.snapshot.source in self.lake.files:
                operator_requests.again(context, name, plan, backfill=True)
        self._come_to_rest(steps)
        self.laws.check_at_rest()
        assert isinstance(self.laws, PromotionLaws)
        self.laws.check_newest()
