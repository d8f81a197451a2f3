"""The Data layer: LMDB and LevelDB in the order of their keys, Caffe's seeds, and what is damaged named by key."""

from __future__ import annotations

import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.codec import caffe_pb2
from pipeline.errors import FormatError, SolverError
from pipeline.nets.caffe import prototxt
from pipeline.nets.caffe.upgrade import upgrade
from pipeline.training.data.checking import check
from pipeline.training.data.leveldb import LevelDb
from pipeline.training.data.make import make
from pipeline.training.data.source import Labels
from pipeline.training.data.transform import Transform
from pipeline.training.draws.draws import CaffesDraws, OurDraws
from tests.unit.training.databases import GOLDEN, data_layer, datum, demand_readers, encoded, images, lmdb_of
from tests.unit.training.test_draws import words_of

demand_readers()
f32 = np.float32
RUNS = GOLDEN / "solver_runs"


def pictures() -> tuple[np.ndarray, list[int]]:
    """The drawn pictures as files, BGR, in the order of their list."""
    lines = [line.split() for line in (RUNS / "test.txt").read_text().splitlines()]
    found = [cv2.imread(str(RUNS / "img_test" / name)).transpose(2, 0, 1) for name, _ in lines]
    return np.array(found), [int(label) for _, label in lines]


def test_caffes_own_database_holds_the_pictures_of_its_list() -> None:
    files, labels = pictures()
    source = make(data_layer("test_lmdb", 100), False, CaffesDraws(1), RUNS)
    batch = source.batch(0)
    assert np.array_equal(batch["data"], files.astype(f32))
    assert batch["label"].tolist() == labels
    assert source.count == 100
    assert source.keys(0)[7] == "00000007_0007.png"
    source.close()


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("train", [True, False])
def test_batches_are_those_of_caffes_stream(train: bool, mirror: bool) -> None:
    """Words of the whole training: one seed that is not used, one of the crops, one of the thread; then the fillers."""
    files, labels = pictures()
    mean = np.array(caffe_pb2.BlobProto.FromString((RUNS / "mean.binaryproto").read_bytes()).data, f32)
    mean = mean.reshape(3, 32, 32)
    draws = CaffesDraws(42)
    transform = {"mirror": mirror, "crop_size": 28, "mean_file": "mean.binaryproto", "scale": 0.015625}
    source = make(data_layer("test_lmdb", 16, transform), train, draws, RUNS)
    words = words_of(42, 4)
    drawn = 3 if train or mirror else 1
    assert draws.word("next") == words[drawn]
    crops = iter(words_of(words[1], 3 * 200))
    for number in range(10):
        batch = source.batch(number)
        for at in range(16):
            example = (number * 16 + at) % 100
            flipped = mirror and next(crops) % 2
            top, left = (next(crops) % 5, next(crops) % 5) if train else (2, 2)
            place = (slice(None), slice(top, top + 28), slice(left, left + 28))
            expected = (files[example][place].astype(f32) - mean[place]) * f32(0.015625)
            assert np.array_equal(batch["data"][at], expected[:, :, ::-1] if flipped else expected)
            assert batch["label"][at] == labels[example]
    source.close()


@pytest.mark.parametrize("draws", [CaffesDraws, OurDraws])
def test_a_batch_is_a_function_of_its_number_on_any_number_of_threads(draws: Any) -> None:
    transform = {"mirror": True, "crop_size": 20}
    source = make(data_layer("test_lmdb", 7, transform), True, draws(3), RUNS)
    expected = [source.batch(number) for number in range(40)]
    source.close()
    again = make(data_layer("test_lmdb", 7, transform), True, draws(3), RUNS)
    order = np.random.default_rng(5).permutation(40).tolist() * 2
    with ThreadPoolExecutor(5) as pool:
        for number, batch in zip(order, pool.map(again.batch, order), strict=True):
            assert all(np.array_equal(batch[top], expected[number][top]) for top in batch)
    assert not np.array_equal(expected[0]["data"], expected[1]["data"])
    again.close()


