"""Texts of a tenant -> a solver and a net of ours: only fields that are known are taken over, no file that they name.

Data layers become ours on the dataset's sides, one a phase; the mean becomes the dataset's; where snapshots go, which
processor computes and which random numbers are drawn, the service says.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.protobuf.message import Message

from pipeline.amounts import counted
from pipeline.codec import caffe_pb2
from pipeline.errors import PipelineError
from pipeline.nets.caffe import prototxt
from pipeline.nets.caffe.upgrade import upgrade
from pipeline.nets.graph import rules
from pipeline.nets.layers import State, make
from pipeline.service.specification.words import (
    DATABASES,
    INPUT_NAME,
    INPUTS,
    MEAN_FILE,
    NET,
    NET_FILE,
    PREFIX,
    SOLVER,
    Asked,
    Problem,
)
from pipeline.training import solver_text
from pipeline.training.net_text import demand_sound

TAKEN = (
    "test_iter", "test_interval", "base_lr", "display", "max_iter", "lr_policy", "gamma", "power", "momentum",
    "weight_decay", "stepsize", "stepvalue", "snapshot", "test_initialization", "test_compute_loss", "average_loss",
    "regularization_type", "delta", "clip_gradients", "iter_size", "rms_decay", "momentum2", "type",
)  # fmt: skip
"""Fields of a solver that are taken over."""
OURS = {
    "snapshot_prefix": "the service keeps snapshots", "solver_mode": "the service says what computes",
    "device_id": "the service says what computes", "random_seed": "the job has a seed of its own",
    "net": "the net comes with the request", "train_net": "the net comes with the request",
    "test_net": "the net comes with the request", "debug_info": "it would fill the log",
    "snapshot_diff": "snapshots hold what a training goes on from",
    "snapshot_format": "snapshots have one form", "snapshot_after_train": "the last snapshot is always kept",
    "layer_wise_reduce": "results are the same",
}  # fmt: skip
"""Fields that are left out with a warning: each is the service's to say."""
_REFUSED = {
    "weights": "begin from a model: the job names it", "train_net_param": "give one net, with include rules",
    "test_net_param": "give one net, with include rules", "train_state": "a net has no stages here",
    "test_state": "a net has no stages here",
}  # fmt: skip
_FREE = frozenset(("name", "type", "bottom", "top", "stage", "not_stage"))
"""Texts of a layer that name no file and hold no code; whatever a newer Caffe may bring is refused until it is here."""
_DATA = {"Data": "data_param", "ImageData": "image_data_param", "HDF5Data": "hdf5_data_param",
         "MemoryData": "memory_data_param"}  # fmt: skip
SOURCES = ("Data", "HDF5Data")
"""Types of the data layers that a job's own databases are read by."""
_TRANSFORMS = ("scale", "mirror", "crop_size", "mean_value", "force_color", "force_gray")
_OUTPUTS = ("inner_product_param", "convolution_param", "embed_param")
_NO_CODE = ("Python", "HDF5Output", "WindowData")
_PLACE = re.compile(r"^(?:[^:]*):(\d+):(\d+): ")
_LAYER = re.compile(r"layer '([^']*)'")


