"""Layers beyond the golden cases, against their definitions in numpy; on both CPU engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import nets
from pipeline.codec import caffe_pb2
from pipeline.errors import NetError
from pipeline.nets.caffe_net import CaffeNet
from pipeline.nets.engines import installed

Array = NDArray[np.float32]
RNG = np.random.default_rng(11)


@pytest.fixture(params=installed())
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def inputs(**shapes: tuple[int, ...]) -> str:
    text = ""
    for name, shape in shapes.items():
        dims = " ".join(f"dim: {size}" for size in shape)
        text += f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}\n'
    return text


def layer(kind: str, bottoms: str, tops: str, body: str = "") -> str:
    names = "".join(f' bottom: "{name}"' for name in bottoms.split())
    names += "".join(f' top: "{name}"' for name in tops.split())
    return f'layer {{ name: "{kind}_{tops}" type: "{kind}"{names} {body} }}\n'


def run(folder: Path, engine: str, text: str, feeds: dict[str, Array], *blobs: str, phase: str = "TEST") -> list[Array]:
    (folder / "net.prototxt").write_text(text)
    got = nets.load(folder / "net.prototxt", engine=engine, phase=phase).forward(feeds, blobs)
    return [got[blob] for blob in blobs]


X = RNG.normal(size=(2, 3, 6, 5)).astype(np.float32)


@pytest.mark.parametrize("power", [5.0, -3.0, 1.5, -1.5, 0.25, 2.0, -2.0, 4.0])
def test_powers_of_negative_numbers_are_cs(power: float, engine: str, tmp_path: Path) -> None:
    got, = run(tmp_path, engine, inputs(x=X.shape) + layer("Power", "x", "y", f"power_param {{ power: {power} }}"),
               {"x": X}, "y")  # fmt: skip
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(got, np.power(X.astype(np.float64), power), rtol=2e-5)


@pytest.mark.parametrize("axis", [None, 1, 2])
def test_argmax_of_equals_takes_the_later_place_as_caffe(axis: int | None, engine: str, tmp_path: Path) -> None:
    x = RNG.integers(0, 3, (2, 4, 5)).astype(np.float32)
    body = "argmax_param { top_k: 3 %s }" % (f"axis: {axis}" if axis is not None else "")
    (got,) = run(tmp_path, engine, inputs(x=x.shape) + layer("ArgMax", "x", "y", body), {"x": x}, "y")
    flat = x.reshape(2, 20) if axis is None else np.moveaxis(x, axis, -1)
    pairs = np.lexsort((np.arange(flat.shape[-1]) + 0 * flat, flat), axis=-1)[..., ::-1][..., :3]
    want = pairs.reshape(2, 1, 3) if axis is None else np.moveaxis(pairs, -1, axis)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("shape", [(4, 3, 6, 5), (4, 3), (4, 3, 5), (2, 3, 2, 2, 2)])
def test_batch_norm_in_training_uses_the_batchs_own(shape: tuple[int, ...], engine: str, tmp_path: Path) -> None:
    x = (RNG.normal(size=shape) * 3 + 7).astype(np.float32)
    text = inputs(x=shape) + layer("BatchNorm", "x", "y", "batch_norm_param { eps: 0.01 }")
    (train,) = run(tmp_path, engine, text, {"x": x}, "y", phase="TRAIN")
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    mean, variance = x.mean(axes, keepdims=True, dtype=np.float64), x.var(axes, keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(train, (x - mean) / np.sqrt(variance + 0.01), atol=1e-5)
    (test,) = run(tmp_path, engine, text, {"x": x}, "y")
    np.testing.assert_allclose(test, x / np.sqrt(0.01), rtol=1e-5)  # a factor of 0: statistics of 0


def test_filter_keeps_what_is_chosen_and_what_follows_too(engine: str, tmp_path: Path) -> None:
    text = inputs(x=(5, 3, 4, 4), s=(5, 1, 1, 1)) + layer(
        "Threshold", "s", "chosen", "threshold_param { threshold: 0.5 }"
    )
    text += layer("Filter", "x chosen", "f") + layer("Flatten", "f", "flat")
    text += layer("Reduction", "flat", "sum", "reduction_param { axis: 1 }")
    x = RNG.normal(size=(5, 3, 4, 4)).astype(np.float32)
    for chosen in ([0, 1, 1, 0, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]):
        select = np.array(chosen, np.float32).reshape(5, 1, 1, 1)
        f, total = run(tmp_path, engine, text, {"x": x, "s": select}, "f", "sum")
        np.testing.assert_array_equal(f, x[np.array(chosen, bool)])
        np.testing.assert_allclose(total, x[np.array(chosen, bool)].sum((1, 2, 3)), rtol=1e-4, atol=1e-5)
    with pytest.raises(NetError, match="selects no item"):
        run(tmp_path, engine, text, {"x": x, "s": np.zeros((5, 1, 1, 1), np.float32)}, "f")


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def test_lstm_with_exposed_states_goes_on_where_it_ended(engine: str, tmp_path: Path) -> None:
    steps, items, size, out = 6, 2, 3, 4
    body = """recurrent_param { num_output: 4 expose_hidden: true weight_filler { type: "uniform" min: -1 max: 1 }
              bias_filler { type: "uniform" min: -1 max: 1 } }"""

    def text(steps: int) -> str:
        return (inputs(x=(steps, items, size), c=(steps, items), st=(items, 5), h0=(1, items, out), c0=(1, items, out))
                + layer("LSTM", "x c st h0 c0", "y h1 c1", body))  # fmt: skip

    x = RNG.normal(size=(steps, items, size)).astype(np.float32)
    cont = np.array([[1, 0], [1, 1], [0, 1], [1, 1], [1, 1], [1, 0]], np.float32)
    st, h0, c0 = (RNG.normal(size=s).astype(np.float32) for s in ((items, 5), (1, items, out), (1, items, out)))
    feeds = {"st": st, "h0": h0, "c0": c0}
    y, h1, c1 = run(tmp_path, engine, text(steps), {"x": x, "c": cont, **feeds}, "y", "h1", "c1")
    net = nets.load(tmp_path / "net.prototxt")
    assert isinstance(net, CaffeNet)
    wx, b, ws, wh = net.parameters.of([5], net.plan)[5]
    h, c = h0[0].astype(np.float64), c0[0].astype(np.float64)
    for step in range(steps):
        gates = x[step] @ wx.T + b + st @ ws.T + (h * cont[step][:, None]) @ wh.T
        i, f, o = (sigmoid(gates[:, k * out : (k + 1) * out]) for k in range(3))
        c = cont[step][:, None] * f * c + i * np.tanh(gates[:, 3 * out :])
        h = o * np.tanh(c)
        np.testing.assert_allclose(y[step], h, atol=1e-5)
    np.testing.assert_allclose(h1[0], h, atol=1e-5)
    np.testing.assert_allclose(c1[0], c, atol=1e-5)
    first = run(tmp_path, engine, text(2), {"x": x[:2], "c": cont[:2], **feeds}, "y", "h1", "c1")
    (rest,) = run(tmp_path, engine, text(4), {"x": x[2:], "c": cont[2:], "st": st, "h0": first[1], "c0": first[2]}, "y")
    np.testing.assert_allclose(np.concatenate([first[0], rest]), y, atol=1e-5)


@pytest.mark.parametrize("how", ["", "loss_param { ignore_label: 2 }", "loss_param { normalization: NONE }"])
@pytest.mark.parametrize("stored", [True, False])
def test_infogain_loss_weighs_each_pair_of_label_and_class(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, stored: bool
) -> None:
    matrix = RNG.uniform(size=(4, 4)).astype(np.float32)
    monkeypatch.chdir(tmp_path)
    blob = caffe_pb2.BlobProto(num=1, channels=1, height=4, width=4, data=matrix.reshape(-1))
    Path("h.binaryproto").write_bytes(blob.SerializeToString())
    x, y = RNG.normal(size=(3, 4, 5)).astype(np.float32), RNG.integers(0, 4, (3, 5)).astype(np.float32)
    body = f'infogain_loss_param {{ source: "h.binaryproto" }} {how}'
    text = inputs(x=x.shape, y=y.shape) + layer("InfogainLoss", "x y", "loss prob", body)
    feeds = {"x": x, "y": y}
    if not stored:
        feeds["h"] = matrix.reshape(1, 1, 4, 4)
        text = inputs(x=x.shape, y=y.shape, h=(1, 1, 4, 4)) + layer("InfogainLoss", "x y h", "loss prob", how)
    loss, prob = run(tmp_path, engine, text, feeds, "loss", "prob")
    want = np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum(1, keepdims=True)
    each = -(matrix[y.astype(int)].transpose(0, 2, 1) * np.log(want)).sum(1)
    kept = y != 2 if "ignore" in how else np.ones(y.shape, bool)
    np.testing.assert_allclose(loss, each[kept].sum() / (1 if "NONE" in how else kept.sum()), rtol=1e-5)
    np.testing.assert_allclose(prob, want, atol=1e-6)


def test_an_infogain_matrix_that_is_not_there_or_does_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("h.binaryproto").write_bytes(caffe_pb2.BlobProto(data=[1.0] * 9).SerializeToString())
    Path("cut.binaryproto").write_bytes(b"\x2a\xff\x01")
    refusals = {
        "": "source must be specified",
        "none": "none cannot be read",
        "cut.binaryproto": "no .binaryproto",
        "h.binaryproto": "has 9 values; 4 classes",
    }
    for source, says in refusals.items():
        path = tmp_path / "net.prototxt"
        body = f'infogain_loss_param {{ source: "{source}" }}'
        path.write_text(inputs(x=(3, 4), y=(3,)) + layer("InfogainLoss", "x y", "loss", body))
        with pytest.raises(NetError, match=f"layer 'InfogainLoss_loss'.*{says}"):
            nets.load(path)


def test_a_convolution_over_four_axes_is_one_too(engine: str, tmp_path: Path) -> None:
    shape = (2, 2, 4, 3, 4, 3)
    body = """convolution_param { num_output: 4 kernel_size: 2 pad: 1 stride: 2 group: 2 force_nd_im2col: true
              weight_filler { type: "uniform" min: -1 } bias_filler { type: "uniform" min: -1 } }"""
    x = RNG.normal(size=shape).astype(np.float32)
    (got,) = run(tmp_path, engine, inputs(x=shape) + layer("Convolution", "x", "y", body), {"x": x}, "y")
    net = nets.load(tmp_path / "net.prototxt")
    assert isinstance(net, CaffeNet)
    w, b = net.parameters.of([1], net.plan)[1]
    padded = np.pad(x, [(0, 0), (0, 0)] + [(1, 1)] * 4)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2,) * 4, axis=(2, 3, 4, 5))[:, :, ::2, ::2, ::2, ::2]
    want = [np.einsum("nabcdijkl,oijkl->noabcd", windows[:, g], w[2 * g : 2 * g + 2, 0]) for g in range(2)]
    np.testing.assert_allclose(got, np.concatenate(want, 1) + b.reshape(1, 4, 1, 1, 1, 1), atol=1e-4)


LOGITS = RNG.normal(size=(4, 6, 2, 3)).astype(np.float32)
LABELS = RNG.integers(0, 6, (4, 2, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("params", "divisor"),
    [("", "kept"), ("loss_param { ignore_label: 2 }", "kept"), ("loss_param { normalize: false }", "batch"),
     ("loss_param { normalization: FULL ignore_label: 2 }", "all"), ("loss_param { normalization: NONE }", "one"),
     ("loss_param { normalization: BATCH_SIZE ignore_label: 2 }", "batch"),
     ("loss_param { normalize: true normalization: NONE }", "one")],
)  # fmt: skip
def test_softmax_loss_is_normalised_as_it_is_told(params: str, divisor: str, engine: str, tmp_path: Path) -> None:
    text = inputs(x=LOGITS.shape, l=LABELS.shape) + layer("SoftmaxWithLoss", "x l", "loss prob", params)
    loss, prob = run(tmp_path, engine, text, {"x": LOGITS, "l": LABELS}, "loss", "prob")
    e = np.exp(LOGITS.astype(np.float64))
    p = e / e.sum(1, keepdims=True)
    np.testing.assert_allclose(prob, p, rtol=1e-4)
    picked = np.take_along_axis(p, LABELS.astype(int)[:, None], 1)[:, 0]
    kept = LABELS != 2 if "ignore" in params else np.ones(LABELS.shape, bool)
    by = {"kept": kept.sum(), "batch": 4, "all": LABELS.size, "one": 1}[divisor]
    np.testing.assert_allclose(loss, -np.log(picked)[kept].sum() / by, rtol=1e-5)


def test_a_label_that_is_ignored_may_be_no_class(engine: str, tmp_path: Path) -> None:
    labels = LABELS.copy()
    labels[0] = 255
    text = inputs(x=LOGITS.shape, l=LABELS.shape)
    text += layer("SoftmaxWithLoss", "x l", "loss", "loss_param { ignore_label: 255 }")
    text += layer("Accuracy", "x l", "acc each", "accuracy_param { ignore_label: 255 }")
    loss, acc, each = run(tmp_path, engine, text, {"x": LOGITS, "l": labels}, "loss", "acc", "each")
    rest = run(tmp_path, engine, text, {"x": LOGITS[1:], "l": labels[1:]}, "loss", "acc", "each")
    np.testing.assert_allclose([loss, acc], rest[:2], rtol=1e-5)
    np.testing.assert_allclose(each, rest[2], rtol=1e-5)
    right = LOGITS[1:].argmax(1) == labels[1:]
    np.testing.assert_allclose(acc, right.mean(), rtol=1e-6)
    want = [right[labels[1:] == c].mean() if (labels[1:] == c).any() else 0 for c in range(6)]
    np.testing.assert_allclose(each, want, rtol=1e-6)


def test_labels_may_lie_in_one_row_for_accuracy_and_an_item_may_have_its_classes_over_several_axes(
    engine: str, tmp_path: Path
) -> None:
    """Accuracy asks for as many labels as places; MultinomialLogisticLoss for one an item, whatever its shape is."""
    labels = LABELS.ravel()
    text = inputs(x=LOGITS.shape, l=labels.shape) + layer("Accuracy", "x l", "acc")
    (acc,) = run(tmp_path, engine, text, {"x": LOGITS, "l": labels}, "acc")
    np.testing.assert_allclose(acc, (LOGITS.argmax(1).ravel() == labels).mean(), rtol=1e-6)
    p = RNG.uniform(0.1, 1, (3, 2, 2, 2)).astype(np.float32)
    which = np.array([7, 0, 3], np.float32)
    text = inputs(p=p.shape, l=which.shape) + layer("MultinomialLogisticLoss", "p l", "m")
    (loss,) = run(tmp_path, engine, text, {"p": p, "l": which}, "m")
    np.testing.assert_allclose(loss, -np.log(p.reshape(3, 8)[range(3), which.astype(int)]).mean(), rtol=1e-5)


@pytest.mark.parametrize("norm", ["L1", "L2"])
def test_hinge_loss(norm: str, engine: str, tmp_path: Path) -> None:
    x, label = LOGITS[:, :, 0, 0], LABELS[:, 0, 0]
    text = inputs(x=x.shape, l=label.shape) + layer("HingeLoss", "x l", "h", f"hinge_loss_param {{ norm: {norm} }}")
    (got,) = run(tmp_path, engine, text, {"x": x, "l": label}, "h")
    sign = np.where(np.arange(6) == label[:, None], -1, 1)
    margin = np.maximum(0, 1 + sign * x)
    np.testing.assert_allclose(got, (margin if norm == "L1" else margin**2).sum() / 4, rtol=1e-5)


def test_contrastive_loss_of_the_legacy_version(engine: str, tmp_path: Path) -> None:
    a, b = (RNG.normal(size=(4, 3)).astype(np.float32) for _ in range(2))
    same = np.array([1, 0, 0, 1], np.float32)
    text = inputs(a=a.shape, b=b.shape, s=same.shape)
    text += layer("ContrastiveLoss", "a b s", "c", "contrastive_loss_param { margin: 5 legacy_version: true }")
    (got,) = run(tmp_path, engine, text, {"a": a, "b": b, "s": same}, "c")
    square = ((a - b) ** 2).sum(1)
    np.testing.assert_allclose(got, np.where(same, square, np.maximum(0, 5 - square)).sum() / 8, rtol=1e-5)


def test_a_loss_without_a_top_is_no_blob(tmp_path: Path) -> None:
    text = inputs(x=(2, 3), l=(2,)) + layer("SoftmaxWithLoss", "x l", "")
    (tmp_path / "net.prototxt").write_text(text)
    assert nets.load(tmp_path / "net.prototxt").outputs == ()


def test_reductions_of_a_train_val_net_take_memory_data(engine: str, tmp_path: Path) -> None:
    text = 'layer { name: "d" type: "MemoryData" top: "data" top: "label" '
    text += "memory_data_param { batch_size: 2 channels: 3 height: 6 width: 5 } }\n"
    text += layer("Pooling", "data", "p", "pooling_param { pool: AVE global_pooling: true }")
    text += layer("Accuracy", "p label", "acc")
    (acc,) = run(tmp_path, engine, text, {"data": X, "label": np.array([0, 1], np.float32)}, "acc")
    np.testing.assert_allclose(acc, (X.mean((2, 3)).argmax(1) == [0, 1]).mean())


def test_scale_by_a_scalar_blob_and_dummy_data_of_the_old_form(engine: str, tmp_path: Path) -> None:
    text = inputs(x=X.shape) + layer("Reduction", "x", "s") + layer("Scale", "x s", "y")
    text += layer("DummyData", "", "d e", "dummy_data_param { num: 1 channels: 2 height: 3 width: 4 "
                  "data_filler { value: 3 } data_filler { value: 4 } }")  # fmt: skip
    y, d, e = run(tmp_path, engine, text, {"x": X}, "y", "d", "e")
    np.testing.assert_allclose(y, X * X.sum(dtype=np.float64), rtol=1e-4)
    assert d.shape == e.shape == (1, 2, 3, 4)
    assert (d == 3).all()
    assert (e == 4).all()


@pytest.mark.parametrize(("high", "wide", "kernel", "stride", "pad"), [
    (7, 5, (3, 2), (2, 3), (1, 1)), (8, 8, (2, 2), (2, 2), (1, 1)), (9, 4, (5, 4), (1, 1), (2, 3)),
    (6, 6, (2, 2), (5, 5), (0, 0)), (5, 5, (1, 1), (3, 4), (0, 0)), (11, 13, (4, 3), (3, 2), (3, 2)),
])  # fmt: skip
@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize("floor", [False, True])
def test_pooling_windows_are_caffes(high: int, wide: int, kernel: tuple[int, int], stride: tuple[int, int],
                                    pad: tuple[int, int], method: str, floor: bool, engine: str,
                                    tmp_path: Path) -> None:  # fmt: skip
    x = RNG.normal(size=(1, 2, high, wide)).astype(np.float32)
    body = f"""pooling_param {{ pool: {method} kernel_h: {kernel[0]} kernel_w: {kernel[1]} stride_h: {stride[0]}
        stride_w: {stride[1]} pad_h: {pad[0]} pad_w: {pad[1]} round_mode: {"FLOOR" if floor else "CEIL"} }}"""
    tops = "y mask" if method == "MAX" else "y"
    got, *mask = run(tmp_path, engine, inputs(x=x.shape) + layer("Pooling", "x", tops, body), {"x": x}, *tops.split())
    want, places = pooled(x, kernel, stride, pad, method, floor)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    if mask:
        np.testing.assert_array_equal(mask[0], places)


def pooled(x: Array, kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int], method: str,
           floor: bool) -> tuple[Array, Array]:  # fmt: skip
    """pooling_layer.cpp, loop by loop."""
    sizes = []
    for n, k, s, p in zip(x.shape[2:], kernel, stride, pad, strict=True):
        out = int((np.floor if floor else np.ceil)((n + 2 * p - k) / s)) + 1
        if any(pad) and (out - 1) * s >= n + p:
            out -= 1
        sizes.append(out)
    values, places = np.zeros((*x.shape[:2], *sizes), np.float32), np.full((*x.shape[:2], *sizes), -1, np.float32)
    for index in np.ndindex(*values.shape):
        n, c, *where = index
        begin = [w * s - p for w, s, p in zip(where, stride, pad, strict=True)]
        end = [min(b + k, size + p) for b, k, size, p in zip(begin, kernel, x.shape[2:], pad, strict=True)]
        count = (end[0] - begin[0]) * (end[1] - begin[1])
        begin = [max(0, b) for b in begin]
        end = [min(e, size) for e, size in zip(end, x.shape[2:], strict=True)]
        window = x[n, c, begin[0] : end[0], begin[1] : end[1]]
        if method == "AVE":
            with np.errstate(all="ignore"):
                values[index] = np.float32(window.sum()) / np.float32(count)
        elif window.size:
            values[index] = window.max()
            row, column = np.unravel_index(window.argmax(), window.shape)
            places[index] = (begin[0] + row) * x.shape[3] + begin[1] + column
        else:
            values[index] = np.finfo(np.float32).min
    return values, places
