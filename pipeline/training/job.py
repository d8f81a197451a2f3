"""One training from its solver's file to its end: what `hathi train` and the child run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.amounts import counted
from pipeline.codec import caffe_pb2
from pipeline.errors import PipelineError, SolverError, TemporaryError
from pipeline.training import divergence, prefix_lock, snapshot, solver, updates
from pipeline.training.assembly import How, Nets, assemble, examine, refuse_fed
from pipeline.training.attempts_file import NAME as ATTEMPTS
from pipeline.training.attempts_file import AttemptsFile, Started
from pipeline.training.data.reach import Reach
from pipeline.training.draws.draws import draws
from pipeline.training.engine.starting import cpu_name, engine_name, start
from pipeline.training.log import Log
from pipeline.training.loop import Training
from pipeline.training.metrics import NAME as METRICS
from pipeline.training.metrics import Metrics
from pipeline.training.out_of_memory import enough_memory
from pipeline.training.predictions.file import name_of as predictions_of
from pipeline.training.requests import SIGNALS, Action, Requests, by_hand, heard
from pipeline.training.resuming import Beginning, go_on, restore
from pipeline.training.sharing.agreement import LOOK_SECONDS, agree, newest_of_all, programs
from pipeline.training.sharing.exchange import Alone, Exchange
from pipeline.training.sharing.rounds import Rounds
from pipeline.training.sharing.shards import cut
from pipeline.training.snapshot import ByFolder, ByPrefix, Places, Whole
from pipeline.training.solver import Flags, Solver
from pipeline.training.surroundings import Ending, Shown, Surroundings

_NO_MATTER = ("snapshot", "snapshot_prefix", "snapshot_diff", "snapshot_format", "snapshot_after_train", "display",
              "debug_info", "device_id", "solver_mode", "layer_wise_reduce", "test_compute_loss",
              "net", "net_param", "train_net", "train_net_param", "test_net", "test_net_param",
              "train_state", "test_state", "weights")  # fmt: skip
"""Fields that decide no number of a training, or that stand in the digest with what they name."""

PROCESSES = ("worker ", "executor ")
"""How the names of processes begin that share a training."""
OWN_SEED = 0
"""Of our own stream, where a solver has no random_seed: a number belongs to a layer and to an example or a pass."""


@dataclass(frozen=True)
class Wanted:
    """What a command asks for.

    snapshot: a .solverstate to go on from.  again: begin at 0 though snapshots of the same training are there.
    until: the iteration at which to end for now.  data_threads: threads that decode.  check: read every example first.
    settings: as `settings.travelling` writes them: lakes and buckets that data may lie in; empty: none.
    """

    solver: Path
    flags: Flags = field(default_factory=Flags)
    how: How = field(default_factory=How)
    snapshot: Path | None = None
    again: bool = False
    until: int | None = None
    sigint: Action = Action.STOP
    sighup: Action = Action.SNAPSHOT
    data_threads: int = 2
    check: bool = True
    settings: str = field(default="", repr=False)

    def read(self) -> Solver:
        """Raises as `solver.read`."""
        return replace(solver.read(self.solver, self.flags), reach=Reach.of(self.settings))


@dataclass(frozen=True)
class Out:
    """Where a training's words and files go.  places: of its snapshots.  estop: the state folder whose ESTOP counts.

    kept: where a file of that name stands.  saved: hears of each snapshot that is begun.  attempts: they are written
    down, and a lock keeps other processes from training there.  predictions: those of the last test are.  exchange:
    with the processes that share this training; all but 0 write nothing.  name: of this one.  taken: hears of each
    pass that is computed here.  signals: they ask for an end in good order; else they do what they did before.
    rounds: who computes the shards in place of this process.
    """

    write: Callable[[str], None]
    metrics: Callable[[Solver], Metrics]
    places: Callable[[Solver], Places]
    kept: Callable[[Solver, str], Path]
    show: Callable[[Solver, Shown], None] = lambda solver, shown: None
    estop: Path | None = None
    saved: Callable[[int], None] = lambda iteration: None
    attempts: bool = True
    predictions: bool = True
    exchange: Exchange = field(default_factory=Alone)
    name: str = "this process"
    taken: Callable[[int], None] = lambda number: None
    signals: bool = True
    rounds: Rounds | None = None

    @property
    def writes(self) -> bool:
        return self.exchange.rank == 0


def by_prefix(
    write: Callable[[str], None], show: Callable[[Solver, Shown], None], row: Callable[[dict[str, Any]], None]
) -> Out:
    """Everything beside what Caffe writes, as PREFIX_NAME: snapshots, metrics, attempts, predictions, a batch kept."""
    return Out(
        write,
        lambda read: Metrics(beside(read.snapshots.prefix, METRICS), row),
        lambda read: ByPrefix(read.snapshots.prefix, read.snapshots.hdf5),
        lambda read, name: beside(read.snapshots.prefix, name),
        show,
    )


def beside(prefix: str, name: str) -> Path:
    """A file that stands beside the snapshots of a prefix."""
    return Path(f"{prefix}_{name}")


def in_folder(folder: Path, write: Callable[[str], None]) -> Out:
    """Everything in one folder: snapshots/N/, metrics.jsonl, predictions.parquet."""
    return Out(
        write,
        lambda read: Metrics(folder / METRICS),
        lambda read: ByFolder(folder / "snapshots", read.snapshots.hdf5),
        lambda read, name: folder / name,
        attempts=False,
    )


@dataclass(frozen=True)
class Ended:
    """model: the .caffemodel of the last snapshot; None: there is none.  why: the signal or ESTOP that asked for it."""

    ending: Ending
    iteration: int
    model: Path | None
    why: str = ""


@dataclass(frozen=True)
class Opened:
    """A training whose nets are there, before its first step.  job: the digest of all that decides its numbers.

    threads: that compute.
    """

    read: Solver
    nets: Nets
    training: Training
    places: Places
    metrics: Metrics
    log: Log
    job: str
    threads: int

    def restore(self, state: Path) -> None:
        """Goes on from a .solverstate, Caffe's own as well.  Raises SolverError for one of another training."""
        self.log("caffe.cpp:221", f"Resuming from {state}")
        restore(self.training, self.nets, self.read, Beginning(snapshot.beside(state), state, self.places), self.log)

    def close(self) -> None:
        self.training.close()
        self.nets.close()


