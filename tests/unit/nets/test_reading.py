"""Texts and weights files in all their forms, and what is wrong with bad ones."""

from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import nets
from pipeline.codec import caffe_pb2
from pipeline.errors import NetError
from pipeline.nets.caffe import caffemodel, prototxt
from pipeline.nets.caffe_net import CaffeNet
from tests.golden.bignets import field, message, varint

TINY = Path(__file__).parents[2] / "golden" / "tiny"
CONV = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [2, 3, 8, 8] } } }
layer { name: "c" type: "Convolution" bottom: "data" top: "c"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
"""
X = np.random.default_rng(7).normal(size=(2, 3, 8, 8)).astype(np.float32)


def write(folder: Path, text: str, name: str = "net.prototxt") -> Path:
    (folder / name).write_text(text)
    return folder / name


def weights(folder: Path, content: bytes) -> Path:
    (folder / "w.caffemodel").write_bytes(content)
    return folder / "w.caffemodel"


def blob(*shape: int, seed: int = 0) -> tuple[tuple[int, ...], np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    return shape, np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_comments_joined_strings_lists_and_numbers_for_enums_are_read() -> None:
    net = prototxt.parse(
        "# a comment\nname: 'a' \"b\"  # joined\n"
        "layer { name: 'p', type: 'Pooling'; bottom: ['x', 'y'] top: \"t\" "
        "pooling_param < pool: 1 round_mode: FLOOR > }"
        "layer { include: [ { phase: 1 }, { phase: TRAIN min_level: -2 } ] relu_param: { negative_slope: .5f } }"
    )
    assert net.name == "ab"
    assert list(net.layer[0].bottom) == ["x", "y"]
    assert net.layer[0].pooling_param.pool == caffe_pb2.PoolingParameter.AVE
    assert [rule.phase for rule in net.layer[1].include] == [caffe_pb2.TEST, caffe_pb2.TRAIN]
    assert net.layer[1].relu_param.negative_slope == 0.5


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ('layer {\n  name "x"\n}', "2:8", "Expected"),
        ("layer {\n  nme: 'x' }", "2:3", 'no field named "nme"'),
        ("layer { phase: TESTING }", "1:16", "TESTING"),
        ("layer { relu_param { negative_slope: steep } }", "1:38", "steep"),
        ("layer { name: 'x'", "1:15", "Expected"),
        ("}", "1:1", "Expected"),
        ("layer { clip_param { min: 1 } }", "", "max"),
    ],
)
def test_a_syntax_error_has_its_line_and_column(text: str, place: str, says: str) -> None:
    with pytest.raises(NetError) as caught:
        prototxt.parse(text, "deploy.prototxt")
    assert caught.value.message.startswith(f"deploy.prototxt:{place}" if place else "deploy.prototxt")
    assert says in str(caught.value)


def test_a_caffemodel_given_as_the_net_is_told_apart() -> None:
    with pytest.raises(NetError, match=r"not text|syntax"):
        nets.load(TINY / "conv.caffemodel")


def test_a_truncated_model_is_refused_with_the_offset(tmp_path: Path) -> None:
    whole = (TINY / "mini_alexnet.caffemodel").read_bytes()
    ends = {0, *(end for _, _, _, end in _fields(whole))}
    for size in [*range(0, 400), *range(400, len(whole), 97), len(whole) - 1]:
        path = weights(tmp_path, whole[:size])
        if size in ends and size:
            continue  # cut between two layers: the rest is missing, not truncated
        with pytest.raises(NetError) as caught:
            caffemodel.read_index(path)
        assert f"of {size}" in caught.value.detail or size == 0


def _fields(content: bytes) -> list[tuple[int, int, int, int]]:
    import io

    return list(caffemodel.Walker(io.BytesIO(content), len(content), Path("w")).fields(0, len(content)))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_make_the_reader_raise_anything_else(data: st.DataObject, tmp_path: Path) -> None:
    whole = bytearray((TINY / "double_blobs.caffemodel").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, 200))] = data.draw(st.integers(0, 255))
    path = weights(tmp_path, bytes(whole))
    try:
        index = caffemodel.read_index(path)
    except NetError:
        return
    for layer in index.layers:
        sound = [blob for blob in layer.blobs if blob.fault is None]
        for values in index.read(sound):
            assert values.nbytes <= 2 * len(whole)


def test_a_length_beyond_the_file_costs_no_memory(tmp_path: Path) -> None:
    huge = varint(100 << 3 | 2) + varint(2**40) + b"x"
    with pytest.raises(NetError, match="truncated"):
        caffemodel.read_index(weights(tmp_path, huge))


@pytest.mark.parametrize("content", [field(100, b"") * 100_002, field(100, field(7, field(7, field(1, b"\0"))) * 1_002),
                                     field(100, field(7, (varint(5 << 3 | 5) + bytes(4)) * 70_000))])  # fmt: skip
def test_a_file_of_many_small_parts_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(NetError, match="more than"):
        caffemodel.read_index(weights(tmp_path, content))


def test_a_shape_of_many_axes_is_refused(tmp_path: Path) -> None:
    shape = field(7, field(1, varint(1) * 10_000))
    content = field(100, field(1, b"c") + field(7, shape + field(5, struct.pack("<f", 1))))
    with pytest.raises(NetError, match=r"truncated or no \.caffemodel"):
        caffemodel.read_index(weights(tmp_path, content))


def test_a_file_beyond_2_gb_that_is_no_model_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "w.caffemodel"
    with path.open("wb") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(NetError, match=r"truncated or no \.caffemodel"):
        nets.load(write(tmp_path, CONV), path)


def test_hdf5_weights_are_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(NetError, match="HDF5"):
        nets.load(write(tmp_path, CONV), weights(tmp_path, b"\x89HDF\r\n\x1a\n" + bytes(100)))


def test_floats_that_are_not_packed_are_read_too(tmp_path: Path) -> None:
    _, values = blob(4, 3, 3, 3)
    loose = b"".join(varint(5 << 3 | 5) + struct.pack("<f", v) for v in values.ravel())
    dims = field(7, b"".join(varint(1 << 3) + varint(n) for n in (4, 3, 3, 3)))
    bias = field(7, field(1, varint(4))) + field(5, bytes(16))
    content = field(100, field(1, b"c") + field(7, dims + loose) + field(7, bias))
    net = nets.load(write(tmp_path, CONV), weights(tmp_path, content))
    packed = nets.load(
        net_path := tmp_path / "net.prototxt", _model(tmp_path, [("c", [values, np.zeros(4, np.float32)])])
    )
    assert net_path.exists()
    np.testing.assert_array_equal(net.forward({"data": X})["c"], packed.forward({"data": X})["c"])


def _model(folder: Path, layers: list[tuple[str, list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]]]) -> Path:
    path = folder / "m.caffemodel"
    path.write_bytes(b"".join(message(name, "", [(v.shape, v) for v in blobs]) for name, blobs in layers))
    return path


def test_nan_in_the_weights_is_refused_with_its_layer(tmp_path: Path) -> None:
    _, values = blob(4, 3, 3, 3)
    values[1, 2, 0, 1] = np.nan
    net = nets.load(write(tmp_path, CONV), _model(tmp_path, [("c", [values, np.zeros(4, np.float32)])]))
    with pytest.raises(NetError, match=r"layer 'c'.*1 numbers that are NaN or infinite"):
        net.forward({"data": X})


def test_weights_that_are_replaced_while_the_net_is_open_are_refused(tmp_path: Path) -> None:
    _, values = blob(4, 3, 3, 3)
    path = _model(tmp_path, [("c", [values, np.zeros(4, np.float32)])])
    net = nets.load(write(tmp_path, CONV), path)
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(NetError, match="changed since they were opened"):
        net.forward({"data": X})


def test_weights_that_are_changed_in_place_with_their_size_and_time_kept_are_refused(tmp_path: Path) -> None:
    _, values = blob(4, 3, 3, 3)
    path = _model(tmp_path, [("c", [values, np.zeros(4, np.float32)])])
    net = nets.load(write(tmp_path, CONV), path)
    before, stat = net.fingerprint("c", {"data": (2, 3, 8, 8)}), path.stat()
    content = bytearray(path.read_bytes())
    content[-200] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(NetError, match="changed since they were opened"):
        net.forward({"data": X})
    assert net.fingerprint("c", {"data": (2, 3, 8, 8)}) == before, "of what was read"


def test_weights_whose_bytes_are_others_are_refused_whatever_the_file_says_of_itself(tmp_path: Path) -> None:
    _, values = blob(4, 3, 3, 3)
    path = _model(tmp_path, [("c", [values, np.zeros(4, np.float32)])])
    net = nets.load(write(tmp_path, CONV), path)
    assert isinstance(net, CaffeNet)
    assert net.parameters.file is not None
    net.fingerprint("c", {"data": (2, 3, 8, 8)})
    content = bytearray(path.read_bytes())
    content[-200] ^= 1
    path.write_bytes(content)
    object.__setattr__(net.parameters.file, "identity", ())  # a file system without times, say
    with pytest.raises(NetError, match="changed since they were opened"):
        net.forward({"data": X})


def test_weights_of_another_net_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NetError, match="belong to another net"):
        nets.load(write(tmp_path, CONV), TINY / "mini_alexnet.caffemodel")


def test_a_layer_that_the_weights_lack_keeps_its_filler_with_a_warning() -> None:
    net = nets.load(TINY / "partial_model.prototxt", TINY / "partial_model.caffemodel")
    assert net.warnings == [f"{TINY / 'partial_model.caffemodel'} lacks weights: these layers hold what "
                            "their fillers' constants give: m"]  # fmt: skip


def test_random_fillers_are_the_same_in_each_run_and_are_announced(tmp_path: Path) -> None:
    first, second = (nets.load(write(tmp_path, CONV)) for _ in range(2))
    np.testing.assert_array_equal(first.forward({"data": X})["c"], second.forward({"data": X})["c"])
    assert "random" in first.warnings[0]


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("constant", 0.5, 0.5), ("uniform", -2, 3), ("gaussian", -60, 60), ("positive_unitball", 0, 1),
     ("xavier", -0.34, 0.34), ("msra", -2.5, 2.5), ("bilinear", 0, 1)],
)  # fmt: skip
def test_every_filler_of_caffe_is_known(kind: str, low: float, high: float) -> None:
    from pipeline.nets.graph.fillers import fill

    how = caffe_pb2.FillerParameter(type=kind, value=0.5, min=-2, max=3, std=10)
    values = fill(how, (8, 3, 3, 3), "seed")
    assert values.dtype == np.float32
    assert low <= values.min() <= values.max() <= high
    if kind == "positive_unitball":
        np.testing.assert_allclose(values.reshape(8, -1).sum(1), 1, rtol=1e-6)
    if kind == "bilinear":
        np.testing.assert_allclose(values[0, 0], np.outer([0.5, 1, 0.5], [0.5, 1, 0.5]), rtol=1e-6)


def test_an_unknown_filler_is_refused_when_it_is_needed(tmp_path: Path) -> None:
    net = nets.load(write(tmp_path, CONV.replace("xavier", "magic")))
    with pytest.raises(NetError, match="magic"):
        net.forward({"data": X})


def test_shared_parameters_of_another_shape_are_refused(tmp_path: Path) -> None:
    two = CONV + CONV.split("\n")[2].replace('"c"', '"d"').replace('top: "d"', 'top: "d" param { name: "w" }')
    two += "convolution_param { num_output: 4 kernel_size: 5 } }"
    two = two.replace('top: "c"', 'top: "c" param { name: "w" }')
    with pytest.raises(NetError, match="cannot share param 'w' of layer 'c'"):
        nets.load(write(tmp_path, two))


def test_stages_and_levels_choose_layers(tmp_path: Path) -> None:
    path = TINY / "phases.prototxt"
    assert "sg" not in nets.load(path).blobs
    assert {"sg", "th"} <= set(nets.load(path, stages=["deploy"], level=1).blobs)
    assert "th0" not in nets.load(path, level=4).blobs
    assert "dp" in nets.load(path, phase="TRAIN").blobs
    with pytest.raises(NetError, match="unknown phase"):
        nets.load(path, phase="VALIDATE")


def test_a_layer_with_include_and_exclude_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetError, match="include and exclude"):
        nets.load(
            write(tmp_path, CONV.replace('top: "c"', 'top: "c" include { phase: TEST } exclude { phase: TRAIN }'))
        )


def test_a_layer_that_needs_files_says_so(tmp_path: Path) -> None:
    with pytest.raises(NetError) as caught:
        nets.load(write(tmp_path, 'layer { name: "d" type: "Data" top: "data" top: "label" }'))
    assert "needs a database" in caught.value.message
    assert "deploy.prototxt" in caught.value.hint


def test_a_net_of_old_and_new_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetError, match="mixes old and new"):
        nets.load(write(tmp_path, CONV + "layers { type: RELU }"))


@pytest.mark.parametrize(
    "name", ["mini_squeezenet", "mini_resnet", "mini_googlenet", "mini_alexnet", "act", "scale_bias"]
)
def test_batches_of_any_size_go_through_what_is_compiled_already(name: str) -> None:
    path = TINY / f"{name}.caffemodel"
    net = nets.load(TINY / f"{name}.prototxt", path if path.exists() else None)
    assert isinstance(net, CaffeNet)
    blobs = [blob for blob in net.blobs if len(net.inputs_of(blob)) == 1][-6:]
    feed, shape = next(iter(net.inputs.items()))
    x = np.random.default_rng(0).normal(size=(40, *shape[1:])).astype(np.float32)
    whole = net.forward({feed: x[:8]}, blobs)
    compiled = len(net._compiled)
    for count in (7, 4, 5, 8):
        for blob, values in net.forward({feed: x[:count]}, blobs).items():
            np.testing.assert_allclose(values, whole[blob][:count], rtol=1e-5, atol=1e-5)
    many = net.forward({feed: x}, blobs)
    assert all(len(values) == 40 for values in many.values())
    assert len(net._compiled) == compiled
    alone = net.forward({feed: x[:1]}, blobs)  # far from 8: compiled for itself
    assert len(net._compiled) == compiled + 1
    for blob in blobs:
        np.testing.assert_allclose(many[blob][:8], whole[blob], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(alone[blob], whole[blob][:1], rtol=1e-5, atol=1e-5)


def test_a_net_whose_items_mix_is_compiled_for_each_batch(tmp_path: Path) -> None:
    text = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [2, 3] } } }'
    text += 'layer { name: "s" type: "Softmax" bottom: "x" top: "s" softmax_param { axis: 0 } }'
    net = nets.load(write(tmp_path, text))
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    for count in (8, 7, 6):
        got = net.forward({"x": x[:count]})["s"]
        np.testing.assert_allclose(got.sum(0), 1, rtol=1e-5)


def test_another_input_size_is_compiled_for_itself() -> None:
    net = nets.load(TINY / "mini_squeezenet.prototxt", TINY / "mini_squeezenet.caffemodel")
    ((name, shape),) = net.inputs.items()
    larger = np.zeros((1, shape[1], shape[2] + 8, shape[3] + 3), np.float32)
    assert all(values.shape[0] == 1 for values in net.forward({name: larger}).values())
    assert all(len(values) == 2 for values in net.forward({name: np.zeros((2, *shape[1:]), np.float32)}).values())


def test_only_the_inputs_that_a_blob_needs_are_fed(tmp_path: Path) -> None:
    text = 'input: "a" input: "b" input_shape { dim: 2 dim: 3 } input_shape { dim: 2 dim: 3 }\n'
    text += (
        'layer { name: "t" type: "TanH" bottom: "a" top: "t" } layer { name: "s" type: "Sigmoid" bottom: "b" top: "s" }'
    )
    net = nets.load(write(tmp_path, text))
    x = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(net.forward({"a": x}, ["t"])["t"], np.tanh(x), rtol=1e-6)
    with pytest.raises(NetError, match="'b' is not fed"):
        net.forward({"a": x}, ["t", "s"])


HUGE = 5 * 2**29  # bytes: 2.5 GiB, beyond what protobuf itself reads


def _sparse(path: Path, declared: int, *, cut: int = 0) -> Path:
    """A model of which layer `wide` has one blob of `declared` bytes, all hole, then layer `c` of CONV."""
    shape = field(7, field(1, varint(1024) + varint(declared // 4096)))
    data = varint(5 << 3 | 2) + varint(declared)
    blob_head = varint(7 << 3 | 2) + varint(len(shape) + len(data) + declared) + shape + data
    name = field(1, b"wide")
    head = varint(100 << 3 | 2) + varint(len(name) + len(blob_head) + declared) + name + blob_head
    _, values = blob(4, 3, 3, 3)
    tail = message("c", "", [((4, 3, 3, 3), values), ((4,), np.zeros(4, np.float32))])
    with path.open("wb") as file:
        file.write(head)
        file.seek(len(head) + declared)
        file.write(tail)
        if cut:
            file.truncate(len(head) + declared - cut)
    return path


WIDE = (
    CONV
    + """
layer { name: "wide" type: "InnerProduct" bottom: "c" top: "wide"
        inner_product_param { num_output: 1024 bias_term: false axis: 1 } }
"""
)


def test_a_model_beyond_2_gb_costs_only_the_blobs_that_are_wanted(tmp_path: Path) -> None:
    columns = HUGE // 4096
    text = CONV.replace("num_output: 4", "num_output: 4 pad: 1").replace("[2, 3, 8, 8]", f"[1, 3, 8, {columns // 32}]")
    path = _sparse(tmp_path / "w.caffemodel", HUGE)
    tracemalloc.start()
    try:
        net = nets.load(write(tmp_path, text + WIDE.removeprefix(CONV)), path, blobs=["c"])
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert net.shape("wide", {}) == (1, 1024)
    narrow = net.forward({"data": X[:1]}, ["c"])["c"]
    assert narrow.shape == (1, 4, 8, 8)
    assert np.abs(narrow).max() > 0


def test_a_model_beyond_2_gb_that_is_cut_or_lies_about_its_lengths_is_refused_at_once(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(NetError, match="truncated") as caught:
            caffemodel.read_index(_sparse(tmp_path / "cut.caffemodel", HUGE, cut=4))
        assert f"of {HUGE}" in caught.value.detail or "beyond byte" in caught.value.detail
        with pytest.raises(NetError, match=r"layer 'wide'.*shape mismatch"):
            nets.load(write(tmp_path, WIDE), _sparse(tmp_path / "other.caffemodel", HUGE))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