def written(image: np.ndarray, label: int, how: str) -> bytes:
    """A Datum as Caffe writes it, or as another program may."""
    usual = datum(image, label)
    match how:
        case "usual":
            return usual.SerializeToString()
        case "other order":
            fields = [caffe_pb2.Datum(label=label), caffe_pb2.Datum(data=usual.data)]
            sizes = {name: getattr(usual, name) for name in ("channels", "height", "width")}
            return b"".join(one.SerializeToString() for one in (*fields, caffe_pb2.Datum(**sizes)))
        case "not encoded, and says so":
            return usual.SerializeToString() + caffe_pb2.Datum(encoded=False).SerializeToString()
        case "no label":
            return caffe_pb2.Datum(**{name: getattr(usual, name) for name in ("channels", "height", "width", "data")}
                                   ).SerializeToString()  # fmt: skip
        case "pixels twice":  # protobuf takes the last
            lost = datum(255 - image, 3).SerializeToString()
            return lost + usual.SerializeToString()
        case "encoded":
            return datum(image, label, ".png").SerializeToString()
    raise ValueError(how)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "how", ["usual", "other order", "not encoded, and says so", "no label", "pixels twice", "encoded", "all of them"]
)
def test_a_batch_is_its_examples_however_each_of_them_is_written(how: str, train: bool, tmp_path: Path) -> None:
    """Labels of one, two and three bytes; the first record decides nothing about the others."""
    pixels, labels = images(18, (3, 8, 10)), [0, 1, 127, 128, 999, 20000, 5, 6, 300] * 2
    ways = ["usual", "other order", "not encoded, and says so", "no label", "pixels twice", "encoded"]
    each = ways * 3 if how == "all of them" else [how] * 18
    records = map(written, pixels, labels, each)
    lmdb_of(tmp_path / "db", {f"{at:08d}": record for at, record in enumerate(records)})
    given = {"mirror": True, "crop_size": 6, "scale": 0.5, "mean_value": [104, 117, 123]}
    source = make(data_layer("db", 6, given), train, CaffesDraws(8), tmp_path)
    batches = [source.batch(number) for number in range(3)]
    source.close()
    crops = iter(words_of(words_of(8, 2)[1], 3 * 18))
    for at in range(18):
        flipped = next(crops) % 2
        top, left = (next(crops) % 3, next(crops) % 5) if train else (1, 2)
        expected = pixels[at][:, top : top + 6, left : left + 6].astype(f32)
        expected = (expected - np.array([104, 117, 123], f32)[:, None, None]) * f32(0.5)
        batch = batches[at // 6]
        assert np.array_equal(batch["data"][at % 6], expected[:, :, ::-1] if flipped else expected)
        assert batch["label"][at % 6] == (0 if each[at] == "no label" else labels[at])


@pytest.mark.parametrize("cut", [1, 40])
def test_a_record_that_was_cut_is_named_among_whole_ones(cut: int, tmp_path: Path) -> None:
    whole = [datum(image, 1).SerializeToString() for image in images(6)]
    records = {f"{at:08d}": record for at, record in enumerate(whole)} | {"00000004": whole[4][:-cut]}
    source = make(data_layer("db", 6), True, CaffesDraws(1), lmdb_of(tmp_path / "db", records).parent)
    with pytest.raises(FormatError, match="00000004"):
        source.batch(0)
    source.close()


def test_small_raw_images_are_transformed_together_and_large_ones_one_by_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    together: list[tuple[int, ...]] = []
    whole = Transform.apply_to_all

    def counted(self: Transform, many: Any, words: Any, out: Any) -> None:
        together.append(many.shape)
        whole(self, many, words, out)

    monkeypatch.setattr(Transform, "apply_to_all", counted)
    for name, shape in (("small", (3, 32, 32)), ("large", (3, 160, 160))):
        lmdb_of(tmp_path / name, [datum(image, 1) for image in images(4, shape)])
        source = make(data_layer(name, 4), True, CaffesDraws(1), tmp_path)
        assert np.array_equal(source.batch(0)["data"], images(4, shape).astype(f32))
        source.close()
    assert together == [(4, 3, 32, 32)]


def test_caffes_run_of_training_stream_is_read(tmp_path: Path) -> None:
    source = make(data_layer("db", 16, {"crop_size": 24}), True, CaffesDraws(1701), GOLDEN / "training_stream")
    check([source], {"label": Labels(5)})
    assert source.shapes == {"data": (16, 1, 24, 24), "label": (16,)}
    source.close()


def test_a_leveldb_is_read_as_leveldb_would(tmp_path: Path) -> None:
    """Tables and the log, what was written twice and what was deleted."""
    source = make(data_layer("leveldb", 5, backend="LEVELDB"), True, CaffesDraws(1), GOLDEN / "training_stream")
    batch = source.batch(0)
    assert source.keys(0) == [f"{number:08d}" for number in range(5)]
    assert batch["label"].tolist() == [0, 1, 2, 0, 1]
    assert np.array_equal(batch["data"].ravel(), np.arange(80, dtype=f32))
    source.close()


def test_a_leveldb_of_many_tables_is_what_leveldb_says() -> None:
    """Written by LevelDB: packed by Snappy, compacted in part, every fifth key written twice, every seventh deleted."""
    found = LevelDb(GOLDEN / "training_stream" / "leveldb_many")
    expected = {b"%08d" % at: (b"again" if at % 5 == 0 else b"%d " % at) * (at % 90) for at in range(3000) if at % 7}
    assert found.keys == sorted(expected)
    numbers = np.random.default_rng(1).permutation(len(expected)).tolist()
    with ThreadPoolExecutor(4) as pool:
        values = list(pool.map(lambda number: bytes(next(found.read([number]))), numbers))
    assert values == [expected[found.keys[number]] for number in numbers]
    found.close()


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        ("000005.ldb", lambda content: content[:-1], "it has 250 bytes of 251"),
        ("000005.ldb", lambda content: content[:-4] + b"????", "does not end as a table ends"),
        ("000005.ldb", lambda content: b"\x7f" * 40 + content[40:], "000005.ldb"),
        ("000005.ldb", None, "No such file"),
        ("000006.log", lambda content: content[:-9], "ends within a record"),
        ("000006.log", lambda content: content[:7] + b"\xff" + content[8:], "record at byte 0 does not match"),
        ("000006.log", lambda content: content[:6] + b"\x09" + content[7:], "record at byte 0 does not match"),
        (
            "MANIFEST-000004",
            lambda content: content[:20] + b"\xff" + content[21:],
            "MANIFEST-000004.*at byte 0 does not",
        ),
        ("MANIFEST-000004", lambda content: content[:-3], "MANIFEST-000004.*ends within a record"),
        ("MANIFEST-000004", None, "MANIFEST-000004.*No such file"),
        ("CURRENT", lambda content: b"elsewhere\n", "CURRENT.*names no manifest: 'elsewhere'"),
    ],
)
def test_a_damaged_leveldb_is_refused_by_its_files_name(file: str, damage: Any, says: str, tmp_path: Path) -> None:
    """What LevelDB's readers leave out without a word."""
    shutil.copytree(GOLDEN / "training_stream" / "leveldb", tmp_path / "db")
    path = tmp_path / "db" / file
    content = path.read_bytes()
    path.unlink()
    if damage is not None:
        path.write_bytes(damage(content))
    with pytest.raises(FormatError, match=says):
        make(data_layer("db", backend="LEVELDB"), True, CaffesDraws(1), tmp_path)


