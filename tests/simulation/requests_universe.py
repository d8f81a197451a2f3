"""Promotions that tenants of the service ask for: two workers at one request, as one that froze and the one that came
after it, beside a person who promotes by hand.  No lease holds them apart here: the bucket alone has to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from unittest import mock

from pipeline.app import promoting
from pipeline.app.candidates import Files, of_files
from pipeline.app.promotions import _put
from pipeline.errors import PipelineError
from pipeline.service.promotion import Order, Overtaken
from tests.simulation.laws import Violation
from tests.simulation.promotion_laws import MODEL, PromotionLaws
from tests.simulation.promotion_universe import KINDS, PromotionUniverse
from tests.simulation.scheduler import Proc

EACH_SECONDS = 30.0
"""So long both work at one request."""


@dataclass
class RequestsUniverse(PromotionUniverse):
    """Without shipments: what is promoted, and by which request."""

    done: dict[str, set[int]] = field(default_factory=dict)
    """Of each request the numbers that its workers were told."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.scheduler.procs.clear()
        for _ in range(2):
            self.scheduler.add("worker", self._work)
        self.scheduler.add("person", self._promote_soon)

    def _promote_soon(self, proc: Proc) -> None:
        context = self._context(proc, lambda: False)
        while True:
            self.scheduler.sleep(proc, 20.0 * self.random.random())
            self._tried(proc, lambda: self.promote(context, self._candidate(context)))

    def _work(self, proc: Proc) -> None:
        """A worker that claims the request of the hour, and does it once more where it was killed."""
        context = self._context(proc, lambda: False)
        while True:
            number = int(self.hand.at // EACH_SECONDS)
            request = f"pr_{number}"
            candidate = of_files(Files(net=self._nets / f"{number % KINDS}.prototxt"))
            wanted = promoting.Wanted(MODEL, candidate, by="ann", request=request)

            def put(wanted: promoting.Wanted = wanted) -> None:
                order = Order(wanted.request, "demo", "", None, wanted.by, "", False)
                told = _put(promoting.judge(context, wanted), order, lambda: True)
                if told.new:
                    self.done.setdefault(wanted.request, set()).add(told.number)

            self._tried(proc, put)
            self.scheduler.sleep(proc, 5.0 * self.random.random())

    def _tried(self, proc: Proc, what: Callable[[], None]) -> None:
        try:
            what()
        except (PipelineError, Overtaken) as error:
            self.said.append(f"{proc.name}: {error}")

    def run(self, steps: int) -> None:
        """Faults for so many steps.  Raises Violation.

        What a net is, and how it differs from the one in use, is looked at elsewhere.
        """
        with contextlib.ExitStack() as stack:
            for name, answer in (("_fits", "f"), ("_before", "f"), ("_others", []), ("_running", [])):
                stack.enter_context(mock.patch.object(promoting, name, lambda *given, answer=answer: answer))
            for _ in range(steps):
                self.scheduler.step()
        assert isinstance(self.laws, PromotionLaws)
        for request, numbers in self.done.items():
            mine = self.laws.requests.get(request, "0")
            if numbers != {int(mine.rpartition("/")[2])}:
                raise Violation(f"workers were told {sorted(numbers)} of {request}, which is {mine}")
