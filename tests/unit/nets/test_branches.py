"""Nets of other branches of Caffe, in other encodings, of other widths: only what the wanted blob needs counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import nets
from pipeline.cli.main import main
from pipeline.codec.mean_image import read_mean
from pipeline.errors import NetError
from pipeline.nets.caffe import caffemodel, prototxt
from pipeline.nets.caffe.fields import fields_of
from tests.golden.bignets import field, varint

NET = """name: "caf\xe9"  # h\xf6he
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "co\xf1v" type: "Convolution" bottom: "data" top: "c"
        convolution_param { num_output: 2 kernel_size: 3 bias_term: false weight_filler { type: "xavier" } } }
"""
X = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
BEHIND = [
    'layer { name: "n" type: "Normalize" bottom: "c" top: "n" norm_param { across_spatial: false } }',
    'layer { name: "n" type: "Permute" bottom: "c" top: "n" permute_param { order: 0 order: 2 order: 3 order: 1 } }',
    'layer { name: "n" type: "Upsample" bottom: "c" top: "n" upsample_param { scale: 2 pad_out_h: true } }',
    'layer { name: "n" type: "Mine" bottom: "c" top: "n" mine_param { x: 1 y < z: [1, {}] > } }',
    'layer { name: "n" type: "Pooling" bottom: "c" top: "n" pooling_param { pool: ROI kernel_size: 2 } }',
    'layer { name: "n" type: "Pooling" bottom: "c" top: "n" pooling_param { kernel_size: 100 } }',
    'layer { name: "n" type: "Pooling" bottom: "nowhere" top: "n" pooling_param { kernel_size: 2 } }',
    'layer { name: "n" type: "ReLU" bottom: "c" top: "n" relu_param { slope: 3 } }',
    'layer { name: "n" type: "ReLU" bottom: "c" top: "n" norm_param { eps: 1 } }',
    'layer { name: "n" type: "Convolution" bottom: "c" top: "n" convolution_param { num_output: two kernel_size: 3 } }',
    'layer { name: "n" type: "Clip" bottom: "c" top: "n" clip_param { min: 3 } }',
    'layer { name: "n" type: "Python" bottom: "c" top: "n" python_param { module: "os" layer: "x" } }',
]


def load(folder: Path, content: bytes, blob: str = "c", weights: Path | None = None) -> nets.Net:
    path = folder / "net.prototxt"
    path.write_bytes(content)
    return nets.load(path, weights, blobs=[blob], engine="onnxruntime")


@pytest.mark.parametrize("behind", BEHIND)
def test_what_stands_behind_the_wanted_blob_does_not_matter(behind: str, tmp_path: Path) -> None:
    plain = load(tmp_path, NET.encode()).forward({"data": X})["c"]
    net = load(tmp_path, NET.encode() + behind.encode())
    np.testing.assert_array_equal(net.forward({"data": X})["c"], plain)
    with pytest.raises(NetError, match=r"'n'"):
        net.forward({"data": X}, ["n"])
    with pytest.raises(NetError, match=r"'n'"):
        load(tmp_path, NET.encode() + behind.encode(), "n")


@pytest.mark.parametrize("kind", ['"Mine"', '"ReLU" relu_param { slope: 3 }'])
def test_a_layer_that_changes_the_wanted_blob_in_place_is_needed(kind: str, tmp_path: Path) -> None:
    with pytest.raises(NetError, match="'n'"):
        load(tmp_path, NET.encode() + f'layer {{ name: "n" bottom: "c" top: "c" type: {kind} }}'.encode())


def test_an_unknown_field_that_is_needed_is_refused_with_its_line_and_column(tmp_path: Path) -> None:
    more = '\nlayer { name: "n" type: "ReLU" bottom: "c" top: "n"\n  relu_param {\n    slope: 3 } }'
    with pytest.raises(NetError, match=r"net\.prototxt:8:5: .*no field named \"slope\""):
        load(tmp_path, NET.encode() + more.encode(), "n")


def test_many_faults_late_in_a_long_layer_cost_no_more_than_a_few_readings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All fields are found once; and of the whole text, little more than what is allowed is parsed once more."""
    parsed: list[int] = []
    found: list[int] = []
    merged = prototxt._merged
    monkeypatch.setattr(prototxt, "_merged", lambda text: (parsed.append(len(text)), merged(text))[1])
    monkeypatch.setattr(prototxt, "fields_of", lambda text: (found.append(len(text)), fields_of(text))[1])
    path = tmp_path / "net.prototxt"
    path.write_text(NET + 'layer { name: "z" type: "Power" ' + "loss_weight: 1\n" * 4000 + "foo: 1\n" * 200 + "}")
    with pytest.raises(NetError, match=r"prototxt:\d+:1: syntax error .*no field named \"foo\""):
        prototxt.read(path)
    size = len(path.read_text())
    assert found == [size]
    assert sum(parsed) <= 4 * size + prototxt._MAX_AGAIN


def test_faults_of_old_layers_are_theirs_alone(tmp_path: Path) -> None:
    inputs = 'input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8\n'
    conv = 'convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "xavier" } }'
    v1 = inputs + f'layers {{ name: "c" type: CONVOLUTION bottom: "data" top: "c" {conv} }}\n'
    v1 += 'layers { name: "n" type: ROI_POOL bottom: "c" top: "n" }'
    conv = 'num_output: 2 kernelsize: 3 weight_filler { type: "xavier" }'
    v0 = inputs + f'layers {{ layer {{ name: "c" type: "conv" {conv} }} bottom: "data" top: "c" }}\n'
    v0 += 'layers { layer { name: "n" type: "conv" mine: 2 } bottom: "c" top: "n" }'
    for text in (v1, v0):
        assert load(tmp_path, text.encode()).forward({"data": X})["c"].shape == (2, 2, 6, 6)
        with pytest.raises(NetError, match=r"net\.prototxt:3:"):
            load(tmp_path, text.encode(), "n")