def flipped(path: Path, byte: int) -> None:
    """One bit of the file is another, in place: whoever has it mapped sees it."""
    with path.open("r+b") as file:
        file.seek(byte)
        (value,) = file.read(1)
        file.seek(byte)
        file.write(bytes([value ^ 1]))


def refusal(database: Path | LevelDb, *numbers: int) -> FormatError | None:
    """What opening it, or reading these records, says of damage."""
    try:
        found = database if isinstance(database, LevelDb) else LevelDb(database)
        list(found.read(numbers))
    except FormatError as error:
        return error
    return None


def test_no_bit_of_a_leveldb_changes_unseen(tmp_path: Path) -> None:
    """Every byte of a log and a manifest, and of a table all but the footer's filling and the block of its filters."""
    shutil.copytree(GOLDEN / "training_stream" / "leveldb", tmp_path / "db")
    expected = [bytes(value) for value in LevelDb(tmp_path / "db").read(range(5))]
    unseen: dict[str, list[int]] = {}
    for name in ("000005.ldb", "000006.log", "MANIFEST-000004"):
        path = tmp_path / "db" / name
        for byte in range(path.stat().st_size):
            flipped(path, byte)
            error = refusal(tmp_path / "db", *range(5))
            if error is None:
                assert [bytes(value) for value in LevelDb(tmp_path / "db").read(range(5))] == expected
                unseen.setdefault(name, []).append(byte)
            else:
                assert name in error.message
            flipped(path, byte)
    assert list(unseen) == ["000005.ldb"]
    assert len(unseen["000005.ldb"]) < 60


