"""The loop of a solver: Solver::Step and Solver::Solve to the letter, in Caffe's order."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial

import numpy as np

from pipeline.training import divergence, log, rates
from pipeline.training.assembly import Live, Nets
from pipeline.training.feeding import Feeding
from pipeline.training.learning import Learning
from pipeline.training.metrics import values_of
from pipeline.training.network import Feeds, Network, Pass
from pipeline.training.predictions.collecting import Collecting
from pipeline.training.requests import Action
from pipeline.training.saving import Saver
from pipeline.training.sharing.passes import Sharded
from pipeline.training.sharing.rounds import Round, Rounds, averaged
from pipeline.training.smoothing import Smoothing
from pipeline.training.snapshot import Owner, Position
from pipeline.training.solver import Solver
from pipeline.training.surroundings import Ending, Shown, Surroundings
from pipeline.training.testing import Scores
from pipeline.training.updates import Clipping

F = np.float32


class Training:
    """A solver over live nets.  `iteration` is the number of updates that were made."""

    def __init__(self, solver: Solver, nets: Nets, around: Surroundings) -> None:
        self._solver, self._nets, self._around = solver, nets, around
        self._net = nets.train.network
        self._learning = Learning(solver.update, self._net)
        self.iteration = self.rate_step = self._began = 0
        self._smoothing = Smoothing(solver.display.average)
        self._feeding: list[Feeding] = []
        self._saver = Saver(solver.snapshots, nets.train.graph, around.places, Owner(around.job, solver.update.type))
        self._safe: Position | None = None
        """Where a snapshot goes on from while a test or the last display draws; None: from where everything stands."""
        self._displayed = (0, around.monotonic())
        self._hints = divergence.Hints(nets.train.graph)
        self._resumed = self._watching = False
        self._exchange = around.exchange
        self._sharded: Sharded | None = None
        if solver.shards > 1:
            passes = solver.update.iter_size // solver.shards
            self._sharded = Sharded(self._net, solver.shards, passes, self._exchange)
        self._asked: Action | None = None
        """What all processes of this training have been asked for, since their last exchange; None: it is one."""
        self._fed: Feeds | None = None
        """What the last pass was fed, until its update is made."""
        self.callbacks: list[tuple[Callable[[], None], Callable[[], None]]] = []
        """Pairs: called as an iteration starts, after its tests; and once its gradients are there."""

    def begin(self, position: Position, history: list[np.ndarray] | None = None, parent: int | None = None) -> None:
        """Goes on from there: the data and the random numbers, too.  history: of the solver's type; None: zeros."""
        self.iteration, self.rate_step = position.iteration, position.step
        self._began = position.iteration
        smoothing = self._smoothing
        smoothing.losses, smoothing.mean, smoothing.since = list(position.losses), position.smoothed, position.window
        if position.draws:
            self._nets.draws.restore(position.draws)
        if history is not None:
            self._learning.restore(history)
        batches = position.batches or (0,) * (1 + len(self._nets.tests))
        for net, states in zip(self._nets.all(), position.carried, strict=False):
            net.network.carry(states)
        self.close()
        self._feeding = [
            Feeding(net.sources, net.network.draws_of, self._nets.draws, first, self._around.threads, self._mine(net))
            for net, first in zip(self._nets.all(), batches, strict=True)
        ]
        self._saver.parent = parent
        self._safe = None
        self._resumed = bool(position.losses)

    def _mine(self, net: Live) -> Callable[[int], bool]:
        """Which passes of a net this process takes."""
        if net is self._nets.train:
            if self._around.rounds is not None:
                return lambda number: False
            return self._sharded.mine if self._sharded is not None else lambda number: True
        return lambda number: self._writes

    @property
    def _writes(self) -> bool:
        return self._exchange.rank == 0

    def written(self) -> None:
        """Until the last snapshot is on the disk.  Raises SolverError and NetError where it cannot be."""
        self._saver.wait()

    def close(self) -> None:
        """Ends the threads, after what they write is written."""
        self._saver.wait()
        for one in self._feeding:
            one.close()

    @property
    def network(self) -> Network:
        """The net that learns."""
        return self._net

    @property
    def waited(self) -> float:
        """Seconds in which the training net stood still for data."""
        return self._feeding[0].waited

    @property
    def lr(self) -> float:
        """The rate of the next update; asking moves multistep by a step when one is due, as in Caffe."""
        self.rate_step = rates.step_of(self._solver.policy, self.iteration, self.rate_step)
        return rates.rate_of(self._solver.policy, self.iteration, self.rate_step)

    def solve(self, until: int | None = None) -> Ending:
        """Trains up to max_iter, or to `until` if that is less, and ends as Caffe's Solve does."""
        solver, around = self._solver, self._around
        around.log("solver.cpp:289", f"Solving {self._nets.train.graph.name}")
        around.log("solver.cpp:290", f"Learning Rate Policy: {solver.policy.name}")
        last = solver.max_iter if until is None else min(until, solver.max_iter)
        asked = self.step(last - self.iteration, resumed=self._resumed)
        if asked is Action.LEAVE:
            return self._left()
        plan = solver.snapshots
        if plan.last and not (plan.interval and self.iteration % plan.interval == 0):
            self.snapshot()
        if asked is Action.STOP:
            around.log("solver.cpp:317", "Optimization stopped early.")
            self._saver.wait()
            return Ending.EARLY
        if last < solver.max_iter:
            if not self._saver.has(self.iteration):
                self.snapshot()
            self._hint_at_end()
            self._saver.wait()
            return Ending.UNTIL
        return self.finish()

    def finish(self) -> Ending:
        """One more pass and one more test, to show where the training ended."""
        self._safe = self._position()
        display, tests = self._solver.display, self._solver.tests
        if not self._writes:
            return Ending.DONE
        if display.interval and self.iteration % display.interval == 0:
            forward = partial(self._looked, self._net, False) if self._watching else self._net.forward
            self._smoothing.add(self._finite(forward, self._feeding[0].take()).loss, self.iteration)
            self._around.log("solver.cpp:327", f"Iteration {self.iteration}, loss = {log.number(self._smoothing.mean)}")
        if tests.interval and self.iteration % tests.interval == 0:
            asked = self._test_all()
            if asked is Action.LEAVE:
                return self._left()
        self._hint_at_end()
        self._around.log("solver.cpp:332", "Optimization Done.")
        self._saver.wait()
        return Ending.DONE

    def _hint_at_end(self) -> None:
        for hint in self._hints.ended(self.iteration, self.iteration - self._began, self._smoothing.mean):
            self._around.log("solver.cpp:239", hint, "W")

    def _left(self) -> Ending:
        why = self._around.requests.why
        if self.iteration and not self._saver.has(self.iteration):
            self.snapshot()
        self._around.log("solver.cpp:317", f"Optimization stopped early: {why}; the same command goes on from here.")
        self._saver.wait()
        return Ending.LEFT

    def step(self, iterations: int, resumed: bool = False) -> Action:
        """So many iterations; ends before that when somebody asks for it.  resumed: display's window goes on."""
        last = self.iteration + iterations
        if not resumed:
            self._smoothing.begin(self.iteration)
        self._resumed = False
        self._displayed = (self.iteration, self._around.monotonic())
        plan, tests = self._solver.snapshots, self._solver.tests
        while self.iteration < last:
            self._net.clear()
            if tests.interval and self.iteration % tests.interval == 0 and (self.iteration or tests.initial):
                self._safe = self._position()
                asked = self._test_all()
                if asked in (Action.STOP, Action.LEAVE):
                    return asked
            self._safe = None
            for on_start, _ in self.callbacks:
                on_start()
            if self._around.rounds is not None and self._around.rounds.local_steps > 1:
                self._train_apart(self._around.rounds, last)
            else:
                self._iterate()
            self._saver.look()
            asked = self._around.requests.next() if self._asked is None else self._asked
            due = plan.interval and self.iteration % plan.interval == 0
            if due or asked is Action.SNAPSHOT:
                self.snapshot()
            if asked in (Action.STOP, Action.LEAVE):
                return asked
        return Action.NONE

    def _iterate(self) -> None:
        """iter_size batches forward and backward, then one update."""
        size, display = self._solver.update.iter_size, self._solver.display
        shown = bool(display.interval) and self.iteration % display.interval == 0
        self._watching = shown and display.debug
        run = partial(self._looked, self._net, True) if self._watching else self._net.backward
        loss, result = self._passes(size, partial(self._finite, run))
        self._smoothing.add(float(loss / F(size)), self.iteration)
        if shown:
            self._display(result)
        for _, on_gradients_ready in self.callbacks:
            on_gradients_ready()
        norms = self._learning.norms() if shown else {}
        rate, norm = self.update(shown)
        self._fed = None
        if shown:
            if not math.isnan(norm):
                norms["grad_norm"] = norm
            self._measure(result, float(loss / F(size)), rate, norms)
            for hint in self._hints.of(self.iteration, self._smoothing.mean):
                self._around.log("solver.cpp:239", hint, "W")
        fed = self._feeding[0]
        self._around.show(Shown(self.iteration, self._smoothing.mean, rate, fed.examples, fed.waited))

    def _passes(self, size: int, run: Callable[[Feeds], Pass]) -> tuple[F, Pass]:
        """So many passes with gradients: the sum of their losses, and the last one."""
        feeding, told = self._feeding[0], self._around.taken

        def taken(feeds: Feeds) -> Pass:
            told(feeding.number - 1)
            return run(feeds)

        if self._sharded is not None and self._around.rounds is not None:
            total, answers = self._around.rounds.compute(self._round(0))
            feeding.skip(size)
            found = self._sharded.settle(total, answers)
            return found.loss, found.last
        if self._sharded is not None:
            found = self._sharded.iterate(feeding, taken, self._around.requests.next)
            self._asked = found.asked
            return found.loss, found.last
        loss = F(0)
        for _ in range(size):
            result = taken(feeding.take())
            loss = F(loss + F(result.loss))
        return loss, result

    def _round(self, steps: int) -> Round:
        net, copied = self._net, self._net.array
        history = tuple(copied(one) for one in self._learning.history) if steps else ()
        weights = tuple(net.weights(one.slot) for one in net.learned)
        draws = self._nets.draws.state()
        return Round(self.iteration, self.rate_step, self._feeding[0].number, draws, steps, weights, history)

    def _train_apart(self, rounds: Rounds, last: int) -> None:
        """Local steps of every shard, up to the next iteration at which something is due; then the average of all."""
        plan, tests, display = self._solver.snapshots, self._solver.tests, self._solver.display
        at, size = self.iteration, self._solver.update.iter_size
        due = [(at // every + 1) * every for every in (plan.interval, tests.interval, display.interval) if every]
        steps = min(rounds.local_steps, last - at, *(one - at for one in due))
        total, told = rounds.compute(self._round(steps))
        values = averaged(total)
        for one, value in zip(self._net.learned, values, strict=False):
            self._net.load(one.slot, value)
        self._learning.restore(values[len(self._net.learned) :])
        losses = np.array([shard for block in told for shard in json.loads(block)], np.float32).mean(axis=0)
        self._feeding[0].skip(size * steps)
        for loss in losses:
            self._smoothing.add(float(loss), self.iteration)
            rate = self.lr
            self.iteration += 1
        if display.interval and at % display.interval == 0:
            where, now = self._displayed, self._around.monotonic()
            speed = (at - where[0]) / (now - where[1] or 1)
            says = log.displayed(at, speed, now - where[1], display.interval, float(losses[0]))
            self._around.log("solver.cpp:239", says)
            self._around.metrics.add(at, self._around.now(), "train", {"train/loss": float(losses[0]), "lr": rate})
            self._displayed = (at, now)
        self._around.show(Shown(self.iteration, self._smoothing.mean, rate, self._feeding[0].examples, 0.0))

    def _looked(self, net: Network, gradients: bool, feeds: Feeds) -> Pass:
        """A pass with debug_info's lines."""
        watched = net.watched(feeds, gradients)
        for line in log.debug(watched):
            self._around.log(*line)
        return watched.result

    def _finite(self, run: Callable[[Feeds], Pass], feeds: Feeds) -> Pass:
        result = run(feeds)
        if not math.isfinite(result.loss):
            self._saver.wait()
            raise divergence.explained(self.iteration, self._net, feeds, self._kept(feeds))
        self._fed = feeds
        return result

    def _kept(self, feeds: Feeds | None) -> str:
        """The batch, kept in a file; which one, as a message says it."""
        path = self._around.kept(f"diverged_iter_{self.iteration}.npz")
        return divergence.kept(path, feeds, self._feeding[0].keys())

    def _display(self, result: Pass) -> None:
        around, every = self._around, self._solver.display.interval
        before, began = self._displayed
        now = around.monotonic()
        seconds = round(now - began, 3)
        speed = (self.iteration - before) / (seconds or 1)
        around.log("solver.cpp:239", log.displayed(self.iteration, speed, seconds, every, self._smoothing.mean))
        for line in log.outputs("Train", self._net.outputs, result.outputs):
            around.log("solver.cpp:258", line)

    def update(self, shown: bool = False) -> tuple[float, float]:
        """ApplyUpdate; returns the rate, and the norm of all gradients where clipping takes it (else NaN)."""
        step = self.rate_step
        rate = self.lr
        if self._solver.policy.name == "multistep" and self.rate_step != step:
            status = f"Iteration {self.iteration}, step = {self.rate_step}"
            self._around.log("sgd_solver.cpp:54", f"MultiStep Status: {status}")
        if shown:
            self._around.log("sgd_solver.cpp:112", f"Iteration {self.iteration}, lr = {log.number(rate)}")
        norm = math.nan

        def clipping(clipped: Clipping) -> None:
            nonlocal norm
            norm = clipped.norm
            if clipped.scale != 1.0:
                limit = self._solver.update.clip or 0.0
                self._around.log("sgd_solver.cpp:99", log.clipping(clipped, limit))

        broken = self._learning.update(rate, self.iteration, clipping)
        if broken is not None:
            self._saver.wait()
            raise divergence.update(self.iteration, broken, rate, self._kept(self._fed))
        self.iteration += 1
        return rate, norm

    def _measure(self, result: Pass, loss: float, rate: float, norms: dict[str, float]) -> None:
        """The row of an iteration that was displayed: the update is made by now, so it is the one before."""
        before, began = self._displayed
        step, now = self.iteration - 1, self._around.monotonic()
        feeding = self._feeding[0]
        took = now - began
        values = values_of("train", list(self._net.outputs), result.outputs)
        values.setdefault("train/loss", loss)
        values |= {"train/smoothed": self._smoothing.mean, "lr": rate, **norms}
        if step > before and took > 0:
            values["examples_per_s"], values["waited_for_data"] = feeding.lately(took)
        self._displayed = (step, now)
        self._around.metrics.add(step, self._around.now(), "train", values)

    def snapshot(self) -> None:
        """Caffe's two files and the manifest, written by a thread of its own: training waits for their copies alone."""
        position = self._position() if self._safe is None else self._safe
        if not self._writes:
            self._saver.parent = self.iteration
            return
        self._saver.save(self._net, self._learning.history, replace(position, step=self.rate_step))
        for where, line in self._saver.lines(self.iteration):
            self._around.log(where, line)
        self._around.saved(self.iteration)

    def save(self) -> None:
        """A snapshot of how everything stands now, whole on the disk before this returns."""
        self._safe = None
        self.snapshot()
        self._saver.wait()

    def take(self, net: int, layers: Collection[str] | None = None) -> Feeds:
        """What the next pass is fed, of the training net (0) or of a test net (1 and up), through these layers."""
        return self._feeding[net].take(layers)

    def drawn(self, net: int, layers: Collection[str]) -> Feeds:
        """What these layers draw for a pass that begins behind the data."""
        return self._feeding[net].drawn(layers)

    def coming(self) -> Feeds:
        """What the next pass of the training net will be fed; it is not taken, and nothing is drawn."""
        net, draws = self._nets.train, self._nets.draws
        before = draws.state()
        feeding = Feeding(net.sources, net.network.draws_of, draws, self._feeding[0].number, 1)
        try:
            return feeding.take()
        finally:
            feeding.close()
            draws.restore(before)

    def share(self, net: Network) -> None:
        """Takes over the learned blobs of a net of another training: both change the same numbers from now on."""
        self._net.share(net)
        for test in self._nets.tests:
            test.network.share(self._net)
        self._learning.take_up()

    def _position(self) -> Position:
        feeding = self._feeding
        return Position(
            self.iteration, self.rate_step, tuple(one.number for one in feeding), self._nets.draws.state(),
            tuple(self._smoothing.losses), self._smoothing.mean, self._smoothing.since,
            tuple(net.network.carried() for net in self._nets.all()),
        )  # fmt: skip

    def _test_all(self) -> Action:
        for number in range(len(self._nets.tests)):
            asked = self._test(number)
            if asked is not Action.NONE:
                return asked
        return Action.NONE

    def _test(self, number: int) -> Action:
        """Solver::Test: the mean of each element of each output."""
        around, live = self._around, self._nets.tests[number]
        around.log("solver.cpp:347", f"Iteration {self.iteration}, Testing net (#{number})")
        iterations = self._solver.tests.nets[number].iterations
        if not self._writes:
            self._feeding[1 + number].skip(iterations)
            return Action.NONE
        scores = Scores(live.network.outputs)
        debug = self._solver.display.debug  # at each test: Caffe asks no test net whether it is displayed
        forward = partial(self._looked, live.network, False) if debug else live.network.forward
        told = Collecting(live.graph, live.sources) if around.predictions is not None else None
        for _ in range(iterations):
            self._exchange.alive()
            asked = around.requests.next() if self._exchange.workers == 1 else Action.NONE
            while asked is Action.SNAPSHOT:
                self.snapshot()
                asked = around.requests.next()
            if asked in (Action.STOP, Action.LEAVE):
                around.log("solver.cpp:378", "Test interrupted.")
                return asked
            feeds = self._feeding[1 + number].take()
            result = forward(feeds)
            scores.add(result)
            if told is not None:
                told.add(self._feeding[1 + number].number - 1, feeds, result.judged)
        if not iterations:
            return Action.NONE
        if told is not None:
            self._saver.later(partial(self._tell, told, number, self.iteration))
        if self._solver.tests.loss:
            around.log("solver.cpp:400", f"Test loss: {log.number(scores.loss())}")
        means = scores.means()
        for line in log.outputs("Test", live.network.outputs, means):
            around.log("solver.cpp:414", line)
        kind = f"test{number or ''}"
        around.metrics.add(self.iteration, around.now(), "test", values_of(kind, list(live.network.outputs), means))
        return Action.NONE

    def _tell(self, told: Collecting, number: int, iteration: int) -> None:
        """Writes what a test says of each example.  A full disk is a warning: the training goes on without it."""
        assert self._around.predictions is not None
        path = self._around.predictions(number)
        try:
            told.write(path, iteration)
        except OSError as error:
            says = f"{path} cannot be written: {error.strerror or error}; the report has no confusion matrix"
            self._around.log("solver.cpp:414", says, "W")
