"""Which files a set computes with, where it follows a model (docs/protocol.md 16).

A shipment is computed with the promotion that its plan names, whatever was promoted since.  What is planned anew takes
the newest one, which is looked up once a turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PermanentError
from pipeline.ledger import promotions
from pipeline.ledger.manifest import Plan, Promoted
from pipeline.ledger.model_files import folder_of, forget
from pipeline.ledger.promotions import Promotion
from pipeline.ledger.protocol import Context
from pipeline.settings import FeatureSet, Settings


class NotPromoted(PermanentError):
    """A model that was never promoted: what follows it waits for a person, and nothing is wrong."""


@dataclass(frozen=True, order=True)
class Asked:
    """What computes a shipment: a set with the files that it names, or with those of a promotion."""

    set: str
    model: str = ""
    number: int = 0
    """0: the set names its files."""

    @property
    def promoted(self) -> Promoted | None:
        return Promoted(model=self.model, number=self.number) if self.number else None

    def __str__(self) -> str:
        return f"{self.set} by {self.model}@{self.number}" if self.number else self.set


@dataclass(frozen=True)
class Computable:
    """What this host would compute a shipment with."""

    asked: Asked
    fingerprint: str


class Following:
    """Models as one process of one lake sees them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._newest: dict[str, Promoted | None] = {}
        self._verified: set[str] = set()

    @property
    def state(self) -> Path:
        """This host's folder."""
        return Path(self._context.settings.state)

    def refresh(self) -> None:
        """A turn begins: what was promoted meanwhile is in use from here on."""
        self._newest.clear()

    def newest(self, model: str) -> Promoted:
        """The promotion in use, looked up once a turn.  Raises PermanentError where there is none."""
        if model not in self._newest:
            self._newest[model] = promotions.newest(self._context, model)
        found = self._newest[model]
        if found is None:
            raise NotPromoted(
                f"model {model} was never promoted in lake {self._context.lake_name}",
                "a set that follows it has no net yet",
                f"hathi promote MODEL SET puts its first files there, for the sets with model = {model!r}",
            )
        return found

    def asked(self, plan: Plan) -> Asked:
        """What a shipment is computed with here.  plan: of a set that is configured."""
        model = self._context.settings.sets[plan.set].model
        if model is None:
            return Asked(plan.set)
        planned = plan.expects.promoted if plan.expects is not None else None
        promoted = planned or self.newest(model)
        return Asked(plan.set, promoted.model, promoted.number)

    def newest_of(self, name: str) -> Asked:
        """What a set computes with that is planned now."""
        model = self._context.settings.sets[name].model
        if model is None:
            return Asked(name)
        promoted = self.newest(model)
        return Asked(name, promoted.model, promoted.number)

    def configured(self, asked: Asked) -> FeatureSet:
        """The set, its files on this host's disk.

        Raises PermanentError where the promotion or a file of it is lost, TemporaryError where the bucket does not
        answer.
        """
        one = self._context.settings.sets[asked.set]
        promoted = asked.promoted
        if promoted is None:
            return one
        promotion = promotions.read(self._context, promoted)
        known = promotion.digest in self._verified
        folder = folder_of(self._context, promotion, self._verified)
        if not known:
            forget(self._context)
        return with_files(one, promotion, str(folder))

    def settings(self, name: str) -> Settings:
        """The settings with the files of the promotion in use in the place of the set's model; raises as `configured`.

        For whoever loads one set by itself.
        """
        settings = self._context.settings
        return with_set(settings, name, self.configured(self.newest_of(name)))


def with_files(one: FeatureSet, promotion: Promotion, folder: str) -> FeatureSet:
    """A set that follows a model as one that names its files.  folder: where they lie."""
    named = {file.role: f"{folder}/{file.name}" for file in promotion.files}
    changes: dict[str, object] = {"model": None, "net": named["net"], "weights": named.get("weights")}
    if "mean" in named:
        changes["preprocess"] = one.preprocess.model_copy(update={"mean": named["mean"]})
    return one.model_copy(update=changes)


def with_set(settings: Settings, name: str, one: FeatureSet) -> Settings:
    """The settings with another set of this name."""
    sets: Mapping[str, FeatureSet] = {**settings.sets, name: one}
    return settings.model_copy(update={"sets": sets})