def test_a_flipped_bit_is_named_by_its_table_its_byte_and_its_keys(tmp_path: Path) -> None:
    """Before the first iteration; and one that is flipped later, as it is read."""
    shutil.copytree(GOLDEN / "training_stream" / "leveldb_many", tmp_path / "db")
    found = LevelDb(tmp_path / "db")
    largest = max((tmp_path / "db").glob("*.ldb"), key=lambda path: path.stat().st_size)
    flipped(largest, largest.stat().st_size // 2)
    with pytest.raises(FormatError, match=rf"{largest.name} of the LevelDB .* is damaged") as raised:
        LevelDb(tmp_path / "db")
    named = re.fullmatch(
        r"the block at byte (\d+) does not match its checksum; "
        r"the records that lie in it are those after '(\d{8})' up to '(\d+)'",
        raised.value.detail,
    )
    assert named is not None, raised.value.detail
    assert 0 < int(named[1]) <= largest.stat().st_size // 2
    unread = [number for number, key in enumerate(found.keys) if named[2].encode() < key <= named[3].encode()]
    refused = [(number, error) for number in unread if (error := refusal(found, number)) is not None]
    assert len(refused) > 5
    for number, error in refused:
        assert largest.name in error.message
        assert f"the block at byte {named[1]} does not match" in error.detail
        assert f"record '{found.keys[number].decode()}' lies in it" in error.detail
    others = [number for number in range(len(found.keys)) if number not in unread]
    assert len(list(found.read(others))) == len(others)
    found.close()


def test_a_leveldb_without_the_package_of_its_checksums_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    with pytest.raises(SolverError, match=r"the LevelDB .* needs the package google_crc32c.*scripts/training.sh"):
        make(data_layer("leveldb", backend="LEVELDB"), True, CaffesDraws(1), GOLDEN / "training_stream")


def test_a_database_that_was_cut_is_refused_before_a_page_is_missing(tmp_path: Path) -> None:
    shutil.copytree(RUNS / "test_lmdb", tmp_path / "db")
    os.truncate(tmp_path / "db" / "data.mdb", 200_000)
    with pytest.raises(SolverError, match=r"data_param.source: .*data.mdb is cut: it has 200000 bytes of 421888"):
        make(data_layer("db"), True, CaffesDraws(1), tmp_path)
    shutil.copy(RUNS / "test_lmdb" / "data.mdb", tmp_path / "db")
    make(data_layer("db"), True, CaffesDraws(1), tmp_path).close()


@pytest.mark.parametrize(
    ("transform", "encode", "channels", "flag"),
    [
        ({}, ".jpg", 3, -1),
        ({}, ".png", 1, -1),
        ({"force_color": True}, ".png", 1, 1),
        ({"force_gray": True}, ".jpg", 3, 0),
    ],
    ids=["as it is", "grey", "force_color", "force_gray"],
)
def test_encoded_datums_are_decoded_as_opencv_does(
    transform: dict[str, Any], encode: str, channels: int, flag: int, tmp_path: Path
) -> None:
    given = [datum(image, 1, encode) for image in images(3, (channels, 24, 16))]
    source = make(data_layer(str(lmdb_of(tmp_path / "db", given)), 3, transform), True, CaffesDraws(1), tmp_path)
    for one, made in zip(given, source.batch(0)["data"], strict=True):
        expected = cv2.imdecode(np.frombuffer(one.data, np.uint8), flag)
        expected = expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1)
        assert np.array_equal(made, expected.astype(f32))
    source.close()