class Rebuilt:
    """A solver and a net of ours, as far as they go; `problems` says what stands against them."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.inputs: set[str] = set()
        self.net = caffe_pb2.NetParameter()
        self.solver = caffe_pb2.SolverParameter()
        self._names: dict[str, int] = {}
        given, net = self._parsed()
        if given is not None:
            self._solver(given)
        if net is not None:
            self._net(net)

    def refuse(self, pointer: str, message: str, detail: str = "", hint: str = "") -> None:
        self.problems.append(Problem(pointer, message, detail, hint))

    def error(self, pointer: str, error: PipelineError) -> None:
        """What another judge says: with its line and column, or at the layer that it names."""
        found = _PLACE.match(error.message)
        named = _LAYER.search(error.message) or _LAYER.search(error.detail)
        if named is not None and named[1] in self._names:
            pointer = f"{NET}/layer/{self._names[named[1]]}"
        line, column = (int(found[1]), int(found[2])) if found else (0, 0)
        message = error.message[found.end() :] if found else error.message
        self.problems.append(Problem(pointer, message, error.detail, error.hint, line, column))

    def look_at_wires(self) -> None:
        """Each bottom is a top of a layer before it, in either phase: shapes are not known before the data is."""
        for phase in DATABASES:
            made: set[str] = set()
            for layer in rules.keep(self.net, caffe_pb2.NetState(phase=phase)):
                for blob in layer.bottom:
                    if blob not in made:
                        pointer = f"{NET}/layer/{self._names.get(layer.name, 0)}"
                        says = f"layer '{layer.name[:80]}' ({layer.type[:80]}): unknown bottom blob '{blob[:80]}'"
                        self.refuse(pointer, says, f"no layer before it makes it in phase {phase}")
                made |= set(layer.top)

    def _parsed(self) -> tuple[caffe_pb2.SolverParameter | None, caffe_pb2.NetParameter | None]:
        given: caffe_pb2.SolverParameter | None = None
        net: caffe_pb2.NetParameter | None = None
        for pointer, text in ((SOLVER, self.asked.solver), (NET, self.asked.net)):
            if len(text.encode("utf-8", "surrogatepass")) > self.asked.limits.text:
                self.refuse(pointer, "the text is too long", f"the most is {self.asked.limits.text:,} bytes")
            elif "\0" in text:
                self.refuse(pointer, "the text holds a NUL", "", "a .caffemodel is no text")
        if self.problems:
            return None, None
        try:
            given = solver_text.parse(self.asked.solver, "solver")
        except PipelineError as error:
            self.error(SOLVER, error)
        if not self.asked.net.strip() and given is not None and given.HasField("net_param"):
            net = given.net_param
        try:
            net = prototxt.parse(self.asked.net, "net") if net is None else net
            demand_sound(net, "net")
        except PipelineError as error:
            self.error(NET, error)
            net = None
        return given, net

    # --- the solver ---

    def _solver(self, given: caffe_pb2.SolverParameter) -> None:
        for field, value in given.ListFields():
            if field.name in TAKEN:
                getattr(self.solver, field.name).extend(value) if field.is_repeated else setattr(
                    self.solver, field.name, value
                )
            elif field.name in OURS:
                self.warnings.append(f"{field.name} of the solver is left out: {OURS[field.name]}")
            elif field.name != "net_param":
                self.refuse(f"{SOLVER}/{field.name}", f"{field.name} cannot be given", "", _REFUSED.get(field.name, ""))
        if given.HasField("net_param") and self.asked.net.strip():
            self.refuse(f"{SOLVER}/net_param", "two nets are given", "net and the solver's net_param", "give one")
        self.solver.net, self.solver.snapshot_prefix = NET_FILE, PREFIX
        self._counts()

    def _counts(self) -> None:
        limits, solver = self.asked.limits, self.solver
        if not 0 < solver.max_iter <= limits.iterations:
            self.refuse(f"{SOLVER}/max_iter", f"max_iter is {solver.max_iter:,}", f"1 to {limits.iterations:,}")
        if len(solver.stepvalue) > limits.steps:
            values = counted(len(solver.stepvalue), "stepvalue")
            self.refuse(f"{SOLVER}/stepvalue", values, f"the most is {limits.steps:,}")
        if len(solver.test_iter) > 1:
            self.refuse(f"{SOLVER}/test_iter", "several test nets", "", "give one test_iter")
        least = -(-solver.max_iter // limits.snapshots)
        if 0 < solver.snapshot < least:
            self.warnings.append(f"snapshot is {solver.snapshot}: every {least} iterations in its stead")
            solver.snapshot = least

    # --- the net ---

    def _net(self, given: caffe_pb2.NetParameter) -> None:
        limit = self.asked.limits.layers
        if len(given.layer) + len(given.layers) > limit:
            layers = counted(len(given.layer) + len(given.layers), "layer")
            self.refuse(NET, f"the net has {layers}", f"the most is {limit:,}")
            return
        for name, stands in (("input", bool(given.input)), ("state", given.HasField("state"))):
            if stands:
                self.refuse(f"{NET}/{name}", f"the net has {name}", "", "give a net that trains, with a data layer")
        try:
            net = upgrade(given, self.warnings.append)
        except PipelineError as error:
            self.error(NET, error)
            return
        self.net.name = net.name[:200]
        self.net.force_backward = net.force_backward
        for number, layer in enumerate(net.layer):
            self._names.setdefault(layer.name, number)
            self.net.layer.extend(self._layer(layer, number))

    def _layer(self, layer: caffe_pb2.LayerParameter, number: int) -> Iterator[caffe_pb2.LayerParameter]:
        pointer, where = f"{NET}/layer/{number}", f"layer '{layer.name[:80]}' ({layer.type[:80]})"
        if layer.type in _NO_CODE:
            self.refuse(pointer, f"{where} cannot be used here", "it runs code, or reads or writes files of its own")
        elif layer.blobs or layer.fault:
            self.refuse(pointer, f"{where} holds learned values", "", "begin from a model: the job names it")
        elif layer.type in _DATA:
            yield from self._data(layer, pointer, where)
        elif named := next(_files_of(layer), ""):
            self.refuse(pointer, f"{where} names a file", f"its {named}", "leave it out")
        elif self._known(layer, pointer) and self._small(layer, pointer, where):
            yield layer

    def _known(self, layer: caffe_pb2.LayerParameter, pointer: str) -> bool:
        """Whether its type, its fields and how many bottoms and tops it has are those of a layer that we compute."""
        try:
            make(layer, State(train=True, warn=lambda _: None))
        except PipelineError as error:
            self.error(pointer, error)
            return False
        return True

    def _small(self, layer: caffe_pb2.LayerParameter, pointer: str, where: str) -> bool:
        """Whether it may be small enough: what it learns from one channel, since shapes may not be known yet."""
        least = max((getattr(layer, name).num_output for name in _OUTPUTS if layer.HasField(name)), default=0)
        kernel = layer.convolution_param
        sizes = list(kernel.kernel_size) or [1]
        least *= (kernel.kernel_h or sizes[0]) * (kernel.kernel_w or sizes[-1])
        if least <= self.asked.limits.parameters:
            return True
        says = f"{where} learns at least {least:,} numbers"
        self.refuse(pointer, says, f"the most is {self.asked.limits.parameters:,}", "make that layer smaller")
        return False

    def _data(self, layer: caffe_pb2.LayerParameter, pointer: str, where: str) -> Iterator[caffe_pb2.LayerParameter]:
        """Ours in its stead, for each phase that it stands in."""
        batch = getattr(layer, _DATA[layer.type]).batch_size
        if batch < 1:
            self.refuse(pointer, f"{where} has no batch_size", "", "set it to the examples of one batch")
            return
        if 8 * batch > self.asked.limits.memory:
            most = f"one number and a label of each take more than the most, {self.asked.limits.memory >> 20:,} MiB"
            self.refuse(pointer, f"{where} has batches of {batch:,} examples", most, "lower batch_size")
            return
        if self.asked.data is None:
            yield from self._brought(layer, pointer, where)
            return
        if layer.transform_param.HasField("mean_file"):
            self.warnings.append(f"{where}: its mean_file becomes the mean of the dataset's own training side")
        for phase, database in DATABASES.items():
            if not _stands_in(layer, phase):
                continue
            ours = caffe_pb2.LayerParameter(name=layer.name, type="Data", top=layer.top)
            ours.include.add(phase=caffe_pb2.Phase.Value(phase))
            ours.data_param.source, ours.data_param.batch_size = database, batch
            ours.data_param.backend = caffe_pb2.DataParameter.LMDB
            _transform(layer, ours)
            if layer.transform_param.HasField("mean_file"):
                ours.transform_param.mean_file = MEAN_FILE
            yield ours

    def _brought(self, layer: caffe_pb2.LayerParameter, pointer: str, where: str) -> Iterator[caffe_pb2.LayerParameter]:
        """Ours on what the job brings, for each phase that it stands in."""
        if layer.type not in SOURCES:
            hint = "give dataset_id, or a Data or HDF5Data layer whose source is the name of an input"
            self.refuse(pointer, f"{where} reads files of its own", "", hint)
            return
        given = getattr(layer, _DATA[layer.type])
        source = self._input(pointer, where, "source", given.source)
        mean = ""
        if layer.transform_param.HasField("mean_file"):
            mean = self._input(pointer, where, "mean_file", layer.transform_param.mean_file)
        for phase in DATABASES:
            if not _stands_in(layer, phase):
                continue
            ours = caffe_pb2.LayerParameter(name=layer.name, type=layer.type, top=layer.top)
            ours.include.add(phase=caffe_pb2.Phase.Value(phase))
            placed = getattr(ours, _DATA[layer.type])
            placed.source, placed.batch_size = source, given.batch_size
            if layer.type == "HDF5Data":
                placed.shuffle = given.shuffle
            else:
                placed.backend = caffe_pb2.DataParameter.LMDB
                _transform(layer, ours)
                if mean:
                    ours.transform_param.mean_file = mean
            yield ours

    def _input(self, pointer: str, where: str, named: str, value: str) -> str:
        """Where an input of the job will lie."""
        name = value.removeprefix(f"{INPUTS}/")
        if not re.fullmatch(INPUT_NAME, name):
            says, hint = f"{where} names a file", f"{named} is the name that a datafile has in the job's `inputs`"
            self.refuse(pointer, says, f"its {named}, {value[:80]!r}, is no name of an input", hint)
        else:
            self.inputs.add(name)
        return f"{INPUTS}/{name}"


def _transform(layer: caffe_pb2.LayerParameter, ours: caffe_pb2.LayerParameter) -> None:
    """Takes over how a layer transforms its images, but its mean_file."""
    for name in _TRANSFORMS:
        value = getattr(layer.transform_param, name)
        if name == "mean_value":
            ours.transform_param.mean_value.extend(value)
        elif layer.transform_param.HasField(name):
            setattr(ours.transform_param, name, value)


def _stands_in(layer: caffe_pb2.LayerParameter, phase: str) -> bool:
    state = caffe_pb2.NetState(phase=phase)
    return bool(rules.keep(caffe_pb2.NetParameter(layer=[layer]), state))


def _files_of(message: Message) -> Iterator[str]:
    """The names of fields that may name files."""
    for field, value in message.ListFields():
        for one in value if field.is_repeated else (value,):
            if isinstance(one, Message):
                yield from _files_of(one)
            elif field.name not in _FREE and isinstance(one, str):
                yield field.name
