"""The files of a fine-tuning: a net whose last layer is new, learns fast and stands on layers that learn slowly or not.

Caffe copies weights by the names of layers, so a layer with a new name keeps what its fillers give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format

from pipeline.codec import caffe_pb2
from pipeline.errors import ConfigError
from pipeline.nets.caffe import prototxt
from pipeline.nets.graph import caffe_graph, rules
from pipeline.nets.graph.caffe_graph import CaffeGraph, NetText

ALL = "all"
_FAST = 10.0  # of the new layer, against base_lr
_ENDS = ("Softmax", "Sigmoid", "Accuracy", "Silence", "ArgMax")  # what makes something of scores
_LEARN = ("InnerProduct", "Convolution")
_TRAIN_BATCH, _TEST_BATCH, _EPOCHS = 32, 50, 20
Layer = caffe_pb2.LayerParameter


@dataclass(frozen=True)
class Base:
    """A net to begin with.  size: (height, width) of its input; channels: 3 of colour, 1 of grey images; layers: of its
    deploy text, the input first.
    """

    name: str
    graph: CaffeGraph
    input: str
    size: tuple[int, int]
    channels: int
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Wanted:
    """blob: the new layer stands on it; None: in the place of the last layer that learns.

    freeze: this layer and those before it learn nothing; ALL: all but the new one; None: none.
    mean: of each channel, or one of all.
    """

    classes: int
    blob: str | None
    freeze: str | None
    mean: tuple[float, ...]


@dataclass(frozen=True)
class Source:
    """An LMDB.  crop: 0 where its images have the net's size."""

    path: Path
    examples: int
    crop: int


@dataclass(frozen=True)
class Texts:
    """What is written: by the name of the file."""

    train_val: caffe_pb2.NetParameter
    deploy: caffe_pb2.NetParameter
    new: str


def base_of(path: Path) -> Base:
    """Raises NetError for a net that is refused, ConfigError for one that takes no images from its one input."""
    text = prototxt.read(path)
    graph = caffe_graph.build(NetText(text, str(path)), None, rules.state_of("TEST", 0, ()), None, lambda says: None)
    inputs = list(graph.inputs.items())
    if len(inputs) != 1 or len(inputs[0][1]) != 4 or inputs[0][1][1] not in (1, 3):
        has = ", ".join(f"{name} {shape}" for name, shape in inputs) or "none"
        raise ConfigError(f"the net {path} takes no images", f"its inputs: {has}", "give a deploy.prototxt")
    (name, shape), layers = inputs[0], [step.layer.spec for step in graph.plan.steps]
    return Base(graph.name, graph, name, (shape[2], shape[3]), shape[1], tuple(layers))


def texts(base: Base, wanted: Wanted, train: Source, test: Source) -> Texts:
    """The nets that train and serve.  Raises ConfigError where no layer can be new, or none of that name be frozen."""
    layers, new, scores = _renewed(base, wanted)
    learning = [_learning(base, layer, frozen) for layer, frozen in _frozen(layers, new, wanted)]
    top = [one for one in learning if base.input not in one.top]
    label = _layer("Accuracy", "accuracy", [scores, "label"], "accuracy", "include { phase: TEST }")
    loss = _layer("SoftmaxWithLoss", "loss", [scores, "label"], "loss")
    data = [_data(base, wanted, train, "TRAIN"), _data(base, wanted, test, "TEST")]
    prob = _layer("Softmax", "prob", [scores], "prob")
    name = f"{base.name} for {wanted.classes} classes"
    return Texts(_net(name, [*data, *top, label, loss]), _net(name, [*layers, prob]), new)


