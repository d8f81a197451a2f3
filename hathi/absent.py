"""Names of pycaffe that are not there: an error that says what stands for each, in place of a bare AttributeError."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.errors import ConfigError

PAGE = "docs/pycaffe.md has what stands for each habit from pycaffe"
_LOAD = "training.load(FILE) opens any solver: its type stands in the file"
MODULE = {
    **dict.fromkeys(
        ("get_solver", "SGDSolver", "NesterovSolver", "AdaGradSolver", "RMSPropSolver", "AdaDeltaSolver", "AdamSolver"),
        _LOAD,
    ),
    "set_mode_cpu": "leave it out: the CPU computes; training.load(FILE, threads=N)",
    "set_mode_gpu": "leave it out: training computes on the CPU",
    "set_device": "leave it out: training computes on the CPU",
    "set_random_seed": "training.load(FILE, seed=N)",
    "NCCL": "one process trains; hathi train --job trains on several hosts, one after the other",
    "TRAIN": "a solver opens its nets in their phases; hathi.load_net(MODEL, WEIGHTS, phase='TRAIN') computes",
    "TEST": "a solver opens its nets in their phases; hathi.load_net(MODEL, WEIGHTS) computes",
    "Layer": "Python layers are not there: use callbacks, or a layer of Caffe's own",
    "io": "hathi.features takes images; of arrays, NumPy does what caffe.io does",
    "Classifier": "hathi.features(images, net=..., weights=..., blob='prob')",
    "layers": "write the net's .prototxt as text",
    "params": "write the net's .prototxt as text",
    "NetSpec": "write the net's .prototxt as text",
}
SOLVER = {
    "type": "it stands in the solver's file: solver.param.type",
    "test_net": "solver.test_nets[0]",
}
_BATCHES = "loop over batches: net.forward(data=BATCH), or write into net.blobs['data'].data"
_CALLBACKS = "of a training, solver.add_callback; of a pass, forward(end=LAYER), look, then forward(start=NEXT)"
NET = {
    "forward_all": _BATCHES,
    "forward_backward_all": _BATCHES,
    "before_forward": _CALLBACKS,
    "after_forward": _CALLBACKS,
    "before_backward": _CALLBACKS,
    "after_backward": _CALLBACKS,
    "set_phase_train": "solver.net is in phase TRAIN, solver.test_nets in phase TEST",
    "set_phase_test": "solver.net is in phase TRAIN, solver.test_nets in phase TEST",
    "set_mean": "transform_param of the data layer has mean_file and mean_value",
    "set_input_scale": "transform_param of the data layer has scale",
    "preprocess": "transform_param of the data layer says it; of Input layers, the program does it",
    "set_raw_scale": "transform_param of the data layer has scale",
    "set_channel_swap": "Caffe's data layers are BGR; of Input layers, the program decides",
}


class Absent(ConfigError, AttributeError):
    """A name that is not there.  It is an AttributeError as well, so that `hasattr` says no."""


def absent(what: str, name: str, known: Mapping[str, str]) -> AttributeError:
    """The error of a name that something lacks: named where pycaffe has it, else Python's own."""
    if name in known:
        return Absent(f"{what} has no '{name}'", "pycaffe has it", known[name])
    return AttributeError(f"{what} has no attribute '{name}'; {PAGE}")