def test_a_net_of_another_branch_is_shown_with_what_it_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ssd.prototxt"
    path.write_text(NET + BEHIND[0])
    assert main(["net", "show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "n of unknown size" in shown
    assert "layer 'n': unknown layer type 'Normalize'" in shown
    assert main(["net", "check", str(path), "--blob", "n"]) == 2
    assert "SSD's branch" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_text_is_read_in_any_encoding_and_with_any_line_ends(encoding: str, end: str, tmp_path: Path) -> None:
    """Names are those of the weights, which were written from the same bytes."""
    values = np.arange(54, dtype="<f4")
    blob = field(7, field(1, b"".join(map(varint, (2, 3, 3, 3))))) + field(5, values.tobytes())
    stored = tmp_path / "w.caffemodel"
    for name in ("co\xf1v".encode(), "co\xf1v".encode("latin-1")):
        stored.write_bytes(field(100, field(1, name) + field(7, blob)))
        net = load(tmp_path, NET.replace("\n", end).encode(encoding), weights=stored)
        assert (net.name, net.warnings) == ("caf\xe9", [])
        ones = np.ones((1, 3, 8, 8), np.float32)
        assert net.forward({"data": ones})["c"][0, :, 0, 0].tolist() == [values[:27].sum(), values[27:].sum()]


@pytest.mark.parametrize(
    "name", [b"\xff\xfe\0", b"\xfe\xff\0", b"\0a\0b\0", b"a\0b\0c", b"\xef\xbb\xbfc", b"\xff\xfe\0\0\xd8"]
)
def test_a_name_in_a_file_of_weights_is_never_taken_for_a_text_of_two_bytes_a_letter(
    name: bytes, tmp_path: Path
) -> None:
    stored = tmp_path / "w.caffemodel"
    stored.write_bytes(field(100, field(1, name)))
    (layer,) = caffemodel.read_index(stored).layers
    assert layer.name == name.decode("utf-8" if name.startswith(b"\xef") else "latin-1")


def test_a_text_with_a_nul_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(NetError, match="a NUL at 5:1"):
        load(tmp_path, NET.encode() + b"\0" * 100)


def test_any_bytes_in_comments_and_names_are_a_text(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    every = bytes(byte for byte in range(1, 256) if byte not in b"\n\r\"'\\")
    path.write_bytes(b"# " + every + b'\nname: "' + bytes(range(128, 256)) + b'"\n')
    assert prototxt.read(path).name == bytes(range(128, 256)).decode("latin-1")


@pytest.mark.parametrize(("kind", "dtype"), [(0, "<f8"), (1, "<f4"), (2, "<f2")])
@pytest.mark.parametrize("legacy", [False, True])
def test_weights_of_any_width_as_nvidia_writes_them_are_read(
    kind: int, dtype: str, legacy: bool, tmp_path: Path
) -> None:
    """As raw bytes in BlobProto 10 and 12, in new and in V1 layers; a mean image likewise."""
    values = (np.arange(54) / 8).astype(dtype)
    sizes = (2, 3, 3, 3)
    shape = b"".join(varint(axis << 3) + varint(size) for axis, size in enumerate(sizes, 1)) if legacy else field(
        7, field(1, b"".join(map(varint, sizes))))  # fmt: skip
    blob = shape + varint(10 << 3) + varint(kind) + field(12, values.tobytes())
    layer = field(2, field(4, b"c") + field(6, blob)) if legacy else field(100, field(1, b"c") + field(7, blob))
    path = tmp_path / "w.caffemodel"
    path.write_bytes(layer)
    net = load(tmp_path, NET.replace("co\xf1v", "c").encode(), weights=path)
    assert net.warnings == []
    found = net.forward({"data": np.ones((1, 3, 8, 8))})["c"][0, :, 0, 0]
    assert found.tolist() == [values[:27].sum(dtype=np.float64), values[27:].sum(dtype=np.float64)]
    mean = tmp_path / "mean.binaryproto"
    mean.write_bytes(field(7, field(1, b"".join(map(varint, (1, 3, 1, 2))))) + varint(10 << 3) + varint(kind)
                     + field(12, values[:6].tobytes()))  # fmt: skip
    assert read_mean(mean).ravel().tolist() == values[:6].tolist()


def test_weights_that_were_quantised_are_named_as_such_where_they_are_needed(tmp_path: Path) -> None:
    shape = field(7, field(1, b"".join(map(varint, (2, 3, 3, 3)))))
    path = tmp_path / "w.caffemodel"
    bad = shape + varint(10 << 3) + varint(3) + field(12, bytes(54))
    good = shape + field(5, np.ones(54, "<f4").tobytes())
    path.write_bytes(field(100, field(1, b"c") + field(7, bad)))
    text = NET.replace("co\xf1v", "c").encode()
    with pytest.raises(NetError, match=r"whole numbers for layer 'c'.*quantised"):
        load(tmp_path, text, weights=path)
    path.write_bytes(field(100, field(1, b"c") + field(7, good)) + field(100, field(1, b"n") + field(7, bad)))
    more = b'layer { name: "n" type: "Convolution" bottom: "c" top: "n" '
    more += b"convolution_param { num_output: 2 kernel_size: 3 } }"
    assert load(tmp_path, text + more, weights=path).forward({"data": X})["c"].shape == (2, 2, 6, 6)