def opened(wanted: Wanted, out: Out, requests: Requests, held: contextlib.ExitStack | None = None) -> Opened:
    """Reads the solver, sets its nets up, and looks whether snapshots can be written.

    held: takes the lock of the snapshot_prefix, where attempts are written down; None: other processes may train there.
    """
    read = wanted.read()
    if wanted.snapshot is not None:
        read = replace(read, weights=())
    _refuse_card(wanted.how)
    threads = start(wanted.how.threads or int(wanted.how.exact))
    log = Log(out.write)
    _head(read, wanted.how, log)
    if held is not None and out.attempts:
        prefix_lock.take(held, out.kept(read, prefix_lock.NAME))
    places = out.places(read)
    if out.writes:
        places.clear()
        snapshot.probe(read.snapshots, places)
    job = digest(read, wanted.how)
    read = cut(read, wanted.how.shards)
    nets = assemble(read, draws(read.seed, OWN_SEED), wanted.how,
                    lambda says: log("net.cpp:744", says), lambda says: warn(log, says))  # fmt: skip
    for says in divergence.unmoved(read.policy, nets.train.network.learned):
        log("solver.cpp:102", says, "W")
    if out.writes:
        snapshot.probe(read.snapshots, places, _size(read, nets))
    metrics = out.metrics(read) if out.writes else Metrics(None)
    around = Surroundings(
        log, metrics, requests, places, job, time.time, time.monotonic,
        lambda shown: out.show(read, shown), wanted.data_threads, lambda at: out.kept(read, at),
        (lambda number: out.kept(read, predictions_of(number))) if out.predictions else None, out.saved,
        out.exchange, out.taken, out.rounds,
    )  # fmt: skip
    return Opened(read, nets, Training(read, nets, around), places, metrics, log, job, threads)


