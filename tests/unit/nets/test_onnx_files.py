"""The files of an ONNX model: those beside it, and what may be wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import nets
from pipeline.errors import NetError
from pipeline.nets.onnx import source as onnx_source

ENGINES = ("openvino", "onnxruntime")
WEIGHTS = np.random.default_rng(1).normal(size=(48, 400)).astype(np.float32)
X = np.random.default_rng(2).normal(size=(2, 3, 4, 4)).astype(np.float32)


def write(folder: Path, location: str = "w.bin", length: str = str(WEIGHTS.nbytes), offset: str = "64") -> Path:
    """y = flat(x) @ w, w in a second file; and z, which needs a third."""
    tensors = []
    for name, where in (("w", location), ("v", "behind.bin")):
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=WEIGHTS.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", where), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=value)
        tensors.append(tensor)
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"]),
             helper.make_node("MatMul", ["f", "v"], ["g"]), helper.make_node("Nonsense", ["g"], ["z"])]  # fmt: skip
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
              for name, shape in (("x", ["n", 3, 4, 4]), ("y", ["n", 400]), ("z", ["n", 400]))]  # fmt: skip
    graph = helper.make_graph(nodes, "g", shapes[:1], shapes[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("inline", [onnx_source._INLINE_BYTES, 0])
def test_weights_beside_a_model_are_used_and_what_is_behind_the_blob_is_not_needed(
    engine: str, inline: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held by the model itself, or apart from it where it would be too large."""
    monkeypatch.setattr(onnx_source, "_INLINE_BYTES", inline)
    (tmp_path / "w.bin").write_bytes(bytes(64) + WEIGHTS.tobytes())
    net = nets.load(write(tmp_path), blobs=["y"], engine=engine)
    np.testing.assert_allclose(net.forward({"x": X})["y"], X.reshape(2, 48) @ WEIGHTS, rtol=1e-4, atol=1e-5)
    shapes = {"x": (2, 3, 4, 4)}
    held = _held(tmp_path / "held.onnx")
    assert net.fingerprint("y", shapes) == nets.load(held, blobs=["y"], engine=engine).fingerprint("y", shapes)


def _held(path: Path) -> Path:
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
              for name, shape in (("x", ["n", 3, 4, 4]), ("y", ["n", 400]))]  # fmt: skip
    graph = helper.make_graph(nodes, "g", shapes[:1], shapes[1:], [numpy_helper.from_array(WEIGHTS, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("content", "location", "offset", "says"),
    [
        (None, "w.bin", "64", r"lacks its second file w\.bin .*w\.bin.* in one folder"),
        (64 + WEIGHTS.nbytes - 1, "w.bin", "64", r"w\.bin is truncated .*'w' lies from byte 64"),
        (WEIGHTS.nbytes, "../w.bin", "0", "outside of its folder"),
        (WEIGHTS.nbytes, "/etc/passwd", "0", "outside of its folder"),
        (WEIGHTS.nbytes, "link.bin", "0", "outside of its folder .*links followed"),
        (WEIGHTS.nbytes, "w.bin", "-1", "damaged"),
        (WEIGHTS.nbytes, "w.bin", "one", "damaged"),
        (WEIGHTS.nbytes, "", "0", "damaged"),
        (WEIGHTS.nbytes, "a\0b", "0", "damaged"),
        (WEIGHTS.nbytes, ".", "0", "lacks its second file"),
    ],
)
def test_a_second_file_that_is_missing_torn_or_elsewhere_is_named_for_every_engine_alike(
    engine: str, content: int | None, location: str, offset: str, says: str, tmp_path: Path
) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(WEIGHTS.nbytes))
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    if content is not None:
        (folder / "w.bin").write_bytes(bytes(content))
    net = nets.load(write(folder, location, offset=offset), blobs=["y"], engine=engine)
    with pytest.raises(NetError, match=says):
        net.shape("y", {"x": (2, 3, 4, 4)})
    with pytest.raises(NetError, match=says):
        net.fingerprint("y", {"x": (2, 3, 4, 4)})


def test_weights_of_another_length_than_their_shape_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64) + WEIGHTS.tobytes())
    net = nets.load(write(tmp_path, length="4"), blobs=["y"], engine="openvino")
    with pytest.raises(NetError, match=f"its shape wants {WEIGHTS.nbytes}"):
        net.shape("y", {"x": (2, 3, 4, 4)})


@pytest.mark.parametrize("which", ["m.onnx", "w.bin"])
def test_a_model_whose_files_are_replaced_while_it_is_open_is_refused(which: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64) + WEIGHTS.tobytes())
    net = nets.load(write(tmp_path), blobs=["y"], engine="onnxruntime")
    before = net.forward({"x": X})["y"]
    content = bytearray((tmp_path / which).read_bytes())
    content[content.index(b"Nonsense") if which == "m.onnx" else -1] ^= 1
    (tmp_path / which).write_bytes(bytes(content))
    np.testing.assert_array_equal(net.forward({"x": X})["y"], before)  # compiled: it reads nothing more
    with pytest.raises(NetError, match="changed since"):
        net.fingerprint("y", {"x": (2, 3, 4, 4)})
