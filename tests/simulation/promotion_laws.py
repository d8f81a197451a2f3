"""What must never be seen of promotions, and what must hold at rest: docs/protocol.md 16."""

from __future__ import annotations

import hashlib
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.manifest import Out, Plan, Promoted, Result
from pipeline.ledger.promotions import Promotion
from pipeline.nets.expected import expected
from pipeline.settings import FeatureSet
from tests.simulation.laws import KEYS, Laws, Violation

MODEL = "shoes"
FOLLOWING = FeatureSet(net="n", blob="out", root="features")


@lru_cache(maxsize=64)
def print_of(net: bytes) -> str:
    """The fingerprint of a set that follows the model, where its net is this text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.prototxt"
        path.write_bytes(net)
        return expected(FOLLOWING.model_copy(update={"net": str(path)}))


class PromotionLaws(Laws):
    """The laws of shipments, and over them those of promotions."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.requests: dict[str, str] = {}
        """Of each request of the service the promotion that it wrote."""

    def _bucket_changes(self, what: str, key: str, content: bytes) -> None:
        if key.startswith(KEYS.models):
            self._promoted(what, key, content)
        elif key.startswith(KEYS.models_data):
            if what == "removed" and key in self.named:
                raise Violation(f"{key} was deleted, and {self.named[key]} names it")
        else:
            super()._bucket_changes(what, key, content)

    def _promoted(self, what: str, key: str, content: bytes) -> None:
        if what == "removed" or key in self.history:
            raise Violation(f"history was modified: {what} {key}")
        self.history[key] = content
        body = self.body(Promotion, key)
        if body.request and body.request in self.requests:
            raise Violation(f"{key} and {self.requests[body.request]} are of one request, {body.request}")
        self.requests[body.request] = key
        for file in body.files:
            there = self.bucket.files.get(file.key, (b"", 0.0, 0))[0]
            if hashlib.sha256(there).hexdigest() != file.sha256:
                raise Violation(f"{key} names {file.key}, which does not hold its bytes")
            self.named[file.key] = key

    def _committed(self, key: str, content: bytes) -> None:
        super()._committed(key, content)
        name = ShipmentName.parse(key.split("/")[2])
        rest = key.split("/", 3)[3]
        if rest == "plan":
            self._says_what_it_comes_from(name)
        elif rest == "out" or "/r/" in rest:
            body = self.body(Out if rest == "out" else Result, key)
            wanted = self.planned_print(name)
            if wanted and body.fingerprint and body.fingerprint != wanted:
                raise Violation(f"{key} has features of another promotion than the plan of {name}")

    def promoted_of(self, name: ShipmentName) -> Promoted | None:
        plan = self.body(Plan, KEYS.plan(name))
        promoted: Promoted | None = plan.expects.promoted if plan.expects is not None else None
        return promoted

    def planned_print(self, name: ShipmentName) -> str:
        """What a shipment's features have to be of, by the bytes that were promoted; "" where its set has a net."""
        promoted = self.promoted_of(name)
        if promoted is None:
            return ""
        body = self.body(Promotion, KEYS.promotion(promoted.model, promoted.number))
        if body is None:
            raise Violation(f"{name} was planned with {promoted}, which does not exist")
        return print_of(self.bucket.files[body.files[0].key][0])

    def _says_what_it_comes_from(self, name: ShipmentName) -> None:
        plan = self.body(Plan, KEYS.plan(name))
        if plan.set == "demo" and self.promoted_of(name) is None:
            raise Violation(f"the plan of {name} names no promotion")
        if plan.kind in ("retry", "release") and self.promoted_of(name) != self.promoted_of(
            ShipmentName.parse(plan.parent)
        ):
            raise Violation(f"{name} has another promotion than {plan.parent}, which it comes from")
        self.planned_print(name)

    def newest(self) -> int:
        """The number of the promotion in use; 0 where there is none."""
        return max((int(key.rpartition("/")[2]) for key in self.history if key.startswith(KEYS.models)), default=0)

    def check_newest(self) -> None:
        """At rest after a back-fill: the last round of each source has the promotion in use, and its features."""
        last: dict[str, ShipmentName] = {}
        there = {path for path in self.lake.files if path.startswith("refs/")}
        for name in self.names():
            plan = self.body(Plan, KEYS.plan(name))
            if plan.set == "demo" and not name.part and not name.generation and plan.snapshot.source in there:
                last[plan.snapshot.source] = max(name, last.get(plan.snapshot.source, name))
        for source, name in last.items():
            promoted, out = self.promoted_of(name), self.body(Out, KEYS.out(name))
            if promoted is None or promoted.number != self.newest():
                raise Violation(f"{source}: {name} was planned with {promoted}; in use is {self.newest()}")
            if out is not None and out.fingerprint != self.planned_print(name):
                raise Violation(f"{source}: {name} has other features than those of {promoted}")
