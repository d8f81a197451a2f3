"""The gradient of every layer type that can be trained, by central differences in float64; the others are refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from pipeline.errors import SolverError
from pipeline.nets.graph.lowered import Shape, Slot
from pipeline.nets.layers import REGISTRY
from pipeline.training.engine.building import build
from pipeline.training.engine.net import TorchNetwork
from pipeline.training.network import Feeds
from tests.unit.training.trained import FLOAT64, Array, graph_of, inputs, layer

CHECKED = 24  # values of each blob; all of smaller ones
STEP = 1e-6
CHANNELS = "num_output: 4 weight_filler { type: 'xavier' } bias_filler { type: 'uniform' min: -1 max: 1 }"
LEARNS = "weight_filler { type: 'uniform' min: -1 max: 1 } bias_filler { type: 'uniform' min: -1 max: 1 }"
RNG = np.random.default_rng(5)


@dataclass(frozen=True)
class Case:
    """A layer whose bottoms are learned blobs (Parameter layers) of these shapes, then fed ones.

    tops: how many.  loss: its first top is a loss.  positive: what its bottoms hold.  spans: the axes of a top whose
    values count otherwise in the loss.
    """

    kind: str
    body: str = ""
    bottoms: tuple[Shape, ...] = ((2, 3, 6, 5),)
    fed: tuple[Array, ...] = ()
    tops: int = 1
    loss: bool = False
    positive: bool = False
    exact: bool = False
    phase: str = "TRAIN"
    spans: str = "axis: 0 num_axes: -1"


def labels(*shape: int, classes: int = 4) -> Array:
    return RNG.integers(0, classes, shape).astype(np.float32)


def cont(steps: int, items: int) -> Array:
    found = RNG.integers(0, 2, (steps, items)).astype(np.float32)
    found[0] = (0, 1, *found[0][2:])
    return found


RECURRENT = f"recurrent_param {{ num_output: 4 {LEARNS} }}"
EXPOSED = f"recurrent_param {{ num_output: 4 expose_hidden: true {LEARNS} }}"
SOFT = ((5, 4, 2, 3),)
MATRIX = RNG.uniform(size=(1, 1, 4, 4)).astype(np.float32)
CASES = [
    Case("AbsVal"),
    Case("BNLL"),
    Case("BatchNorm"),
    Case("BatchNorm", "batch_norm_param { eps: 0.1 }", ((6, 3),)),
    Case("BatchNorm", "batch_norm_param { use_global_stats: true }"),
    Case("BatchReindex", bottoms=((4, 3, 2),), fed=(np.array([3, 0, 0, 2, 1, 3], np.float32),)),
    Case("Bias", "bias_param { axis: 1 filler { type: 'uniform' } }"),
    Case("Bias", "bias_param { axis: 1 }", ((2, 3, 4), (3, 4))),
    Case("Clip", "clip_param { min: -0.7 max: 0.8 }"),
    Case("Concat", bottoms=((2, 3, 4), (2, 1, 4), (2, 2, 4))),
    Case("Concat", "concat_param { axis: 0 }", ((2, 3), (4, 3))),
    Case("ContrastiveLoss", "contrastive_loss_param { margin: 3 }", ((4, 5), (4, 5)), (labels(4, classes=2),),
         loss=True),
    Case("ContrastiveLoss", "contrastive_loss_param { margin: 9 legacy_version: true }", ((4, 5), (4, 5)),
         (labels(4, classes=2),), loss=True),
    Case("Convolution", f"convolution_param {{ {CHANNELS} kernel_size: 3 pad: 1 stride: 2 }}"),
    Case("Convolution", f"convolution_param {{ {CHANNELS} kernel_size: 3 dilation: 2 group: 2 bias_term: false }}",
         ((2, 4, 7, 6),)),
    Case("Convolution", f"convolution_param {{ {CHANNELS} kernel_size: 2 kernel_size: 1 kernel_size: 2 }}",
         ((2, 2, 3, 2, 3),)),
    Case("Convolution", f"convolution_param {{ {CHANNELS} kernel_size: 3 axis: 1 }}", ((2, 3, 7), (2, 3, 7)), tops=2),
    Case("Convolution", f"convolution_param {{ {CHANNELS} kernel_size: 2 }}", ((1, 2, 2, 2, 2, 3),)),
    Case("Convolution", f"convolution_param {{ {CHANNELS} kernel_h: 3 kernel_w: 2 stride: 2 pad: 1 dilation: 2 }}",
         exact=True),
    Case("Convolution", f"convolution_param {{ {CHANNELS} kernel_size: 3 group: 2 }}", ((2, 4, 5),), exact=True),
    Case("Crop", "crop_param { axis: 2 offset: 1 offset: 0 }", ((2, 3, 6, 5), (2, 3, 4, 3))),
    Case("Deconvolution", f"convolution_param {{ {CHANNELS} kernel_size: 4 stride: 2 pad: 1 }}", ((2, 3, 4, 3),)),
    Case("Deconvolution", f"convolution_param {{ {CHANNELS} kernel_size: 3 stride: 2 pad: 1 dilation: 2 group: 2 }}",
         ((2, 2, 3, 4),), exact=True),
    Case("Dropout", "dropout_param { dropout_ratio: 0.3 }"),
    Case("Dropout", phase="TEST"),
    Case("ELU", "elu_param { alpha: 0.5 }"),
    Case("Eltwise", "eltwise_param { operation: SUM coeff: 0.5 coeff: -2 coeff: 1 }", ((2, 3), (2, 3), (2, 3))),
    Case("Eltwise", "eltwise_param { operation: PROD }", ((2, 3), (2, 3), (2, 3))),
    Case("Eltwise", "eltwise_param { operation: MAX }", ((2, 3), (2, 3), (2, 3))),
    Case("Embed", f"embed_param {{ input_dim: 5 num_output: 3 {LEARNS} }}", (), (labels(2, 4, classes=5),)),
    Case("EuclideanLoss", bottoms=((3, 4), (3, 4)), loss=True),
    Case("Exp", "exp_param { base: 2 scale: 0.5 shift: 1 }"),
    Case("Exp"),
    Case("Filter", bottoms=((5, 3), (5, 2, 2)), fed=(np.array([0, 1, 1, 0, 1], np.float32),), tops=2,
         spans="axis: 1 num_axes: -1"),
    Case("Flatten", "flatten_param { axis: 1 end_axis: 2 }"),
    Case("HingeLoss", bottoms=((4, 5),), fed=(labels(4),), loss=True),
    Case("HingeLoss", "hinge_loss_param { norm: L2 } loss_weight: 0.3", ((4, 5),), (labels(4),), loss=True),
    Case("Im2col", "convolution_param { kernel_size: 3 pad: 1 stride: 2 }"),
    Case("InfogainLoss", "loss_param { ignore_label: 2 }", SOFT, (labels(5, 2, 3), MATRIX), loss=True),
    Case("InfogainLoss", "loss_param { normalization: FULL }", SOFT, (labels(5, 2, 3), MATRIX), loss=True),
    Case("InnerProduct", f"inner_product_param {{ {CHANNELS} }}"),
    Case("InnerProduct", f"inner_product_param {{ {CHANNELS} axis: 2 transpose: true }}", ((2, 3, 4),)),
    Case("LRN", "lrn_param { local_size: 3 alpha: 2 beta: 0.75 k: 1.5 }", ((2, 7, 3, 2),)),
    Case("LRN", "lrn_param { local_size: 3 alpha: 2 beta: 0.75 norm_region: WITHIN_CHANNEL }"),
    Case("LSTM", RECURRENT, ((4, 3, 5),), (cont(4, 3),)),
    Case("LSTM", EXPOSED, ((4, 3, 5), ), (cont(4, 3), RNG.normal(size=(3, 2)).astype(np.float32),
         RNG.normal(size=(1, 3, 4)).astype(np.float32), RNG.normal(size=(1, 3, 4)).astype(np.float32)), tops=3),
    Case("Log", "log_param { base: 10 scale: 2 shift: 0.5 }", positive=True),
    Case("MVN"),
    Case("MVN", "mvn_param { across_channels: true eps: 0.000001 }"),
    Case("MVN", "mvn_param { normalize_variance: false }"),
    Case("MultinomialLogisticLoss", bottoms=((4, 5),), fed=(labels(4),), loss=True, positive=True),
    Case("PReLU"),
    Case("PReLU", "prelu_param { channel_shared: true }"),
    Case("Parameter", "parameter_param { shape { dim: 2 dim: 3 } }", ()),
    Case("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }"),
    Case("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 pad: 1 }", tops=2),
    Case("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }"),
    Case("Pooling", "pooling_param { pool: AVE kernel_h: 2 kernel_w: 3 stride: 4 }"),
    Case("Pooling", "pooling_param { pool: AVE kernel_size: 2 stride: 3 pad: 1 round_mode: FLOOR }"),
    Case("Pooling", "pooling_param { pool: MAX global_pooling: true }"),
    Case("Power", "power_param { power: 2 scale: 3 shift: 0.5 }"),
    Case("Power", "power_param { power: 2 }"),
    Case("Power", "power_param { power: 1 scale: -2 shift: 1 }"),
    Case("Power", "power_param { power: 3 }"),
    Case("Power", "power_param { power: -0.75 scale: 0.5 shift: 2 }", positive=True),
    Case("RNN", RECURRENT, ((4, 3, 5),), (cont(4, 3),)),
    Case("RNN", EXPOSED, ((4, 3, 5),), (cont(4, 3), RNG.normal(size=(1, 3, 4)).astype(np.float32)), tops=2),
    Case("ReLU"),
    Case("ReLU", "relu_param { negative_slope: 0.2 }"),
    Case("Reduction", "reduction_param { operation: ASUM axis: 1 coeff: 3 }"),
    Case("Reduction", "reduction_param { operation: SUMSQ axis: 2 }"),
    Case("Reduction", "reduction_param { operation: MEAN axis: -1 }"),
    Case("Reduction", "loss_weight: 0.7", loss=True),
    Case("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 2 } }"),
    Case("SPP", "spp_param { pyramid_height: 2 pool: MAX }"),
    Case("SPP", "spp_param { pyramid_height: 2 pool: AVE }"),
    Case("Scale", "scale_param { axis: 1 num_axes: 2 bias_term: true bias_filler { type: 'uniform' } }"),
    Case("Scale", "scale_param { axis: 0 }", ((3, 4), (3,))),
    Case("Sigmoid"),
    Case("SigmoidCrossEntropyLoss", bottoms=((4, 5),), fed=(RNG.uniform(size=(4, 5)).astype(np.float32),), loss=True),
    Case("SigmoidCrossEntropyLoss", "loss_param { ignore_label: -1 normalization: VALID }", ((4, 5),),
         (labels(4, 5, classes=3) - 1,), loss=True),
    Case("Silence", tops=0),
    Case("Slice", "slice_param { axis: 1 slice_point: 1 }", tops=2),
    Case("Softmax"),
    Case("Softmax", "softmax_param { axis: -1 }"),
    Case("SoftmaxWithLoss", "", SOFT, (labels(5, 2, 3),), loss=True),
    Case("SoftmaxWithLoss", "loss_param { ignore_label: 1 } loss_weight: 2 loss_weight: 0", SOFT, (labels(5, 2, 3),),
         tops=2, loss=True),
    Case("SoftmaxWithLoss", "loss_param { normalization: BATCH_SIZE } softmax_param { axis: 2 }", ((3, 2, 4),),
         (labels(3, 2),), loss=True),
    Case("SoftmaxWithLoss", "loss_param { normalization: NONE }", ((3, 4),), (labels(3),), tops=0, loss=True),
    Case("Split", tops=2),
    Case("Swish", "swish_param { beta: 1.5 }"),
    Case("TanH"),
    Case("Tile", "tile_param { axis: 1 tiles: 3 }", ((2, 3, 2),)),
]  # fmt: skip
FIRST = ("Pooling", "LSTM", "RNN")
"""A mask and exposed hidden states have no gradient in Caffe."""
REFUSED = {"ArgMax": "argmax_param { top_k: 1 }", "Threshold": "", "Accuracy": ""}
FED = {"Input", "MemoryData", "DummyData"}


def text_of(case: Case) -> tuple[str, dict[str, Array]]:
    """The net around the layer: what it reads, and a loss of what it makes."""
    text, feeds = "", {}
    for index, shape in enumerate(case.bottoms):
        text += layer("Parameter", "", f"p{index}", f"parameter_param {{ shape {{ dim: {list(shape)} }} }}")
    names = [f"p{index}" for index in range(len(case.bottoms))]
    for index, array in enumerate(case.fed):
        text += inputs(**{f"f{index}": array.shape})
        feeds[f"f{index}"] = array
        names.append(f"f{index}")
    if case.kind == "Silence":
        text += layer("Split", names[0], "s0 s1") + layer("Silence", "s0", "") + whole("s1", 0, case.spans)
        return text, feeds
    tops = [f"t{index}" for index in range(case.tops)]
    body = case.body + (" phase: TEST" if case.phase == "TEST" else "")
    text += layer(case.kind, " ".join(names), " ".join(tops), body, name="layer")
    if not case.loss:
        text += "".join(
            whole(top, index, case.spans) for index, top in enumerate(tops) if case.kind not in FIRST or not index
        )
    return text, feeds


def whole(top: str, number: int, spans: str) -> str:
    """All of a top as one number, in which each of its values counts otherwise."""
    weights = f"scale_param {{ {spans} filler {{ type: 'uniform' min: 0.5 max: 2 }} }} param {{ lr_mult: 0 }}"
    scaled = layer("Scale", top, f"scaled{number}", weights)
    square = layer("Power", f"scaled{number}", f"square{number}", "power_param { power: 2 shift: 0.3 }")
    return scaled + square + layer("Reduction", f"square{number}", f"loss{number}", "loss_weight: 0.7")


def filled(net: TorchNetwork, case: Case) -> None:
    random = np.random.default_rng(len(case.body) + len(case.kind))
    for one in net.learned:
        if net.graph.plan.steps[one.slot.step].layer.spec.type == "Parameter":
            values = random.normal(size=one.shape)
            values = np.abs(values) + 0.2 if case.positive else values
            with torch.no_grad():
                net.tensor(one.slot).copy_(torch.from_numpy(values))


def feeds_of(net: TorchNetwork, feeds: dict[str, Array]) -> Feeds:
    for mask in net.masks:
        kept = RNG.uniform(size=mask.shape) > mask.ratio
        feeds[mask.feed] = (kept / (1 - mask.ratio)).astype(np.float32)
    return feeds


def differences(net: TorchNetwork, slot: Slot, feeds: Feeds) -> list[tuple[float, float]]:
    """Of some values of a blob: the gradient, and how the loss changes with the value."""
    flat, gradient = net.tensor(slot).detach().view(-1), net.gradient_tensor(slot).reshape(-1)
    chosen = np.random.default_rng(0).permutation(flat.numel())[:CHECKED]
    found = []
    for place in chosen.tolist():
        before, losses = float(flat[place]), []
        for side in (STEP, -STEP):
            flat[place] = before + side
            net.carry({name: np.zeros_like(state) for name, state in net.carried().items()})
            losses.append(net.forward(feeds).loss)
        flat[place] = before
        found.append((float(gradient[place]), (losses[0] - losses[1]) / (2 * STEP)))
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}-{case.body[:60]}-{case.tops}")
def test_a_gradient_is_what_the_loss_does(case: Case) -> None:
    text, feeds = text_of(case)
    how = replace(FLOAT64, exact=case.exact)
    net = build(graph_of(text), how)
    filled(net, case)
    given = feeds_of(net, feeds)
    net.backward(given)
    checked = 0
    for one in net.learned:
        if one.lr_mult and net.tensor(one.slot).requires_grad:
            pairs = np.array(differences(net, one.slot, given))
            scale = max(1.0, float(np.abs(pairs).max()))
            np.testing.assert_allclose(pairs[:, 0], pairs[:, 1], atol=2e-6 * scale, err_msg=f"{one}")
            checked += int(np.abs(pairs).max() > 1e-3)
    assert checked, "no gradient was looked at"


def test_every_registered_layer_is_trained_here_or_refused_or_only_fed() -> None:
    assert {case.kind for case in CASES} | REFUSED.keys() | FED == REGISTRY.keys()


@pytest.mark.parametrize("kind", REFUSED)
def test_a_layer_without_a_gradient_is_refused_by_name_where_one_would_flow(kind: str) -> None:
    text = inputs(label=(4,)) + layer("Parameter", "", "p", "parameter_param { shape { dim: 4 dim: 3 } }")
    below = "p label" if kind == "Accuracy" else "p"
    text += layer(kind, below, "top", REFUSED[kind] + " loss_weight: 1", name="no way back")
    with pytest.raises(SolverError, match=f"layer 'no way back' \\({kind}\\)"):
        build(graph_of(text), FLOAT64)
    build(graph_of(text.replace(" loss_weight: 1", "")), FLOAT64)  # what is no part of the loss may stand there
