"""A solver, read and checked: every refusal of Caffe's by name, and everything that a training needs as values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.codec import caffe_pb2
from pipeline.errors import NetError, SolverError
from pipeline.nets.caffe import prototxt
from pipeline.training import solver_text
from pipeline.training.data.reach import NOWHERE, Reach
from pipeline.training.net_text import demand_sound
from pipeline.training.rates import POLICIES, Policy
from pipeline.training.updates import SOLVERS, Update

_SOURCES = ("net", "net_param", "train_net", "train_net_param")
_REGULARIZATIONS = ("L2", "L1")
_NO_GRADIENT_MEMORY = ("AdaGrad", "RMSProp")
_SHARES = {"AdaDelta": {"momentum": True}, "Adam": {"momentum": False, "momentum2": False}}
"""Parts of a moving mean: outside of 0 to 1 Caffe computes NaN.  True: 1 itself is one."""
_NOT_NEGATIVE = ("base_lr", "gamma", "max_iter", "display", "snapshot", "test_interval", "stepsize")


@dataclass(frozen=True)
class NetText:
    """A net that a solver names.  source: the file or field, as Caffe's log says it.  state: merged as Caffe merges."""

    text: caffe_pb2.NetParameter
    source: str
    state: caffe_pb2.NetState

    @property
    def name(self) -> str:
        return self.text.name


@dataclass(frozen=True)
class TestNet:
    """iterations: the batches of one test."""

    net: NetText
    iterations: int


@dataclass(frozen=True, slots=True)
class Tests:
    """interval: iterations between tests; 0: none.  initial: test before iteration 0.  loss: say the mean loss, too."""

    nets: tuple[TestNet, ...]
    interval: int
    initial: bool
    loss: bool


@dataclass(frozen=True, slots=True)
class Display:
    """interval: iterations between two lines; 0: none.  average: the losses in a smoothed one.  debug: debug_info."""

    interval: int
    average: int
    debug: bool


@dataclass(frozen=True, slots=True)
class SnapshotPlan:
    """interval: iterations between two; 0: none but the last.  diff: gradients, too.  last: one after the training."""

    interval: int
    prefix: str
    hdf5: bool
    diff: bool
    last: bool