def solver(net: Path, prefix: Path, train: Source, test: Source) -> str:
    """A solver: 20 passes over the training images, the rate a tenth after each third, a test after each pass."""
    epoch = -(-train.examples // _TRAIN_BATCH)
    rounds = test.examples // _divisor(test.examples)
    return "\n".join(
        (
            f'net: "{net}"',
            f"test_iter: {rounds}",
            f"test_interval: {epoch}",
            'type: "SGD"',
            "base_lr: 0.001",
            "momentum: 0.9",
            "weight_decay: 0.0005",
            'lr_policy: "step"',
            "gamma: 0.1",
            f"stepsize: {max(1, epoch * _EPOCHS // 3)}",
            f"max_iter: {epoch * _EPOCHS}",
            f"display: {max(1, epoch // 5)}",
            f"snapshot: {epoch}",
            f'snapshot_prefix: "{prefix}"',
            "random_seed: 1",
            "",
        )
    )


def _renewed(base: Base, wanted: Wanted) -> tuple[list[Layer], str, str]:
    """The layers up to the scores, the name of the new one, and the blob of the scores."""
    taken = {layer.name for layer in base.layers} | {top for layer in base.layers for top in layer.top}
    if wanted.blob is not None:
        plan = base.graph.plan
        layers = [plan.steps[number].layer.spec for number in sorted(plan.computable([plan.read(wanted.blob)]))]
        new = "score"
        while new in taken:
            new = f"new_{new}"
        outputs = f"inner_product_param {{ num_output: {wanted.classes} }}"
        return [*map(_copy, layers), _new(_layer("InnerProduct", new, [wanted.blob], new, outputs))], new, new
    layers = [_copy(layer) for layer in base.layers]
    while layers and (layers[-1].type in _ENDS or layers[-1].type.endswith("Loss")):
        layers.pop()
    at = next((at for at in reversed(range(len(layers))) if layers[at].type in _LEARN), None)
    if at is None:
        hint = "name the blob that a new layer stands on: --blob NAME"
        raise ConfigError(f"the net {base.name} has no layer that makes scores", f"none is {' or '.join(_LEARN)}", hint)
    old, new = layers[at].name, f"{layers[at].name}_of_{wanted.classes}"
    while new in taken:
        new += "_new"
    if layers[at].type == "InnerProduct":
        layers[at].inner_product_param.num_output = wanted.classes
    else:
        layers[at].convolution_param.num_output = wanted.classes
    layers[at].name = new
    for layer in layers[at:]:
        for names in (layer.top, *([layer.bottom] if layer.name != new else [])):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new
    layers[at] = _new(layers[at])
    return layers, new, layers[-1].top[0]


def _new(layer: Layer) -> Layer:
    """It begins with what its fillers give, whatever its text held, and learns faster than the rest."""
    layer.ClearField("blobs")
    layer.ClearField("param")
    how = layer.inner_product_param if layer.type == "InnerProduct" else layer.convolution_param
    how.ClearField("weight_filler")
    how.ClearField("bias_filler")
    how.weight_filler.type = "xavier"
    layer.param.add(lr_mult=_FAST, decay_mult=1.0)
    if how.bias_term:
        how.bias_filler.type = "constant"
        layer.param.add(lr_mult=2 * _FAST, decay_mult=0.0)
    return layer


def _frozen(layers: Sequence[Layer], new: str, wanted: Wanted) -> list[tuple[Layer, bool]]:
    names = [layer.name for layer in layers]
    if wanted.freeze is None:
        last = -1
    elif wanted.freeze == ALL:
        last = names.index(new) - 1
    elif wanted.freeze in names and wanted.freeze != new:
        last = names.index(wanted.freeze)
    else:
        hint = f"its layers are: {', '.join(names[:20])}; or {ALL}"
        raise ConfigError(f"--freeze {wanted.freeze}: the net has no such layer below the new one", "", hint)
    return [(layer, number <= last and layer.name != new) for number, layer in enumerate(layers)]


def _learning(base: Base, layer: Layer, frozen: bool) -> Layer:
    """The layer as it stands in the net that trains."""
    found = _copy(layer)
    step = next((number for number, one in enumerate(base.graph.plan.steps) if one.layer.name == layer.name), None)
    blobs = base.graph.parameters.slots(step) if step is not None else []
    if not frozen or not blobs:
        return found
    while len(found.param) < len(blobs):
        found.param.add()
    for one in found.param:
        one.lr_mult, one.decay_mult = 0.0, 0.0
    if found.type == "BatchNorm":
        found.batch_norm_param.use_global_stats = True
    return found


def _data(base: Base, wanted: Wanted, source: Source, phase: str) -> Layer:
    batch = _TRAIN_BATCH if phase == "TRAIN" else _divisor(source.examples)
    layer = Layer(name=base.input, type="Data", top=[base.input, "label"])
    layer.include.add(phase=getattr(caffe_pb2, phase))
    layer.transform_param.mirror = phase == "TRAIN"
    if source.crop:
        layer.transform_param.crop_size = source.crop
    layer.transform_param.mean_value.extend(wanted.mean)
    layer.data_param.source, layer.data_param.batch_size = str(source.path), batch
    layer.data_param.backend = caffe_pb2.DataParameter.LMDB
    return layer


def _divisor(examples: int) -> int:
    """The largest batch with which a test meets each example once."""
    return next(size for size in range(min(_TEST_BATCH, examples), 0, -1) if examples % size == 0)


def _net(name: str, layers: Sequence[Layer]) -> caffe_pb2.NetParameter:
    return caffe_pb2.NetParameter(name=name, layer=layers)


def _copy(layer: Layer) -> Layer:
    found = Layer()
    found.CopyFrom(layer)
    return found


def _layer(kind: str, name: str, bottoms: Sequence[str], top: str, text: str = "") -> Layer:
    spec = Layer(name=name, type=kind, bottom=bottoms, top=[top])
    text_format.Merge(text, spec)
    return spec