def test_datums_of_floats_and_a_layer_without_labels(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(4, 2, 3, 3)).astype(f32)
    lmdb_of(tmp_path / "db", [datum(one, 0) for one in values])
    spec = data_layer("db", 4, {"scale": 2})
    del spec.top[1]
    source = make(spec, True, CaffesDraws(1), tmp_path)
    batch = source.batch(0)
    assert list(batch) == list(source.shapes) == ["data"]
    assert np.array_equal(batch["data"], values * f32(2))
    source.close()


def test_two_layers_may_read_one_database(tmp_path: Path) -> None:
    lmdb_of(tmp_path / "db", [datum(image, 0) for image in images(4)])
    first = make(data_layer("db"), True, CaffesDraws(1), tmp_path)
    second = make(data_layer("db"), False, CaffesDraws(1), tmp_path)
    first.close()
    assert second.batch(0)["data"].shape == (4, 3, 9, 11)
    second.close()
    third = make(data_layer("db"), False, CaffesDraws(1), tmp_path)
    third.close()
    assert sorted(path.name for path in (tmp_path / "db").iterdir()) == ["data.mdb"], "reading left something behind"


def test_a_database_that_somebody_writes_is_read_as_it_was(tmp_path: Path) -> None:
    import lmdb

    path = lmdb_of(tmp_path / "db", [datum(image, 0) for image in images(8)])
    child = os.fork()
    if not child:  # another process: this one may open it once only
        with lmdb.open(str(path), map_size=1 << 28) as environment, environment.begin(write=True) as transaction:
            transaction.put(b"00000100", datum(images(1)[0], 1).SerializeToString())
        os._exit(0)
    os.waitpid(child, 0)
    assert (path / "lock.mdb").exists()
    source = make(data_layer("db", 9), True, CaffesDraws(1), tmp_path)
    assert source.count == 9
    assert source.batch(0)["label"][8] == 1
    source.close()


def test_a_database_that_this_process_has_open_is_named(tmp_path: Path) -> None:
    import lmdb

    path = lmdb_of(tmp_path / "db", [datum(image, 0) for image in images(2)])
    with (
        lmdb.open(str(path), map_size=1 << 28),
        pytest.raises(SolverError, match=r"data_param.source.*cannot be read as an LMDB.*already open"),
    ):
        make(data_layer("db"), True, CaffesDraws(1), tmp_path)