@dataclass(frozen=True)
class Solver:
    """text: the whole message, as the log prints it.  weights: files, in order; later ones win.  seed: -1: none.

    shards: into which a batch is cut (sharing/shards.py): iter_size of the update counts them, too.
    reach: of its data in lakes and buckets.
    """

    path: Path
    text: caffe_pb2.SolverParameter
    net: NetText
    policy: Policy
    update: Update
    max_iter: int
    tests: Tests
    display: Display
    snapshots: SnapshotPlan
    weights: tuple[Path, ...]
    seed: int
    gpu: bool
    shards: int = 1
    reach: Reach = NOWHERE

    @property
    def device(self) -> int | None:
        """The number of the card that it asks for; None: it asks for none."""
        return self.text.device_id if self.gpu else None


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line says beside the file.  `stage ""` is one stage without a name, as Caffe's command adds it.

    weights, seed: None: what the file says.
    """

    level: int = 0
    stages: tuple[str, ...] = ("",)
    weights: tuple[str, ...] | None = None
    seed: int | None = None


def read(path: Path, flags: Flags | None = None) -> Solver:
    """The solver at `path`, and the nets that it names, whose paths are relative to the current folder.

    Raises SolverError for what Caffe refuses, and for what Hathi does not support, by its name; NetError for a net
    whose text is wrong.
    """
    return check(solver_text.read(path), path, flags or Flags())


def check(text: caffe_pb2.SolverParameter, path: Path, flags: Flags) -> Solver:
    """As `read`, of a message."""
    given = caffe_pb2.SolverParameter()
    given.CopyFrom(text)
    given.train_state.level = flags.level
    given.train_state.stage.extend(flags.stages)
    if flags.weights is not None:
        given.ClearField("weights")
        given.weights.extend(flags.weights)
    if flags.seed is not None:
        given.random_seed = flags.seed
    _Checks(given, path).all()
    return Solver(
        path, given, _train_net(given), _policy(given), _update(given), given.max_iter, _tests(given, path),
        Display(given.display, given.average_loss, given.debug_info), _snapshots(given),
        tuple(Path(name.strip()) for one in given.weights for name in one.split(",")),
        given.random_seed if given.random_seed >= 0 else -1,
        given.HasField("solver_mode") and given.solver_mode == caffe_pb2.SolverParameter.GPU,
    )  # fmt: skip


class _Checks:
    """Caffe's CHECKs on a solver, one after the other, and ours."""

    def __init__(self, text: caffe_pb2.SolverParameter, path: Path) -> None:
        self.text, self.path = text, path

    def all(self) -> None:
        self.nets()
        self.tests()
        self.numbers()
        self.rates()
        self.solver()

    def refuse(self, says: str, detail: str = "", hint: str = "") -> SolverError:
        return SolverError(f"{self.path}: {says}", detail, hint)

    def numbers(self) -> None:
        for field, value in self.text.ListFields():
            if isinstance(value, float) and not math.isfinite(value):
                raise self.refuse(f"{field.name} is {value}", "", f"give {field.name} a finite number")
        for name in _NOT_NEGATIVE:
            if getattr(self.text, name) < 0:
                raise self.refuse(f"{name} is negative", f"{name}: {getattr(self.text, name):g}", "give 0 or more")
        for name in ("average_loss", "iter_size"):
            if getattr(self.text, name) < 1:
                raise self.refuse(f"{name} is under 1", f"{name}: {getattr(self.text, name)}", "give 1 or more")

    def rates(self) -> None:
        policy = self.text.lr_policy
        if policy not in POLICIES:
            says = f"unknown lr_policy '{policy}'" if policy else "lr_policy is missing"
            raise self.refuse(says, f"known: {', '.join(POLICIES)}", 'set lr_policy, e.g. lr_policy: "step"')
        if policy in ("step", "sigmoid") and self.text.stepsize <= 0:
            raise self.refuse(f"lr_policy '{policy}' needs a stepsize", "", "set stepsize to the iterations of a step")

    def solver(self) -> None:
        text = self.text
        if text.type not in SOLVERS:
            raise self.refuse(f"unknown solver type '{text.type}'", f"known: {', '.join(SOLVERS)}", "set type")
        if text.type in _NO_GRADIENT_MEMORY and text.momentum != 0:
            detail = f"momentum: {text.momentum:g}"
            raise self.refuse(f"momentum cannot be used with {text.type}", detail, "remove momentum")
        if text.type == "RMSProp" and not 0 <= text.rms_decay < 1:
            raise self.refuse("rms_decay is not in [0, 1)", f"rms_decay: {text.rms_decay:g}")
        for name, closed in _SHARES.get(text.type, {}).items():
            value = getattr(text, name)
            if not (0 <= value < 1 or (closed and value == 1)):
                says = f"{name} of {text.type} is not in [0, 1{']' if closed else ')'}"
                raise self.refuse(says, f"{name}: {value:g}", f"give a {name} between 0 and 1, as 0.9")
        if text.regularization_type not in _REGULARIZATIONS:
            detail = f"known: {', '.join(_REGULARIZATIONS)}"
            raise self.refuse(f"unknown regularization_type '{text.regularization_type}'", detail)

    def nets(self) -> None:
        given = [name for name in _SOURCES if self.text.HasField(name)]
        if len(given) != 1:
            says = f"names {len(given)} training nets: {', '.join(given)}" if given else "names no training net"
            raise self.refuse(f"the solver {says}", f"exactly one of {', '.join(_SOURCES)} must be there")

    def tests(self) -> None:
        text = self.text
        generic = text.HasField("net") or text.HasField("net_param")
        explicit, counts = len(text.test_net_param) + len(text.test_net), len(text.test_iter)
        if counts < explicit or (not generic and counts != explicit):
            least = "at least " if generic else ""
            raise self.refuse(
                f"test_iter is given {counts} times for {explicit} test nets",
                f"{least}one test_iter for each test_net_param and test_net",
                "add test_iter for each test net: how many batches one test takes",
            )
        if text.test_state and len(text.test_state) != counts:
            detail = f"{len(text.test_state)} test_state, {counts} test nets"
            raise self.refuse("test_state must be there for no test net or for each", detail)
        if counts and text.test_interval <= 0:
            raise self.refuse("test_interval is missing", f"{counts} test nets are given", "set test_interval above 0")
        if any(count < 0 for count in text.test_iter):
            raise self.refuse("test_iter is negative", f"test_iter: {min(text.test_iter)}")