def train(wanted: Wanted, out: Out) -> Ended:
    """Trains, from the newest whole snapshot of the same training if there is one.

    Raises SolverError and NetError before the first iteration; Diverged where a number is not finite, OutOfMemory, and
    TemporaryError where the disk does not take what is written.
    """
    requests = Requests(wanted.sigint, wanted.sighup, out.estop, time.monotonic)
    try:
        return _trained(wanted, out, requests)
    except PipelineError as error:
        told = _named(error, out)
        out.exchange.fail(told)
        raise told from error.__cause__
    finally:
        out.exchange.close()


def _named(error: PipelineError, out: Out) -> PipelineError:
    """The same error; where several processes train, it says which of them has met it."""
    if out.exchange.workers == 1 or error.message.startswith(PROCESSES):
        return error
    error.message = f"{out.name}: {error.message}"
    return error


def _trained(wanted: Wanted, out: Out, requests: Requests) -> Ended:
    signals = SIGNALS if out.signals else ()
    with heard(requests, signals, by_hand), enough_memory(), contextlib.ExitStack() as held:
        whole = opened(wanted, out, requests, held)
        try:
            refuse_fed(whole.nets)
            _agree(whole, wanted, out)
            found = None if wanted.again or wanted.snapshot else _newest(whole, out, requests)
            if wanted.check and found is None and out.writes:
                examine(whole.nets, wanted.data_threads, lambda: _looks(out.exchange, requests))
            if requests.ending and found is None:
                out.exchange.fail(TemporaryError(f"{out.name} was asked to end before the first iteration"))
                return _ended_before(whole, requests)
            path = out.kept(whole.read, ATTEMPTS) if out.attempts and out.writes else None
            attempts = AttemptsFile(path, time.time, lambda says: whole.log("solver.cpp:57", says, "W"))
            return _train(whole, wanted, found, attempts, requests)
        finally:
            whole.close()


def _looks(exchange: Exchange, requests: Requests) -> bool:
    exchange.alive()
    return requests.ending


def _refuse_card(how: How) -> None:
    if how.shards > 1 and how.gpu not in ("", "none"):
        raise SolverError(
            f"the card {how.gpu} and {counted(how.shards, 'shard')} exclude each other",
            "gradients of shards are summed on the CPU",
            "leave --gpu or --shards out",
        )


def _newest(whole: Opened, out: Out, requests: Requests) -> Whole | None:
    """The newest snapshot; of several processes the newest that all of them see.  Raises TemporaryError."""
    if out.exchange.workers == 1:
        return snapshot.newest(whole.places, whole.job)
    seen: dict[int, Whole] = {}

    def newest(most: int | None) -> int | None:
        found = snapshot.newest(whole.places, whole.job, most)
        if found is not None:
            seen[found.iteration] = found
        return None if found is None else found.iteration

    def wait() -> bool:
        time.sleep(LOOK_SECONDS)
        return not requests.ending

    def say(text: str) -> None:
        whole.log("solver.cpp:57", text, "W")

    iteration = newest_of_all(out.exchange, out.name, newest, wait, say)
    return None if iteration is None else seen[iteration]


def _agree(whole: Opened, wanted: Wanted, out: Out) -> None:
    """Whether all processes of this training begin with the same things.  Raises SolverError."""
    if out.exchange.workers == 1:
        return
    facts = {
        **programs(),
        "CPU": cpu_name(),
        "number of threads": str(whole.threads),
        "training": whole.job,
        "data": ", ".join(f"{one.layer}: {counted(one.count, 'example')}" for one in whole.nets.train.sources),
        "snapshot": "none, by --again" if wanted.again else Path(wanted.snapshot or "the newest").name,
    }
    for says in agree(out.exchange, out.name, facts):
        whole.log("solver.cpp:57", says, "W")


def _ended_before(whole: Opened, requests: Requests) -> Ended:
    """Somebody asked for the end while the examples were read."""
    left = requests.next() is Action.LEAVE
    why = requests.why or requests.stopped_by
    more = "; the same command begins anew" if left else ""
    whole.log("solver.cpp:317", f"Optimization stopped early, before its first iteration: {why}{more}.")
    return Ended(Ending.LEFT if left else Ending.EARLY, 0, None, why)


