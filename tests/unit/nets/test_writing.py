"""Our .caffemodel files: Caffe's own bytes, one blob in memory, whole or not there."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.codec import caffe_pb2
from pipeline.errors import NetError
from pipeline.nets.caffe import caffemodel, prototxt, writing
from pipeline.nets.caffe.splits import with_splits
from pipeline.nets.caffe.writing import Array, LayerToWrite, Written, write
from pipeline.nets.graph import caffe_graph, rules
from pipeline.nets.graph.saving import save

GOLDEN = Path(__file__).parents[2] / "golden"
OTHERS = {"partial_model": "of another net than its text", "v1_layers": "in the old form", "double_blobs": "in float64"}
CASES = [path for path in sorted((GOLDEN / "tiny").glob("*.caffemodel")) if path.stem not in OTHERS]


def saved(text: Path, weights: Path, phase: str, into: Path) -> bytes:
    graph = caffe_graph.read(text, weights, rules.state_of(phase, 0, []), None, lambda says: None)
    written = save(into, graph, lambda slot: graph.parameters.values([slot.step], graph.plan)[slot])
    assert written == Written(into.stat().st_size, hashlib.sha256(into.read_bytes()).hexdigest())
    return into.read_bytes()


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_net_that_is_saved_is_byte_for_byte_what_caffe_saves(path: Path, tmp_path: Path) -> None:
    assert saved(path.with_suffix(".prototxt"), path, "TEST", tmp_path / "w") == path.read_bytes()


def test_a_net_in_training_is_byte_for_byte_what_caffes_solver_snapshots(tmp_path: Path) -> None:
    path = GOLDEN / "training" / "bn_nesterov_step_iter_10.caffemodel"
    text = path.with_name("bn_nesterov_step.train_val.prototxt")
    assert saved(text, path, "TRAIN", tmp_path / "w") == path.read_bytes()


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_saved_is_read_back_to_the_bit_whatever_form_it_had(name: str, tmp_path: Path) -> None:
    path = GOLDEN / "tiny" / f"{name}.caffemodel"
    before = caffemodel.read_index(path)
    layers = [LayerToWrite(caffe_pb2.LayerParameter(name=layer.name), tuple(blob.shape for blob in layer.blobs))
              for layer in before.layers]  # fmt: skip
    blobs = [blob for layer in before.layers for blob in layer.blobs]
    write(tmp_path / "w", name, layers, before.read(blobs))
    after = caffemodel.read_index(tmp_path / "w")
    assert [layer.name for layer in after.layers] == [layer.name for layer in before.layers]
    again = [blob for layer in after.layers for blob in layer.blobs]
    assert [blob.shape for blob in again] == [blob.shape for blob in blobs]
    for one, other in zip(before.read(blobs), after.read(again), strict=True):
        np.testing.assert_array_equal(one.view(np.uint32), other.view(np.uint32))


def test_every_float_comes_back_with_its_bits(tmp_path: Path) -> None:
    odd = np.array([0x80000000, 1, 0x7F800000, 0xFF800000, 0x7FC12345, 0x7F800001, 0x007FFFFF], np.uint32)
    write(tmp_path / "w", "", [_layer(7), _layer(0), _layer()], [odd.view(np.float32), *_zeros((0,), ())])
    found = caffemodel.read_index(tmp_path / "w")
    blobs = [layer.blobs[0] for layer in found.layers]
    assert [blob.shape for blob in blobs] == [(7,), (0,), ()]
    assert next(found.read(blobs)).view(np.uint32).tolist() == odd.tolist()


def _layer(*shape: int) -> LayerToWrite:
    return LayerToWrite(caffe_pb2.LayerParameter(name="a", type="InnerProduct"), (shape,))


def _zeros(*shapes: tuple[int, ...]) -> Iterator[Array]:
    return (np.zeros(shape, np.float32) for shape in shapes)


def test_no_blob_is_held_when_the_next_is_asked_for(tmp_path: Path) -> None:
    alive: list[weakref.ref[Array]] = []

    def values() -> Iterator[Array]:
        for _ in range(5):
            assert not [one for one in alive if one() is not None]
            made = np.zeros((100, 100), np.float32)
            alive.append(weakref.ref(made))
            yield made
            del made

    write(tmp_path / "w", "net", [_layer(100, 100)] * 5, values())
    assert len(alive) == 5


def test_a_file_stands_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "w.caffemodel"
    path.write_bytes(b"before")

    def torn() -> Iterator[Array]:
        yield np.zeros(3, np.float32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(path, "net", [_layer(3), _layer(3)], torn())
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("w.caffemodel", b"before")]
    write(path, "net", [_layer(3)], _zeros((3,)))
    assert [one.name for one in tmp_path.iterdir()] == ["w.caffemodel"]
    assert caffemodel.read_index(path).layers[0].name == "a"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NetError, match="cannot be written") as caught:
        write(tmp_path / "none" / "w", "net", [_layer(1)], _zeros((1,)))
    assert caught.value.detail == "No such file or directory"


@pytest.mark.parametrize("given", [[], [(3,)], [(3,), (2,)], [(3,), (3,), (3,)]])
def test_values_that_do_not_fit_the_blobs_are_refused_and_nothing_is_left(
    given: list[tuple[int, ...]], tmp_path: Path
) -> None:
    with pytest.raises(NetError, match="values"):
        write(tmp_path / "w", "net", [_layer(3), _layer(3)], _zeros(*given))
    with pytest.raises(NetError, match="do not fit"):
        write(tmp_path / "w", "net", [_layer(3)], [np.zeros(3)])  # type: ignore[list-item]  # float64
    assert not list(tmp_path.iterdir())


def test_what_no_protobuf_message_holds_is_refused_before_any_value_is_asked_for(tmp_path: Path) -> None:
    def none() -> Iterator[Array]:
        raise AssertionError("asked")
        yield

    for layers in ([_layer(2**29)], [_layer(2**28), _layer(2**28)]):
        with pytest.raises(NetError, match="too large for a") as caught:
            write(tmp_path / "w", "net", layers, none())
        assert "2147483647" in caught.value.detail
    assert not list(tmp_path.iterdir())


def test_the_limit_is_the_largest_size_that_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = write(tmp_path / "w", "net", [_layer(50)], _zeros((50,))).size
    for limit, fits in ((size, True), (size - 1, False)):
        monkeypatch.setattr(writing, "LARGEST", limit)
        if fits:
            assert write(tmp_path / "w", "net", [_layer(50)], _zeros((50,))).size == size
        else:
            with pytest.raises(NetError, match=f"{size} bytes"):
                write(tmp_path / "w", "net", [_layer(50)], _zeros((50,)))


def test_fields_whose_numbers_are_ours_alone_are_left_out(tmp_path: Path) -> None:
    spec = prototxt.parse(
        'layer { name: "a" type: "InnerProduct" forward_type: FLOAT16 inner_product_param { num_output: 3 } '
        "transform_param { scale: 2 resize_param { prob: 1 } } }"
    ).layer[0]
    spec.fault = "odd"
    spec.blobs.add(data=[1, 2])
    write(tmp_path / "w", "net", [LayerToWrite(spec, ((1,),))], _zeros((1,)))
    (found,) = caffe_pb2.NetParameter.FromString((tmp_path / "w").read_bytes()).layer
    assert str(found.transform_param) == "scale: 2\n"
    assert not found.HasField("fault")
    assert not found.HasField("forward_type")
    assert list(found.blobs[0].data) == [0.0]
    assert spec.transform_param.HasField("resize_param"), "what was given stays as it was"


def test_a_loss_weight_counts_as_a_reader_and_moves_to_the_split() -> None:
    net = prototxt.parse(
        'layer { name: "d" type: "Input" top: "d" top: "e" }'
        'layer { name: "p" type: "Power" bottom: "d" top: "p" loss_weight: 0.5 }'
        'layer { name: "r" type: "ReLU" bottom: "p" top: "r" }'
        'layer { name: "s" type: "Eltwise" bottom: "d" bottom: "e" top: "s" loss_weight: 2 }'
    )
    found = [layer for group in with_splits(list(net.layer)) for layer in group]
    assert [(one.name, list(one.bottom), list(one.top), list(one.loss_weight)) for one in found] == [
        ("d", [], ["d", "e"], []),
        ("d_d_0_split", ["d"], ["d_d_0_split_0", "d_d_0_split_1"], []),
        ("p", ["d_d_0_split_0"], ["p"], []),
        ("p_p_0_split", ["p"], ["p_p_0_split_0", "p_p_0_split_1"], [0.5, 0]),
        ("r", ["p_p_0_split_1"], ["r"], []),
        ("s", ["d_d_0_split_1", "e"], ["s"], [2]),
    ]


def test_a_file_of_many_pieces_is_written_whole_and_hashed_on_the_way(tmp_path: Path) -> None:
    """Larger than what is written at once, and no multiple of it."""
    values = np.random.default_rng(3).normal(size=(3, 1_500_001)).astype(np.float32)
    layer = LayerToWrite(caffe_pb2.LayerParameter(name="ip", type="InnerProduct"), (values.shape,))
    written = write(tmp_path / "w", "net", [layer], iter([values]))
    content = (tmp_path / "w").read_bytes()
    assert written == Written(len(content), hashlib.sha256(content).hexdigest())
    assert np.array_equal(caffe_pb2.NetParameter.FromString(content).layer[0].blobs[0].data, values.ravel())