def _policy(text: caffe_pb2.SolverParameter) -> Policy:
    return Policy(
        text.lr_policy, text.base_lr, text.gamma, text.power, text.stepsize, tuple(text.stepvalue), text.max_iter
    )


def _update(text: caffe_pb2.SolverParameter) -> Update:
    clip = text.clip_gradients if text.clip_gradients >= 0 else None
    return Update(text.type, text.momentum, text.momentum2, text.delta, text.rms_decay, text.weight_decay,
                  text.regularization_type, clip, text.iter_size)  # fmt: skip


def _snapshots(text: caffe_pb2.SolverParameter) -> SnapshotPlan:
    hdf5 = text.snapshot_format == caffe_pb2.SolverParameter.HDF5
    return SnapshotPlan(text.snapshot, text.snapshot_prefix, hdf5, text.snapshot_diff, text.snapshot_after_train)


def _train_net(text: caffe_pb2.SolverParameter) -> NetText:
    if text.HasField("train_net_param"):
        return merged(text.train_net_param, "train_net_param", caffe_pb2.TRAIN, text.train_state)
    if text.HasField("train_net"):
        return _from_file(text.train_net, "train_net file", caffe_pb2.TRAIN, text.train_state)
    if text.HasField("net_param"):
        return merged(text.net_param, "net_param", caffe_pb2.TRAIN, text.train_state)
    return _from_file(text.net, "net file", caffe_pb2.TRAIN, text.train_state)


def _tests(text: caffe_pb2.SolverParameter, path: Path) -> Tests:
    """test_net_param, then test_net, then as many of the common net as test_iter has left."""
    states: Sequence[caffe_pb2.NetState | None] = list(text.test_state) or [None] * len(text.test_iter)
    sources = [("test_net_param", one) for one in text.test_net_param]
    files = [("test_net file", one) for one in text.test_net]
    nets: list[NetText] = []
    for iteration, state in enumerate(states):
        if iteration < len(sources):
            nets.append(merged(sources[iteration][1], "test_net_param", caffe_pb2.TEST, state))
        elif iteration < len(sources) + len(files):
            nets.append(_from_file(files[iteration - len(sources)][1], "test_net file", caffe_pb2.TEST, state))
        elif text.HasField("net_param"):
            nets.append(merged(text.net_param, "net_param", caffe_pb2.TEST, state))
        else:
            nets.append(_from_file(text.net, "net file", caffe_pb2.TEST, state))
    made = tuple(TestNet(net, count) for net, count in zip(nets, text.test_iter, strict=True))
    return Tests(made, text.test_interval, text.test_initialization, text.test_compute_loss)


def _from_file(name: str, kind: str, phase: int, more: caffe_pb2.NetState | None) -> NetText:
    try:
        text = prototxt.read(Path(name))
    except NetError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        hint = "a solver's paths begin in the current folder, as Caffe's: type the command where the net is"
        raise SolverError(error.message, error.detail, hint) from error
    return merged(text, f"{kind}: {name}", phase, more)


def merged(net: caffe_pb2.NetParameter, source: str, phase: int, more: caffe_pb2.NetState | None) -> NetText:
    """The phase, then what the net says, then what the solver says: later words win, and stages are added.

    Raises SolverError for a layer whose text has a fault, or a number that is not finite.
    """
    demand_sound(net, source)
    state = caffe_pb2.NetState(phase=phase)  # type: ignore[arg-type]
    state.MergeFrom(net.state)
    if more is not None:
        state.MergeFrom(more)
    text = caffe_pb2.NetParameter()
    text.CopyFrom(net)
    text.ClearField("state")
    return NetText(text, source, state)
