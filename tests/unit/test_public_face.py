"""`import hathi`: its examples run as they are printed, nothing heavy is loaded before it is used."""

from __future__ import annotations

import doctest
import functools
import inspect
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

import hathi
from pipeline.cli.main import main
from pipeline.codec.caffe_pb2 import NetParameter
from pipeline.ledger.layout import ShipmentName
from pipeline.nets.features import FeatureNet
from pipeline.records import MAX_ITEM_ID
from pipeline.settings import FeatureSet
from tests.unit.deltas import deliver

ROOT = Path(__file__).parents[2]
PROTOTXT = """
name: "tiny"
input: "data" input_shape { dim: 1 dim: 3 dim: 16 dim: 16 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 8 kernel_size: 3 pad: 1 } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 4 stride: 4 } }
"""
HOST = "https://img.shop.example"
FUNCTIONS = (
    "decode",
    "features",
    "fetch",
    "fingerprints",
    "load_net",
    "read_features",
    "read_matrix",
    "scan_features",
    "why",
)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with a net, a picture and what `hathi run` made of a list; and the host that serves the folder."""
    folder = tmp_path_factory.mktemp("face")
    (folder / "deploy.prototxt").write_text(PROTOTXT)
    weights = NetParameter(name="tiny")
    layer = weights.layer.add(name="conv", type="Convolution")
    for shape in ((8, 3, 3, 3), (8,)):
        blob = layer.blobs.add()
        blob.shape.dim.extend(shape)
        blob.data.extend(np.linspace(-1, 1, int(np.prod(shape))).tolist())
    (folder / "x.caffemodel").write_bytes(weights.SerializeToString(deterministic=True))
    pixels = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    (folder / "shoe.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    host = f"http://127.0.0.1:{server.server_port}"
    (folder / "refs.csv").write_text(
        f"partner_id,external_id,url\n12,SKU-1,{host}/shoe.png\n12,SKU-2,{host}/shoe.png?2\n12,SKU-3,{host}/none.png\n"
    )
    paths = {"--refs": "refs.csv", "--features": "out", "--net": "deploy.prototxt", "--weights": "x.caffemodel"}
    words = [word for option, name in paths.items() for word in (option, str(folder / name))]
    assert main(["run", *words, "--blob", "pool", "--allow-private"]) == 0
    yield folder, host
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def here(place: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """In that folder, with a host in the own network; the host."""
    folder, host = place
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HATHI_FETCH__ALLOW_PRIVATE", "true")
    return host


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_example_does_what_it_says(name: str, here: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = inspect.getdoc(getattr(hathi, name))
    assert text is not None
    example = doctest.DocTestParser().get_doctest(text.replace(HOST, here), {}, name, None, None)
    assert example.examples, "each function has an example"
    result = doctest.DocTestRunner(verbose=False).run(example)
    assert result.failed == 0, capsys.readouterr().out


def test_all_that_is_public_is_there_named_once_and_documented() -> None:
    functions = [name for name in hathi.__all__ if inspect.isfunction(getattr(hathi, name))]
    assert tuple(functions) == FUNCTIONS
    assert dir(hathi) == sorted(hathi.__all__)
    for name in hathi.__all__:
        if name != "__version__":
            assert getattr(hathi, name).__doc__, name
    with pytest.raises(AttributeError, match="it has: Error, Failure"):
        hathi.feature  # type: ignore[attr-defined]  # noqa: B018


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


HEAVY = {
    "numpy",
    "pyarrow",
    "cv2",
    "openvino",
    "onnx",
    "onnxruntime",
    "torch",
    "pydantic",
    "boto3",
    "pyspark",
    "rich",
    "pycurl",
}


def test_importing_hathi_loads_nothing_of_the_pipeline_and_nothing_heavy() -> None:
    loaded = modules_after("import hathi; dir(hathi)")
    assert not loaded & HEAVY
    assert "pipeline" not in loaded


@pytest.mark.parametrize(
    ("name", "not_loaded"),
    [
        ("decode", {"openvino", "onnx", "onnxruntime", "torch", "pyarrow", "boto3"}),
        ("fetch", {"openvino", "onnx", "onnxruntime", "torch", "boto3"}),
        ("read_features", {"openvino", "onnx", "onnxruntime", "torch", "boto3", "cv2", "pyarrow", "numpy"}),
        ("barista", {"openvino", "onnx", "onnxruntime", "torch", "pyarrow", "boto3", "cv2"}),
        ("training", {"openvino", "onnx", "onnxruntime", "torch", "boto3"}),
        ("Failure", {"openvino", "onnx", "onnxruntime", "torch", "pyarrow", "boto3", "cv2", "numpy"}),
    ],
)
def test_a_name_loads_only_what_it_needs(name: str, not_loaded: set[str]) -> None:
    assert not modules_after(f"import hathi; hathi.{name}") & not_loaded


# ---- features


def test_features_are_the_bits_of_the_pipeline_in_whatever_form_an_image_is_given(here: str) -> None:
    content = Path("shoe.png").read_bytes()
    images = [f"{here}/shoe.png", content, Path("shoe.png"), bytearray(content)]
    net = {"net": "deploy.prototxt", "weights": "x.caffemodel", "blob": "pool"}
    found = sorted(hathi.features(images, **net), key=lambda one: one.index)  # type: ignore[arg-type]
    delivered = hathi.read_features("out")
    want = np.asarray(delivered["features"][0].as_py(), np.float32)
    assert [one.index for one in found] == [0, 1, 2, 3]
    for one in found:
        assert one.failure is None
        assert one.vector is not None
        assert one.vector.tobytes() == want.tobytes()
    assert [one.url for one in found] == [f"{here}/shoe.png", "", "shoe.png", ""]
    again = hathi.features(content, **net)  # type: ignore[arg-type]
    assert again.fingerprint == delivered["fingerprint"][0].as_py()


def test_each_image_that_has_no_feature_is_a_value_beside_the_others(here: str) -> None:
    images = ["", b"", b"<html>", Path("none.png"), Path("."), "ftp://x/y", "\ud800", f"{here}/shoe.png"]
    table = hathi.features(images, net="deploy.prototxt", weights="x.caffemodel", blob="pool").to_arrow()  # type: ignore[arg-type]
    reasons = [one and one["reason"] for one in table["failure"].to_pylist()]
    assert reasons == ["bad_ref", "empty", "not_image", "http_4xx", "blocked", "blocked", "bad_url", None]
    assert [one is None for one in table["features"].to_pylist()] == [True] * 7 + [False]
    assert table["features"].type.list_size == 128
    assert table["index"].to_pylist() == list(range(8))


def test_a_column_of_pandas_is_taken_as_it_is_with_its_holes(here: str) -> None:
    urls = pd.Series([f"{here}/shoe.png", None, float("nan"), np.str_(f"{here}/none.png")])
    table = hathi.features(urls, net="deploy.prototxt", weights="x.caffemodel", blob="pool").to_arrow()
    reasons = [one and one["reason"] for one in table["failure"].to_pylist()]
    assert reasons == [None, "bad_ref", "bad_ref", "http_4xx"]
    fetched = [one.reason if isinstance(one, hathi.Failure) else one.status for one in hathi.fetch(urls)]
    assert sorted(map(str, fetched)) == ["200", "bad_url", "bad_url", "http_4xx"]
    with pytest.raises(TypeError, match="a int is not a URL"):
        list(hathi.fetch([7]))  # type: ignore[list-item]


def test_an_error_of_the_callers_own_iterable_is_raised_as_it_is(here: str) -> None:
    def broken() -> Iterator[bytes]:
        yield Path("shoe.png").read_bytes()
        raise KeyError("the caller's own")

    with pytest.raises(KeyError, match="the caller's own"):
        list(hathi.features(broken(), net="deploy.prototxt", weights="x.caffemodel", blob="pool"))


def test_no_images_are_an_empty_table() -> None:
    table = hathi.features([], net="hog", blob="hog", input_size=None).to_arrow()
    assert (table.num_rows, table.column_names) == (0, ["index", "url", "features", "failure"])


def test_settings_of_preprocessing_and_normalisation_are_the_sets_own(here: str) -> None:
    how = {"channel_order": "rgb", "mean": [0.0, 0.0, 0.0], "raw_scale": 1.0}
    net = {"net": "deploy.prototxt", "weights": "x.caffemodel", "blob": "pool"}
    (one,) = hathi.features(Path("shoe.png"), **net, preprocess=how, normalise="none")  # type: ignore[arg-type]
    feature_set = FeatureSet.model_validate({**net, "root": "r", "preprocess": how, "normalise": "none"})
    from pipeline.images import Preparation

    image = Preparation(feature_set.preprocess, (16, 16))(Path("shoe.png").read_bytes())
    assert isinstance(image, np.ndarray)
    assert one.vector is not None
    assert one.vector.tobytes() == FeatureNet(feature_set).forward(image[None])[0].tobytes()


def test_an_iterable_is_read_as_results_are_taken_and_not_to_its_end(here: str) -> None:
    content, taken = Path("shoe.png").read_bytes(), 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield content

    found = hathi.features(endless(), net="deploy.prototxt", weights="x.caffemodel", blob="pool")
    assert next(found).vector is not None
    assert taken <= 16 * 512
    found.close()
    assert list(found) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"net": "missing.prototxt"}, "missing.prototxt"),
        ({"blob": "fc7"}, "fc7"),
        ({"weights": None}, "--weights"),
        ({"preprocess": {"resise": "crop"}}, "did you mean"),
        ({"normalise": "l1"}, "normalise"),
        ({"fetch": {"requests": 1}}, "unknown key fetch.requests"),
    ],
)
def test_what_a_person_has_to_change_is_an_error_at_once_that_says_what(
    here: str, change: dict[str, object], says: str
) -> None:
    options = {"net": "deploy.prototxt", "weights": "x.caffemodel", "blob": "pool", **change}
    with pytest.raises(hathi.Error, match=says):
        hathi.features([], **options)  # type: ignore[arg-type]


def test_what_is_no_image_at_all_is_a_type_error_that_says_what_to_give(here: str) -> None:
    found = hathi.features([np.zeros((2, 2, 3))], net="deploy.prototxt", weights="x.caffemodel", blob="pool")  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"image 0 is a ndarray: give a URL \(str\)"):
        next(found)


def test_a_net_that_fails_is_an_error_and_not_a_missing_row(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = hathi.features(Path("shoe.png"), net="deploy.prototxt", weights="x.caffemodel", blob="pool")

    def fail(self: object, images: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(FeatureNet, "forward", fail)
    with pytest.raises(hathi.Error, match=r"the net failed on one of the images.*RuntimeError"):
        list(found)


# ---- reading what was delivered


def put(root: Path, name: str, partner: int, items: dict[int, float], dim: int = 2) -> None:
    """A delivered folder under `.../features`."""
    vectors = {item: np.full(dim, value, np.float32) for item, value in items.items()}
    deliver(root.parent, ShipmentName.parse(name), vectors, partner)


def test_for_each_item_the_greatest_name_wins_whatever_was_delivered_when(tmp_path: Path) -> None:
    """Random histories of parts, retries, rounds, overlaps and failures against the rule in its plainest form."""
    chance = random.Random(7)
    for world in range(12):
        root = tmp_path / str(world) / "features"
        want: dict[tuple[int, int], tuple[str, float]] = {}
        names = {
            str(ShipmentName.of("l", "s", "set", f"2026010{chance.randint(1, 4)}T000000Z", chance.randint(0, 2),
                                chance.randint(0, 2), chance.randint(0, 4), str(salt)))
            for salt in range(chance.randint(1, 9))
        }  # fmt: skip
        order = sorted(names)
        chance.shuffle(order)
        for number, name in enumerate(order):
            for partner in chance.sample([1, 12, 2**63 - 1], chance.randint(1, 3)):
                ids = chance.sample([0, 1, 2, 3, 2**63, MAX_ITEM_ID], chance.randint(0, 6))
                put(root, name, partner, {item: float(number * 100 + item % 97) for item in ids})
                for item in ids:
                    value = float(number * 100 + item % 97)
                    want[partner, item] = max(want.get((partner, item), ("", 0.0)), (name, value))
        if not want:
            continue
        table = hathi.read_features(root)
        rows = zip(table["partner_id"].to_pylist(), table["item_id"].to_pylist(), table["shipment"].to_pylist(),
                   table["features"].to_pylist(), strict=True)  # fmt: skip
        assert [(partner, item, name, vector[0]) for partner, item, name, vector in rows] == [
            (*key, *want[key]) for key in sorted(want)
        ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "features"
    put(folder, "20260101T000000Z.000.00000.0-000000000001", 12, {1: 1.0, 2: 2.0})
    put(folder, "20260102T000000Z.000.00000.0-000000000002", 12, {2: 22.0})
    put(folder, "20260102T000000Z.000.00000.0-000000000002", 7, {2: 7.0})
    return folder


def values(table: object) -> list[tuple[int, float]]:
    found = zip(table["item_id"].to_pylist(), table["features"].to_pylist(), strict=True)  # type: ignore[index]
    return [(item, vector[0]) for item, vector in found]


def test_float16_and_float32_are_read_as_one_table_of_float32(root: Path) -> None:
    name = ShipmentName.parse("20260103T000000Z.000.00000.0-000000000003")
    deliver(root.parent, name, {3: np.full(2, 0.1)}, 12, numbers="float16")
    deliver(root.parent, name, {4: np.full(2, 0.1)}, 13, numbers="float16")
    table = hathi.read_features(root)
    half = float(np.float16(0.1))
    assert values(table) == [(2, 7.0), (1, 1.0), (2, 22.0), (3, half), (4, half)]
    assert str(table.schema.field("features").type.value_type) == "float"


def test_a_partner_and_columns_are_chosen_and_wrong_ones_are_said(root: Path) -> None:
    assert values(hathi.read_features(root, partner=12)) == [(1, 1.0), (2, 22.0)]
    table = hathi.read_features(str(root), columns=["url", "item_id"])
    assert table.column_names == ["url", "item_id"]
    assert table.num_rows == 3
    with pytest.raises(hathi.Error, match=r"no column urls.*there are: partner_id"):
        hathi.read_features(root, columns=["urls"])
    with pytest.raises(hathi.Error, match="no features of partner 13"):
        hathi.read_features(root, partner=13)


def test_half_a_delivery_and_what_is_not_ours_is_not_read(root: Path) -> None:
    half = root / "_tmp" / "20260109T000000Z.000.00000.0-000000000009" / "12" / "features"
    half.mkdir(parents=True)
    (half / "part-00000.parquet").write_bytes(b"half")
    (root / "notes.txt").write_text("ours")
    (root / "old" / "12").mkdir(parents=True)
    assert values(hathi.read_features(root, partner=12)) == [(1, 1.0), (2, 22.0)]


def test_more_files_than_one_merge_may_have_are_read_all_the_same(tmp_path: Path) -> None:
    for number in range(70):
        name = f"20260101T000000Z.000.{number:05d}.0-{number:012x}"
        put(tmp_path / "features", name, 1, {5: float(number), 100 + number: 1.0})
    found = values(hathi.read_features(tmp_path / "features"))
    assert (len(found), found[0]) == (71, (5, 69.0))


def test_a_damaged_file_a_copy_that_is_not_whole_and_two_lengths_are_errors_that_name_them(
    root: Path, tmp_path: Path
) -> None:
    put(tmp_path / "two" / "features", "20260101T000000Z.000.00000.0-000000000001", 1, {1: 1.0}, dim=2)
    put(tmp_path / "two" / "features", "20260101T000000Z.000.00000.0-000000000001", 2, {1: 1.0}, dim=3)
    with pytest.raises(hathi.Error, match=r"different lengths.*partner=N"):
        hathi.read_features(tmp_path / "two" / "features")
    assert hathi.read_features(tmp_path / "two" / "features", partner=2).num_rows == 1
    (file,) = root.glob("20260101*/12/features/*.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(hathi.Error, match=r"20260101T000000Z.*part-00000"):
        hathi.read_features(root)
    file.write_bytes(whole)
    (root / "20260101T000000Z.000.00000.0-000000000001" / "12" / "_manifest.json").unlink()
    with pytest.raises(hathi.Error, match=r"incomplete.*_manifest.json.*copy whole folders"):
        hathi.read_features(root)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("nowhere", "no folder"),
        (".", "no features under"),
        ("s3://bucket/features", "s3:// is not supported.*hdfs://host"),
        ("hdfs://host:9870", "no folder in"),
    ],
)
def test_a_place_where_nothing_can_be_read_is_said_with_what_to_name(
    where: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(hathi.Error, match=says):
        hathi.read_features(where)


def test_reading_writes_nothing(root: Path) -> None:
    before = sorted(root.parent.rglob("*"))
    hathi.read_features(root)
    assert sorted(root.parent.rglob("*")) == before
