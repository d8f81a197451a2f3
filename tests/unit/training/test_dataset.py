"""hathi dataset: what convert_imageset and compute_image_mean make, to the byte; shards of our own and back."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.cli.main import main
from pipeline.codec import caffe_pb2
from pipeline.codec.mean_image import read_mean
from pipeline.errors import ConfigError, FormatError
from pipeline.training.dataset import examples, image_files, shards
from pipeline.training.dataset.image_files import How
from tests.unit.training.databases import GOLDEN, datum, demand_readers, encoded, images, lmdb_of
from tests.unit.training.test_draws import naive_shuffles

demand_readers()
RUNS = GOLDEN / "solver_runs"


def records(path: Path) -> list[tuple[bytes, bytes]]:
    import lmdb

    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return list(transaction.cursor())


def test_a_list_becomes_the_database_that_convert_imageset_made(tmp_path: Path) -> None:
    out = tmp_path / "made" / "db"
    assert main(["dataset", "import", str(RUNS / "test.txt"), str(out), "--lmdb", "--root", f"{RUNS}/img_test/"]) == 0
    assert records(out) == records(RUNS / "test_lmdb")
    assert [path.name for path in out.parent.iterdir()] == ["db"], "something was left behind"


def test_the_mean_image_is_compute_image_means_to_the_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", "mean", str(RUNS / "train_lmdb"), str(tmp_path / "mean.binaryproto")]) == 0
    assert (tmp_path / "mean.binaryproto").read_bytes() == (RUNS / "mean.binaryproto").read_bytes()
    assert "3 x 32 x 32; mean of each channel: 127.411, 127.543, 127.498" in capsys.readouterr().out


def varied() -> dict[str, bytes | caffe_pb2.Datum]:
    """Datums whose fields are set and not set in all the ways there are."""
    picture = images(1)[0]
    unset = datum(picture, 0)
    unset.ClearField("label")
    return {
        "b pixels": datum(picture, 3),
        "a jpeg": datum(picture, 1, ".jpg"),
        "c bytes of a file": caffe_pb2.Datum(data=encoded(picture), encoded=True, label=-2),
        "d floats": datum(np.linspace(-1, 1, 18, dtype=np.float32).reshape(2, 3, 3), 7),
        "e no label": unset,
        "f\x00key": datum(images(1, (1, 2, 2))[0], 2),
    }


def test_import_export_import_gives_the_same_records(tmp_path: Path) -> None:
    first = lmdb_of(tmp_path / "first", varied())
    assert main(["dataset", "import", str(first), str(tmp_path / "ours")]) == 0
    assert main(["dataset", "export", str(tmp_path / "ours"), str(tmp_path / "second")]) == 0
    assert records(tmp_path / "second") == records(first)
    assert main(["dataset", "import", str(tmp_path / "second"), str(tmp_path / "again")]) == 0
    manifests = [json.loads((tmp_path / name / "_manifest.json").read_text()) for name in ("ours", "again")]
    assert manifests[0]["shards"] == manifests[1]["shards"]
    assert manifests[0]["labels"] == {"-2": 1, "0": 1, "1": 1, "2": 1, "3": 1, "7": 1}


def test_a_leveldb_is_brought_in(tmp_path: Path) -> None:
    assert main(["dataset", "import", str(GOLDEN / "training_stream" / "leveldb"), str(tmp_path / "ours")]) == 0
    assert [one.datum.label for one in examples.read(tmp_path / "ours")] == [0, 1, 2, 0, 1]


def test_many_records_go_into_many_shards_and_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_GROUP", 3 * 297)
    monkeypatch.setattr(shards, "_SHARD", 10 * 297)
    given = [(b"%04d" % at, datum(image, at % 3)) for at, image in enumerate(images(25))]
    assert shards.write(tmp_path, iter(given), "a test") == 25
    assert [shard["rows"] for shard in json.loads((tmp_path / shards.MANIFEST).read_text())["shards"]] == [12, 12, 1]
    assert list(shards.read(tmp_path)) == given


@pytest.mark.parametrize("damage", ["byte", "gone", "manifest", "newer"])
def test_a_damaged_dataset_is_named(damage: str, tmp_path: Path) -> None:
    shards.write(tmp_path, [(b"1", datum(images(1)[0], 1))], "a test")
    path, manifest = tmp_path / "part-00000.parquet", tmp_path / shards.MANIFEST
    if damage == "byte":
        content = bytearray(path.read_bytes())
        content[99] ^= 1
        path.write_bytes(content)
    elif damage == "gone":
        path.unlink()
    else:
        manifest.write_text("{" if damage == "manifest" else '{"format": 2, "shards": []}')
    with pytest.raises(FormatError, match=r"part-00000.parquet has changed since|manifest .* cannot be read"):
        list(examples.read(tmp_path))


def list_of(tmp_path: Path) -> np.ndarray:
    pictures = images(6, (3, 12, 10))
    for at, picture in enumerate(pictures):
        (tmp_path / f"{at}.png").write_bytes(encoded(picture))
    (tmp_path / "5.jpeg").write_bytes(encoded(pictures[5], ".jpg"))
    names = [f"{at}.png" for at in range(5)] + ["5.jpeg"]
    (tmp_path / "list.txt").write_text("".join(f"{name} {at}\n" for at, name in enumerate(names)))
    return pictures


def made(tmp_path: Path, **how: Any) -> list[tuple[str, caffe_pb2.Datum]]:
    found = image_files.examples(tmp_path / "list.txt", How(root=f"{tmp_path}/", **how))
    return [(one.key.decode(), one.datum) for one in found]


def test_a_list_is_shuffled_as_caffe_does(tmp_path: Path) -> None:
    list_of(tmp_path)
    order = naive_shuffles(9, 6, 1)[0]
    assert [(key, datum.label) for key, datum in made(tmp_path, shuffle=9)] == [
        (f"{at:08d}_{example}.{'jpeg' if example == 5 else 'png'}", example) for at, example in enumerate(order)
    ]


def test_images_are_resized_and_greyed_by_opencv(tmp_path: Path) -> None:
    pictures = list_of(tmp_path)
    for at, (_, one) in enumerate(made(tmp_path, size=(7, 9), colour=False)[:5]):
        image = cv2.resize(cv2.imread(str(tmp_path / f"{at}.png"), 0), (9, 7))
        assert (one.channels, one.height, one.width, one.data) == (1, 7, 9, image.tobytes())
    assert np.array_equal(np.frombuffer(made(tmp_path)[0][1].data, np.uint8).reshape(3, 12, 10), pictures[0])


def test_images_stay_encoded_as_convert_imageset_keeps_them(tmp_path: Path) -> None:
    """A file whose form is asked for stays as it is; another, or one that is resized, is encoded anew."""
    list_of(tmp_path)
    kept = made(tmp_path, encode="")
    assert kept[0][1] == caffe_pb2.Datum(data=(tmp_path / "0.png").read_bytes(), label=0, encoded=True)
    assert kept[5][1].data == (tmp_path / "5.jpeg").read_bytes()
    jpeg = made(tmp_path, encode="jpg")
    assert jpeg[5][1].data == (tmp_path / "5.jpeg").read_bytes()
    assert jpeg[0][1].data == bytes(cv2.imencode(".jpg", cv2.imread(str(tmp_path / "0.png")))[1])
    small = made(tmp_path, encode="png", size=(5, 4))[0][1]
    assert (small.channels, small.height, small.width) == (3, 5, 4)
    assert cv2.imdecode(np.frombuffer(small.data, np.uint8), -1).shape == (5, 4, 3)
    with pytest.raises(ConfigError, match="encodes no 'cat'"):
        made(tmp_path, encode="cat")


def test_an_image_that_cannot_be_read_is_refused_or_left_out_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    list_of(tmp_path)
    (tmp_path / "2.png").write_bytes(b"no picture")
    (tmp_path / "3.png").unlink()
    words = ["dataset", "import", str(tmp_path / "list.txt"), str(tmp_path / "db"), "--lmdb", "--root", f"{tmp_path}/"]
    assert main(words) == 1
    assert "the image '2.png' cannot be used" in capsys.readouterr().err
    assert not (tmp_path / "db").exists()
    assert main([*words, "--skip"]) == 1
    said = capsys.readouterr()
    assert "4 examples, 2 left out" in said.out
    assert "left out: 2.png: " in said.err
    assert "left out: 3.png: the file cannot be read: No such file" in said.err
    assert [key for key, _ in records(tmp_path / "db")] == [
        b"00000000_0.png", b"00000001_1.png", b"00000004_4.png", b"00000005_5.jpeg",
    ]  # fmt: skip


def test_another_size_is_refused_where_sizes_are_checked(tmp_path: Path) -> None:
    list_of(tmp_path)
    (tmp_path / "4.png").write_bytes(encoded(images(1, (3, 12, 11))[0]))
    assert len(made(tmp_path)) == 6
    with pytest.raises(FormatError, match=r"the image '4.png' cannot be used.*396 bytes of pixels.*360"):
        made(tmp_path, same_size=True)


def test_show_counts_and_names_what_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = encoded(images(1)[0], ".jpg")
    torn = caffe_pb2.Datum(encoded=True, data=whole[: len(whole) // 2], label=3)
    path = lmdb_of(tmp_path / "db", {**varied(), "torn": torn})
    assert main(["dataset", "show", str(path)]) == 1
    shown = capsys.readouterr().out
    for line in ("examples: 7", "labels: 6, from -2 to 7", "size: 3 x 9 x 11, 4 examples", "form: jpeg, 2 examples",
                 "form: floats, 1 example", "damaged: torn: its image ends before its own end"):  # fmt: skip
        assert line in shown.splitlines()
    assert "largest: label 3 with 2" in shown
    assert main(["dataset", "show", str(RUNS / "test_lmdb"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 100


def test_a_mean_of_encoded_and_float_images(tmp_path: Path) -> None:
    values = np.random.default_rng(3).normal(size=(5, 2, 3, 4)).astype(np.float32)
    lmdb_of(tmp_path / "db", [datum(one, 0) for one in values])
    assert main(["dataset", "mean", str(tmp_path / "db"), str(tmp_path / "mean.binaryproto")]) == 0
    total = np.zeros((2, 3, 4), np.float32)
    for one in values:
        total = total + one
    assert np.array_equal(read_mean(tmp_path / "mean.binaryproto"), total / np.float32(5))
    pictures = images(3)
    lmdb_of(tmp_path / "png", [datum(one, 0, ".png") for one in pictures])
    assert main(["dataset", "mean", str(tmp_path / "png"), str(tmp_path / "mean.binaryproto")]) == 0
    assert np.array_equal(read_mean(tmp_path / "mean.binaryproto"), pictures.sum(0, dtype=np.float32) / np.float32(3))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["import", "{list}", "{there}"], "is there already"),
        (["import", "{list}.not", "{out}"], "cannot be read"),
        (["import", "{folder}", "{out}"], "is no dataset"),
        (["import", "{db}", "{out}", "--gray", "--skip"], "--gray, --skip is for a list of images"),
        (["export", "{list}", "{out}"], "is no dataset"),
        (["show", "{folder}"], "is no dataset"),
        (["mean", "{two}", "{out}"], "example '00000001' cannot be used"),
        (["mean", "{empty}", "{out}"], "a mean image needs examples"),
        (["import", "{empty}", "{out}"], "there is no example"),
        (["mean", "{db}", "{folder}"], "cannot be written"),
        (["import", "{broken}", "{out}"], "record '00000000' of .* cannot be used"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    list_of(tmp_path)
    places = {
        "list": tmp_path / "list.txt",
        "there": tmp_path,
        "out": tmp_path / "out",
        "folder": tmp_path,
        "db": lmdb_of(tmp_path / "db", [datum(images(1)[0], 0)]),
        "two": lmdb_of(tmp_path / "two", [datum(images(1)[0], 0), datum(images(1, (3, 4, 4))[0], 0)]),
        "empty": lmdb_of(tmp_path / "empty", []),
        "broken": lmdb_of(tmp_path / "broken", {"00000000": b"\xff\xff\xff"}),
    }
    assert main(["dataset", *(word.format(**places) for word in words)]) in (1, 2)
    said = capsys.readouterr().err
    assert re.search(says, said), said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["uint8", "float32", "rows", "list"])
def test_hdf5_is_brought_in_as_its_layer_reads_it(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    h5py = pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    pictures = images(300) if form != "rows" else np.random.default_rng(1).normal(size=(300, 7))
    pictures = pictures.astype(np.uint8 if form == "uint8" else np.float32)
    labels = (np.arange(300) % 4).astype(np.float32)[:, None]
    cuts = [0, 120, 300] if form == "list" else [0, 300]
    for number, (first, last) in enumerate(itertools.pairwise(cuts)):
        with h5py.File(f"{number}.h5", "w") as file:
            file["data"], file["label"] = pictures[first:last], labels[first:last]
    Path("all.txt").write_text("0.h5\n1.h5\n")
    assert main(["dataset", "import", "all.txt" if form == "list" else "0.h5", "set"]) == 0
    assert capsys.readouterr().out == "set: 300 examples\n"
    found = list(examples.read(Path("set")))
    assert [one.key for one in found] == [b"%08d" % number for number in range(300)]
    assert [one.datum.label for one in found] == labels.ravel().tolist()
    wanted = pictures.reshape(300, 7, 1, 1) if form == "rows" else pictures
    assert all(np.array_equal(one.image(), image) for one, image in zip(found, wanted, strict=True))
    assert main(["dataset", "import", "set", "db", "--lmdb"]) == 0
    assert [one.datum for one in examples.read(Path("db"))] == [one.datum for one in found]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"data": (3, 2), "label": None}, "has no dataset 'label'.*it holds data"),
        ({"images": (3, 2), "label": (3,)}, "has no dataset 'data'"),
        ({"data": (3, 2), "label": (4,)}, "not one label for each row"),
        ({"data": (3, 2), "label": (3, 2)}, "not one label for each row"),
        ({"data": (3, 2, 2, 2, 2), "label": (3,)}, "holds no images"),
        ({"data": (3, 2), "label": 0.5}, r"example 'x.h5\[0\]' cannot be used.*label is 0.5"),
        ({"data": (3, 2), "label": "text"}, "holds no rows of numbers"),
        ("cut", "cannot be read as HDF5"),
    ],
)  # fmt: skip
def test_hdf5_that_is_no_dataset_is_named(
    content: Any, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    h5py = pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    with h5py.File("x.h5", "w") as file:
        for name, of in (content if isinstance(content, dict) else {"data": (9, 99), "label": (9,)}).items():
            if isinstance(of, tuple):
                file[name] = np.zeros(of, np.float32)
            elif of is not None:
                file[name] = [of] * 3
    if content == "cut":
        Path("x.h5").write_bytes(Path("x.h5").read_bytes()[:1500])
    assert main(["dataset", "import", "x.h5", "set"]) == 1
    said = capsys.readouterr().err.replace("\n", " ")
    assert re.search(says, said), said
    assert not Path("set").exists()
    assert main(["dataset", "import", "x.h5", "set", "--gray"]) == 2


def test_a_key_that_comes_twice_is_refused(tmp_path: Path) -> None:
    shards.write(tmp_path, [(b"1", datum(images(1)[0], 1))] * 2, "a test")
    assert main(["dataset", "export", str(tmp_path), str(tmp_path / "db")]) == 1
    assert not (tmp_path / "db").exists()


def test_the_page_of_datasets_shows_what_its_commands_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = []
    (tmp_path / "images").mkdir()
    for key, value in records(RUNS / "train_lmdb"):
        one, name = caffe_pb2.Datum.FromString(value), key.decode().partition("_")[2].replace("/", "_")
        pixels = np.frombuffer(one.data, np.uint8).reshape(one.channels, one.height, one.width)
        cv2.imwrite(str(tmp_path / "images" / name), pixels.transpose(1, 2, 0))
        lines.append(f"{name} {one.label}\n")
    (tmp_path / "train.txt").write_text("".join(lines))
    monkeypatch.chdir(tmp_path)
    block = re.search(r"```console\n(.*?)```", (GOLDEN.parents[1] / "docs" / "datasets.md").read_text(), re.DOTALL)
    assert block is not None
    for typed in block[1].split("$ hathi ")[1:]:
        command, _, shown = typed.partition("\n")
        assert main(command.split()) == 0
        assert capsys.readouterr().out == shown, command