def _size(read: Solver, nets: Nets) -> int:
    """Bytes of a snapshot, about: weights and history, gradients where they are kept; not the manifest."""
    blobs = [4 * math.prod(one.shape) for one in nets.train.network.learned]
    copies = 1 + int(read.snapshots.diff) + updates.histories(read.update, 1)
    return copies * sum(blobs)


def _train(whole: Opened, wanted: Wanted, found: Whole | None, attempts: AttemptsFile, requests: Requests) -> Ended:
    log, training = whole.log, whole.training
    log("solver.cpp:57", "Solver scaffolding done.")
    go_on(training, whole.nets, whole.read, Beginning(found, wanted.snapshot, whole.places), log)
    whole.metrics.begin(training.iteration)
    if wanted.how.rounds:
        tell_rounding(training, log)
    log("caffe.cpp:239", "Starting Optimization")
    started = Started(training.iteration, str(whole.read.path.resolve()), engine_name(), whole.threads, whole.read.seed,
                      wanted.how.exact)  # fmt: skip
    with attempts.attempt(started, lambda: training.iteration):
        try:
            ending = training.solve(wanted.until)
        finally:
            training.close()
    why = {Ending.LEFT: requests.why, Ending.EARLY: requests.stopped_by}.get(ending, "")
    attempts.end(training.iteration, ending.value, why)
    if ending in (Ending.DONE, Ending.UNTIL):
        log("caffe.cpp:250", "Optimization Done.")
    model = whole.places.model(training.iteration)
    return Ended(ending, training.iteration, model if model.exists() else None, why)


def digest(read: Solver, how: How) -> str:
    """Of all that decides a training's numbers: two of one digest on one kind of CPU give the same bits.

    The number of threads is none of it: it decides the last digits, and a training may go on with another one.
    """
    text = caffe_pb2.SolverParameter()
    text.CopyFrom(read.text)
    for name in _NO_MATTER:
        text.ClearField(name)
    if read.policy.name != "poly":
        text.ClearField("max_iter")
    whole: dict[str, Any] = {
        "solver": text.SerializeToString(deterministic=True).hex(),
        "nets": [
            [
                net.text.SerializeToString(deterministic=True).hex(),
                net.state.SerializeToString(deterministic=True).hex(),
            ]
            for net in (read.net, *(test.net for test in read.tests.nets))
        ],
        "weights": [_sha256(path) for path in read.weights],
        "how": [how.exact, how.as_caffe, *([how.precision] if how.rounds else [])],
        **({"shards": how.shards} if how.shards > 1 else {}),
        **({"local_steps": how.local_steps} if how.local_steps > 1 else {}),
    }
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        hint = "give the path of a .caffemodel"
        raise SolverError(f"the weights {path} cannot be read", error.strerror or str(error), hint) from error


def warn(log: Log, says: str) -> None:
    """What a net's set-up says; that fillers give the first weights is no news in a training."""
    if is_news(says):
        log("net.cpp:53", says, "W")


def is_news(says: str) -> bool:
    return not says.startswith("no weights are given")


def tell_rounding(training: Training, log: Log) -> None:
    """Says how far the bfloat16 of a training that has begun is from float32."""
    from pipeline.training.engine.rounding import tell

    tell(training.network, training.coming(), lambda says, level: log("caffe.cpp:239", says, level))


def _head(read: Solver, how: How, log: Log) -> None:
    from pipeline.training.engine.devices import device_of, name_of

    device = device_of(how.card, read.device)
    if device.type == "cpu":
        log("caffe.cpp:197", "Use CPU.")
    else:
        log("caffe.cpp:204", f"Using GPUs {device.index}")
        log("caffe.cpp:209", f"GPU {device.index}: {name_of(device)}")
    if read.text.test_interval and not read.tests.nets:
        log("solver.cpp:190", "the solver has a test_interval and no test_iter: the net is never tested", "W")
    if read.gpu and device.type == "cpu":
        log("caffe.cpp:197", "the solver says solver_mode: GPU; Hathi trains on the CPU", "W")
    log("solver.cpp:45", f"Initializing solver from parameters: \n{str(read.text).rstrip()}")
    log("solver.cpp:102", f"Creating training net from {read.net.source}")
    for number, test in enumerate(read.tests.nets):
        log("solver.cpp:190", f"Creating test net (#{number}) specified by {test.net.source}")
