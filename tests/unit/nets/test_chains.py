"""Nets that nobody wrote: chains of layers with random settings compute the same on engines that share no code."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import nets
from pipeline.errors import NetError
from pipeline.nets.engines import installed
from tests.unit.nets.test_golden import distance
from tests.unit.nets.test_layers import inputs, layer

PLAIN = ["ReLU", "Sigmoid", "TanH", "AbsVal", "BNLL", "ELU", "Dropout", "Swish"]
FILLED = 'weight_filler { type: "gaussian" std: 0.3 } bias_filler { type: "uniform" min: -1 max: 1 }'


@st.composite
def pair(draw: st.DrawFn, what: str, low: int, high: int, field: str = "") -> str:
    """One number, or one for each direction."""
    if draw(st.booleans()):
        return f"{field or what}: {draw(st.integers(low, high))}"
    return f"{what}_h: {draw(st.integers(low, high))} {what}_w: {draw(st.integers(low, high))}"


@st.composite
def windows(draw: st.DrawFn) -> str:
    return " ".join([draw(pair("kernel", 1, 5, "kernel_size")), draw(pair("stride", 1, 3)), draw(pair("pad", 0, 2))])


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[str, str]:
    kind = draw(st.sampled_from(["Convolution", "Convolution", "Deconvolution"]))
    group = draw(st.sampled_from([1, 1, 2, 4]))
    body = f"num_output: {draw(st.sampled_from([4, 8]))} group: {group} dilation: {draw(st.integers(1, 2))}"
    body += f" bias_term: {draw(st.sampled_from(['true', 'false']))} {draw(windows())} {FILLED}"
    return kind, f"convolution_param {{ {body} }}"


@st.composite
def poolings(draw: st.DrawFn) -> tuple[str, str]:
    pool, mode = draw(st.sampled_from(["MAX", "AVE"])), draw(st.sampled_from(["CEIL", "FLOOR"]))
    if draw(st.integers(0, 9)) == 0:
        return "Pooling", f"pooling_param {{ pool: {pool} global_pooling: true }}"
    return "Pooling", f"pooling_param {{ pool: {pool} round_mode: {mode} {draw(windows())} }}"


@st.composite
def normalisations(draw: st.DrawFn) -> tuple[str, str]:
    size, region = draw(st.sampled_from([1, 3, 5, 9])), draw(st.sampled_from(["ACROSS_CHANNELS", "WITHIN_CHANNEL"]))
    return draw(st.sampled_from([
        ("LRN", f"lrn_param {{ local_size: {size} alpha: 0.5 beta: 0.75 norm_region: {region} }}"),
        ("MVN", "mvn_param { eps: 0.01 }"),
        ("MVN", "mvn_param { across_channels: true normalize_variance: false }"),
        ("BatchNorm", "batch_norm_param { use_global_stats: false eps: 0.01 }"),
        ("Scale", f"scale_param {{ bias_term: true filler {{ type: 'uniform' max: 2 }} axis: {size % 3 + 1} }}"),
        ("Bias", "bias_param { filler { type: 'uniform' min: -2 max: 2 } }"),
        ("PReLU", "prelu_param { filler { type: 'uniform' min: -0.5 max: 0.5 } }"),
        ("Power", "power_param { scale: 0.5 shift: 1 power: 2 }"),
        ("Clip", "clip_param { min: -0.5 max: 0.7 }"),
        ("ReLU", "relu_param { negative_slope: 0.1 }"),
        ("Softmax", f"softmax_param {{ axis: {size % 3 + 1} }}"),
    ]))  # fmt: skip


@st.composite
def shapings(draw: st.DrawFn) -> tuple[str, str]:
    axis = draw(st.integers(1, 3))
    return draw(st.sampled_from([
        ("Tile", f"tile_param {{ axis: {axis} tiles: 2 }}"),
        ("Reduction", "reduction_param { operation: MEAN axis: 3 }"),
        ("Flatten", f"flatten_param {{ axis: {axis} }}"),
        ("Reshape", "reshape_param { shape { dim: 0 dim: 2 dim: -1 dim: 0 } }"),
        ("InnerProduct", f"inner_product_param {{ num_output: 6 axis: {axis} {FILLED} }}"),
        ("SPP", "spp_param { pyramid_height: 2 }"),
        ("Im2col", f"convolution_param {{ {draw(windows())} }}"),
        ("ArgMax", f"argmax_param {{ axis: {axis} }}"),
    ]))  # fmt: skip


STEPS = st.one_of(convolutions(), convolutions(), poolings(), poolings(), normalisations(), normalisations(),
                  st.sampled_from(PLAIN).map(lambda kind: (kind, "")), shapings())  # fmt: skip


@st.composite
def chains(draw: st.DrawFn) -> tuple[str, tuple[int, ...], list[str]]:
    """The text, the input's shape, the blobs in order; some steps work in place, some blobs have a second reader."""
    shape = (draw(st.integers(1, 3)), 4, draw(st.integers(5, 14)), draw(st.integers(5, 14)))
    text, blobs = inputs(x=shape), ["x"]
    for number, (kind, body) in enumerate(draw(st.lists(STEPS, min_size=1, max_size=7))):
        source = blobs[-1]
        top = source if kind in PLAIN and source != "x" and draw(st.booleans()) else f"b{number}"
        text += layer(kind, source, top, body).replace(f'"{kind}_{top}"', f'"l{number}"')
        if top != source:
            blobs.append(top)
    if draw(st.booleans()):
        text += layer("Eltwise", f"{blobs[-1]} {blobs[-1]}", "twice", "eltwise_param { coeff: 0.5 coeff: -2 }")
        blobs.append("twice")
    return text, shape, blobs[1:]


def compare(text: str, shape: tuple[int, ...], blobs: list[str], engines: list[str]) -> bool:
    """Whether the net is one that Caffe would take; values must agree then, and shapes be those that are foretold."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.prototxt"
        path.write_text(text)
        try:
            first = nets.load(path, engine=engines[0])
        except NetError as error:
            if not error.message.startswith("layer 'l"):
                raise
            return False
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        want = first.forward({"x": x}, blobs)
        assert {blob: values.shape for blob, values in want.items()} == {b: first.shape(b, {}) for b in blobs}
        for engine in engines[1:]:
            got = nets.load(path, engine=engine).forward({"x": x}, blobs)
            for blob in blobs:
                if not _ties(text, blob):
                    assert distance(got[blob], want[blob]) < 2e-4, (engine, blob, text)
    return True


def _ties(text: str, blob: str) -> bool:
    """ArgMax is before it: values that differ in their last digit may change places there."""
    at = text.find('type: "ArgMax"')
    return at >= 0 and text.find(f'top: "{blob}"') >= at


@pytest.mark.parametrize("engine", [name for name in installed() if name in ("onnxruntime", "torch")])
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(chain=chains())
def test_a_chain_of_any_layers_is_refused_or_computes_the_same_everywhere(
    engine: str, chain: tuple[str, tuple[int, ...], list[str]]
) -> None:
    compare(*chain, engines=["openvino", engine])