def damaged(tmp_path: Path) -> dict[str, bytes | caffe_pb2.Datum]:
    good = [datum(image, number % 3) for number, image in enumerate(images(6))]
    whole = encoded(images(1, (3, 40, 40))[0], ".jpg")
    torn = caffe_pb2.Datum(encoded=True, data=whole[: len(whole) // 2])
    short = datum(images(1)[0], 1)
    short.data = short.data[:-1]
    return {
        **{f"{number:04d}": one for number, one in enumerate(good)},
        "0100": b"\xff\xff\xff no datum",
        "0101": short,
        "0102": caffe_pb2.Datum(encoded=True, data=b"<html>no picture</html>"),
        "0103": torn,
        "0104": caffe_pb2.Datum(encoded=True, data=b""),
        "0105": datum(images(1)[0], 3),
        "0106": datum(images(1)[0], -1),
        "0107": datum(images(1, (3, 8, 11))[0], 1),
        "0108": datum(images(1, (1, 9, 11))[0], 1),
        "0109": datum(np.full((3, 9, 11), np.nan, f32), 1),
    }


def test_every_damage_is_found_before_the_first_iteration_and_named_by_key(tmp_path: Path) -> None:
    records = damaged(tmp_path)
    lmdb_of(tmp_path / "db", records)
    source = make(data_layer("db", 2), True, CaffesDraws(1), tmp_path)
    seen: list[int] = []
    with pytest.raises(FormatError) as raised:
        check([source], {"label": Labels(3)}, seen=seen.append)
    assert "10 of 16 examples cannot be used" in raised.value.message
    assert raised.value.detail.startswith("0100: its bytes are no Datum; 0101: it says 3 x 9 x 11 and holds 296 values")
    assert "and " in raised.value.detail
    assert sum(seen) == 16
    named = [next(source.examine({"label": Labels(3)}, range(at, at + 1))) for at in range(6, 16)]
    assert [one.key for one in named] == [f"{number:04d}" for number in range(100, 110)]
    says = ["OpenCV does not decode it", "ends before its own end", "it is empty", "its label is 3", "its label is -1",
            "3 x 8 x 11", "1 x 9 x 11", "NaN"]  # fmt: skip
    for one, text in zip(named[2:], says, strict=True):
        assert text in one.says
    assert "need a crop_size" in named[7].says
    assert not list(source.examine({"label": Labels(3)}, range(6)))
    assert not list(source.examine({"label": Labels(9, ignored=-1)}, range(12, 13)))
    source.close()


def test_a_torn_jpeg_is_named(tmp_path: Path) -> None:
    whole = encoded(images(1, (3, 64, 64))[0], ".jpg")
    records = [
        caffe_pb2.Datum(encoded=True, data=whole),
        caffe_pb2.Datum(encoded=True, data=whole[: len(whole) * 2 // 3]),
    ]
    lmdb_of(tmp_path / "db", records)
    source = make(data_layer("db", 2), True, CaffesDraws(1), tmp_path)
    with pytest.raises(FormatError, match=r"1 of 2 examples.*00000001: its image ends before its own end"):
        check([source], {})
    source.close()


def test_damage_that_comes_later_is_named_by_its_batch(tmp_path: Path) -> None:
    lmdb_of(tmp_path / "db", damaged(tmp_path))
    source = make(data_layer("db", 7), True, CaffesDraws(1), tmp_path)
    with pytest.raises(FormatError, match=r"example '0100' of .*db cannot be used.*no Datum"):
        source.batch(0)
    source.close()


@pytest.mark.parametrize(
    ("prepare", "more", "says"),
    [
        (lambda path: None, {}, "no such folder"),
        (lambda path: path.mkdir(), {}, "no file data.mdb"),
        (lambda path: path.touch(), {}, "is no LMDB.*it is a file, and a database is a folder"),
        (lambda path: path.touch(), {"backend": "LEVELDB"}, "is no LevelDB.*it is a file, and a database is a folder"),
        (lambda path: (path.mkdir(), (path / "data.mdb").write_bytes(b"x" * 9000)), {}, "cannot be read as an LMDB"),
        (lambda path: (path.mkdir(), (path / "data.mdb").write_bytes(b"")), {}, "cannot be read as an LMDB|is empty"),
        (lambda path: lmdb_of(path, []), {}, "is empty"),
        (lambda path: lmdb_of(path, [datum(images(1)[0], 0)]), {"backend": "LEVELDB"}, "is no LevelDB.*backend: LMDB"),
        (lambda path: (path.mkdir(), (path / "CURRENT").touch()), {}, "it is a LevelDB.*backend: LEVELDB"),
        (lambda path: None, {"batch_size": 0}, "batch_size is 0"),
        (lambda path: None, {"crop_size": 5}, "crop_size stands outside transform_param"),
    ],
)  # fmt: skip
def test_a_database_that_is_none_is_refused_by_the_fields_name(
    prepare: Any, more: dict[str, Any], says: str, tmp_path: Path
) -> None:
    prepare(tmp_path / "db")
    with pytest.raises(SolverError, match=says):
        make(data_layer("db", **{"batch": more.pop("batch_size", 4), **more}), True, CaffesDraws(1), tmp_path)


def test_an_old_net_brings_its_transformation_along() -> None:
    text = (
        "layers { name: 'data' type: DATA top: 'data' top: 'label' data_param { source: 'test_lmdb' batch_size: 4 "
        "backend: LMDB scale: 0.5 crop_size: 28 mirror: true } }"
    )
    net = upgrade(prototxt.parse(text), print)
    source = make(net.layer[0], False, CaffesDraws(1), RUNS)
    assert source.shapes["data"] == (4, 3, 28, 28)
    source.close()


@pytest.mark.parametrize("content", [b"", b"MANIFEST", b"../other\n", b"MANIFEST\xff000004\n"])
def test_a_current_that_names_no_manifest_is_refused_by_its_name(content: bytes, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "training_stream" / "leveldb", tmp_path / "db")
    (tmp_path / "db" / "CURRENT").write_bytes(content)
    with pytest.raises(FormatError, match=r"CURRENT of the LevelDB .* is damaged.*names no manifest"):
        LevelDb(tmp_path / "db")
