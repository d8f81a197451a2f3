"""`hathi dataset make` over delivered folders: the law, sides, extending, bad input, and who reads the result."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib.util
import io
import json
import re
import shutil
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import orc
from pyarrow import parquet as pq

from pipeline.cli.main import main
from pipeline.codec import caffe_pb2
from pipeline.errors import ConfigError, FormatError
from pipeline.images import decode
from pipeline.images.resizing import resize
from pipeline.ledger.layout import Root
from pipeline.records import Failure, item_id_of, signed
from pipeline.stores.local import LocalStore
from pipeline.training.dataset import assembling, examples, shards
from pipeline.training.dataset.delivered import Deliveries, Place
from pipeline.training.dataset.manifest import Manifest, read_manifest
from tests.unit.training.databases import encoded, images
from tests.unit.training.delivered_sets import deliver

NAMES = [f"sku-{at}" for at in range(100)]
KINDS = ["boots", "clogs", "heels"]


def pictures(names: list[str], seed: int = 0) -> dict[str, bytes]:
    made = images(len(names), (3, 6, 6), seed)
    return {name: encoded(one) for name, one in zip(names, made, strict=True)}


def label_of(name: str) -> str:
    return KINDS[int(name.removeprefix("sku-")) % 7 % 3]


def labelled(path: Path, rows: list[tuple[str, str]], partner: int = 7) -> Path:
    path.write_text("partner_id,external_id,label\n" + "".join(f"{partner},{name},{label}\n" for name, label in rows))
    return path


def words_of(tmp_path: Path, out: str, *more: str, labels: Path | None = None, kind: str = "--images") -> list[str]:
    table = labels or tmp_path / "labels.csv"
    return ["dataset", "make", str(tmp_path / out), "--labels", str(table), kind, str(tmp_path / "out"), *more]


def make(tmp_path: Path, out: str, *more: str, labels: Path | None = None, kind: str = "--images") -> Manifest:
    assert main(words_of(tmp_path, out, *more, labels=labels, kind=kind)) == 0
    return read_manifest(tmp_path / out)


def refused(tmp_path: Path, *more: str, labels: Path | None = None, kind: str = "--images") -> str:
    """What is said; and that nothing was made."""
    before = sorted(tmp_path.iterdir())
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        assert main(words_of(tmp_path, "refused", *more, labels=labels, kind=kind)) in (1, 2)
    assert sorted(tmp_path.iterdir()) == before, "something was left behind"
    assert "Traceback" not in said.getvalue()
    assert "hint: " in said.getvalue()
    return said.getvalue()


def rows_of(folder: Path, side: str | None = None) -> list[dict[str, Any]]:
    return [row for batch in shards.batches(folder, side) for row in batch.to_pylist()]


def sides(folder: Path) -> dict[str, str]:
    return {row["external_id"]: row["side"] for row in rows_of(folder)}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    deliver(tmp_path, 1, pictures(NAMES), {"sku-100": "http_4xx", "sku-101": "decode"})
    labelled(tmp_path / "labels.csv", [(name, label_of(name)) for name in NAMES])
    return tmp_path


def test_the_law_is_printed_and_holds(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = [(name, label_of(name)) for name in NAMES[:90]]
    labelled(site / "labels.csv", [*some, *some[:3], ("sku-95", ""), ("sku-100", "boots"), ("sku-101", "boots"),
                                   ("sku-999", "boots"), ("", "boots")])  # fmt: skip
    made = make(site, "shoes", "--split", "80/20")
    said = capsys.readouterr()
    assert said.out == (
        f"{site}/shoes: 90 examples of images\n"
        "rows             107\n"
        "examples          90\n"
        "without image      3\n"
        "  decode           1\n"
        "  http_4xx         1\n"
        "  not delivered    1\n"
        "without label     11\n"
        "  empty label      1\n"
        "  no item          1\n"
        "  no row           9\n"
        "duplicates         3\n"
        "sides: train 72, test 18\n"
        "classes: 3; the smallest: clogs with 26\n"
    )
    assert "warning: 1 row of the labels cannot be read" in said.err
    assert "row 98: the id is empty" in said.err
    assert made.law is not None
    assert made.classes == {"0": "boots", "1": "clogs", "2": "heels"}
    rows = rows_of(site / "shoes")
    wanted = pictures(NAMES)
    assert {row["external_id"]: row["data"] for row in rows} == {name: wanted[name] for name in NAMES[:90]}
    for row in rows:
        assert made.classes[str(row["label"])] == label_of(row["external_id"])
        assert row["item_id"] == signed(item_id_of(row["external_id"]))
        assert row["content_sha256"] == hashlib.sha256(row["data"]).digest()
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    for side in ("train", "test"):
        assert Counter(str(row["label"]) for row in rows_of(site / "shoes", side)) == made.sides[side].labels
    first = [row["label"] for row in rows_of(site / "shoes", "train")]
    assert len({*first[:15]}) == 3, "a reader that never shuffles meets one class after the other"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_order(site: Path) -> None:
    made = [make(site, name, "--seed", seed) for name, seed in (("a", "5"), ("b", "5"), ("c", "6"))]
    assert made[0].shards == made[1].shards
    assert made[0].shards != made[2].shards
    assert sides(site / "a") != sides(site / "c")


def test_many_ranges_shards_and_row_groups_hold_the_same_rows(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make(site, "whole")
    monkeypatch.setattr(assembling, "RANGE_BYTES", 2000)
    monkeypatch.setattr(assembling, "SHARD_BYTES", 3000)
    monkeypatch.setattr(assembling, "GROUP_BYTES", 500)
    monkeypatch.setattr(assembling, "_AT_ONCE", 700)
    cut = make(site, "cut")
    assert len(cut.shards) > 5 > len(whole.shards) - 1
    assert rows_of(site / "cut") == rows_of(site / "whole")
    assert not (site / "cut" / "ranges").exists()


TABLE = [{"partner_id": 7, "external_id": name, "label": label_of(name)} for name in NAMES]


def written(folder: Path, form: str) -> Path:
    """The labels in a format of refs."""
    path = folder / f"table.{form}"
    table = pa.Table.from_pylist(TABLE)
    if form in ("csv.gz", "tsv"):
        cut = "," if form == "csv.gz" else "\t"
        lines = cut.join(TABLE[0]) + "\n" + "".join(cut.join(map(str, row.values())) + "\n" for row in TABLE)
        path.write_bytes(gzip.compress(lines.encode()) if form == "csv.gz" else lines.encode())
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in TABLE))
    elif form == "parquet":
        pq.write_table(table, path)
    elif form == "orc":
        orc.write_table(table, path)
    else:
        fields = [{"name": name, "type": kind} for name, kind in
                  (("partner_id", "long"), ("external_id", "string"), ("label", "string"))]  # fmt: skip
        with path.open("wb") as file:
            fastavro.writer(file, {"type": "record", "name": "row", "fields": fields}, TABLE)
    return path


@pytest.mark.parametrize("form", ["csv.gz", "tsv", "jsonl", "parquet", "orc", "avro"])
def test_labels_come_in_every_format_of_refs(form: str, site: Path) -> None:
    plain, other = make(site, "plain"), make(site, "other", labels=written(site, form))
    assert plain.shards == other.shards


def test_labels_name_items_by_their_number_too_and_columns_are_called_as_one_likes(site: Path) -> None:
    table = pa.table(
        {
            "shop": pa.array([7] * 100, pa.int32()),
            "product": pa.array([signed(item_id_of(name)) for name in NAMES], pa.int64()),
            "kind": pa.array([KINDS.index(label_of(name)) for name in NAMES], pa.float64()),  # as pandas leaves it
        }
    )
    (site / "tables").mkdir()
    pq.write_table(table.slice(0, 50), site / "tables" / "one.parquet")
    pq.write_table(table.slice(50), site / "tables" / "two.parquet")
    made = make(
        site, "other", "--label", "kind", "--item-id-column", "product", "--partner-column", "shop",
        labels=site / "tables",
    )  # fmt: skip
    assert made.shards == make(site, "plain").shards
    assert made.classes == {"0": "0", "1": "1", "2": "2"}
    assert made.parents is not None
    assert [(one.name, one.rows) for one in made.parents.labels] == [("one.parquet", 50), ("two.parquet", 50)]


def test_whole_numbers_stay_what_they_are_and_fractions_are_no_classes(site: Path) -> None:
    labelled(site / "labels.csv", [(name, str(3 + at % 2 * 4)) for at, name in enumerate(NAMES)])
    assert make(site, "numbers").labels == {"3": 50, "7": 50}
    pq.write_table(pa.table({"partner_id": [7], "external_id": ["sku-1"], "label": [0.5]}), site / "half.parquet")
    assert "labels are names or whole numbers" in refused(site, labels=site / "half.parquet")
    labelled(site / "great.csv", [("sku-1", "4294967296")])
    assert "the label 4294967296 is too great" in refused(site, labels=site / "great.csv")


@pytest.mark.parametrize(
    ("rule", "label", "without"),
    [("first", "boots", {}), ("last", "clogs", {}), ("leave-out", None, {"two labels": 2})],
)
def test_two_labels_for_one_item_are_named_or_chosen_by_rule(
    rule: str, label: str | None, without: dict[str, int], site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = [(name, label_of(name)) for name in NAMES if name != "sku-5"]
    labelled(site / "labels.csv", [("sku-5", "boots"), *rest, ("SKU-5", "clogs")])
    said = refused(site)
    assert "1 item has two labels" in said
    assert f"partner 7 item {item_id_of('sku-5')}: boots and clogs (rows 1 and 101)" in said
    assert "--two-labels first, last or leave-out" in said
    made = make(site, "made", "--two-labels", rule)
    assert "1 item with two labels" in capsys.readouterr().err
    found = {row["external_id"]: made.classes[str(row["label"])] for row in rows_of(site / "made")}
    assert found.get("sku-5") == label
    assert made.law is not None
    assert made.law.without_label == without
    assert made.law.rows == 101


def test_one_class_and_a_class_with_one_example_are_said(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled(site / "labels.csv", [(name, "boots") for name in NAMES])
    make(site, "one")
    assert "warning: one class only (boots)" in capsys.readouterr().err
    labelled(site / "labels.csv", [(name, "boots" if at else "rare, one") for at, name in enumerate(NAMES)])
    (site / "labels.csv").write_text((site / "labels.csv").read_text().replace("rare, one", '"rare, one"'))
    made = make(site, "two")
    said = capsys.readouterr().err
    assert "1 class with one example: rare, one" in said
    assert "side test has no example of 1 class: rare, one" in said
    assert made.sides["train"].labels == {"0": 79, "1": 1}


def test_what_is_no_table_of_labels_is_refused_with_the_remedy(site: Path) -> None:
    (site / "none.csv").write_text("partner_id,external_id,kind\n7,sku-1,boots\n")
    assert "its columns are: partner_id, external_id, kind" in refused(site, labels=site / "none.csv")
    (site / "ids.csv").write_text("who;label\n7;boots\n")
    assert "no column that names items" in refused(site, labels=site / "ids.csv")
    (site / "empty.csv").write_text("")
    refused(site, labels=site / "empty.csv")
    labelled(site / "bad.csv", [("", "boots")])
    assert "the labels name no item\n  detail: 1 row; the first: row 1: the id is empty" in refused(
        site, labels=site / "bad.csv"
    )
    labelled(site / "strange.csv", [("x-1", "boots"), ("x-2", "boots")])
    said = refused(site, labels=site / "strange.csv")
    assert "no example is left" in said
    assert "without image 2, not delivered 2" in said
    assert "no row 100" in said
    (site / "damaged.parquet").write_bytes(b"PAR1 and no more")
    assert "cannot be read as Parquet" in refused(site, labels=site / "damaged.parquet")
    assert "no labels at" in refused(site, labels=site / "nowhere.csv")


def test_options_that_mean_nothing_are_refused(site: Path) -> None:
    for words in (["--split", "80"], ["--split", "0/0"], ["--split", "a/b"], ["--split", "1/2/3/4"], ["--seed", "-1"],
                  ["--split", "80/20", "--split-column", "x"], ["--lake", "main"]):  # fmt: skip
        refused(site, *words)
    assert "use --images" in refused(site, kind="--features")


def test_a_side_comes_from_a_column_and_equal_pictures_move(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = pictures(NAMES)
    deliver(site, 2, {"sku-1": same["sku-0"], "sku-2": same["sku-0"]})
    lines = [f"7,{name},{label_of(name)},{'holdout' if at in (0, 50) else 'train'}" for at, name in enumerate(NAMES)]
    (site / "labels.csv").write_text("partner_id,external_id,label,where\n" + "\n".join(lines) + "\n")
    made = make(site, "made", "--split-column", "where")
    assert {name: side.examples for name, side in made.sides.items()} == {"train": 99, "holdout": 1}
    assert "1 example moved to the side of an equal picture" in capsys.readouterr().err
    assert made.split is not None
    assert (made.split.by, made.split.column) == ("column", "where")
    for wrong, says in (("", "1 example of the labels has no side"), ("a/b", "names a side 'a/b'")):
        changed = [*lines[:-1], f"7,{NAMES[-1]},boots,{wrong}"]
        (site / "wrong.csv").write_text("partner_id,external_id,label,where\n" + "\n".join(changed) + "\n")
        assert says in refused(site, "--split-column", "where", labels=site / "wrong.csv")


@pytest.mark.parametrize("by", ["class", "content"])
def test_equal_pictures_never_stand_on_two_sides(by: str, tmp_path: Path) -> None:
    few = list(pictures(NAMES[:20]).values())
    deliver(tmp_path, 1, {name: few[at % 20] for at, name in enumerate(NAMES)})
    labelled(tmp_path / "labels.csv", [(name, label_of(name)) for name in NAMES])
    make(tmp_path, "made", "--by", by, "--split", "50/50")
    of_picture: dict[bytes, set[str]] = {}
    for row in rows_of(tmp_path / "made"):
        of_picture.setdefault(row["data"], set()).add(row["side"])
    assert len(of_picture) == 20
    assert all(len(found) == 1 for found in of_picture.values())
    assert {*sides(tmp_path / "made").values()} == {"train", "test"}


def test_earlier_images_keep_their_side_when_a_dataset_is_extended(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled(site / "first.csv", [(name, label_of(name)) for name in NAMES[:60]])
    first = make(site, "first", "--seed", "9", labels=site / "first.csv")
    before = sides(site / "first")
    new = pictures([f"sku-{at}" for at in range(200, 240)], 5)
    old = pictures(NAMES)
    gone = next(name for name, side in before.items() if side == "test")
    moved = {gone: pictures(["x"], 8)["x"], "sku-200": old[gone]}  # the picture is of another item now
    deliver(site, 2, {**new, **moved})
    added = [(name, label_of(name)) for name in [*NAMES, *new]]
    relabelled = [(name, "sandals" if name == "sku-3" else label) for name, label in added]
    labelled(site / "more.csv", relabelled)
    made = make(site, "more", "--extend", str(site / "first"), labels=site / "more.csv")
    after = sides(site / "more")
    assert {name: after[name] for name in before} == before
    assert after["sku-200"] == "test", "the picture changed its side"
    assert len(after) == 140
    assert made.split == first.split, "the split of the dataset that is extended"
    assert (made.parents or first.parents).extends == hashlib.sha256(  # type: ignore[union-attr]
        (site / "first" / "_manifest.json").read_bytes()
    ).hexdigest()
    assert made.classes == {**first.classes, "3": "sandals"}
    assert "1 item with another label than in" in capsys.readouterr().err
    assert made.law is not None
    assert (made.law.rows, made.law.duplicates) == (200, 60)
    for label, count in made.labels.items():
        train = made.sides["train"].labels.get(label, 0)
        assert abs(train - 0.8 * count) <= 2 or label == "3"


def test_a_dataset_whose_parents_were_pruned_is_extended_and_loses_nothing(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(site, "first")
    before = {row["external_id"]: (row["data"], row["side"]) for row in rows_of(site / "first")}
    shutil.rmtree(site / "out")
    deliver(site, 3, pictures(["sku-300", "sku-301"], 3))
    labelled(site / "new.csv", [("sku-300", "boots"), ("sku-301", "clogs"), ("sku-4", "heels")])
    made = make(site, "more", "--extend", str(site / "first"), labels=site / "new.csv")
    assert "100 examples of" in (said := capsys.readouterr().err)
    assert "no longer delivered" in said
    after = {row["external_id"]: (row["data"], row["side"]) for row in rows_of(site / "more")}
    assert {name: after[name] for name in before} == before
    assert made.examples == 102
    shutil.rmtree(site / "out")
    (site / "out").mkdir()
    assert "nothing is delivered under" in refused(site, "--extend", str(site / "first"), labels=site / "new.csv")


def test_only_a_dataset_of_the_same_kind_is_extended(site: Path) -> None:
    make(site, "first")
    shutil.rmtree(site / "out")
    deliver(site, 3, {"sku-1": np.ones(4, np.float32)})
    said = refused(site, "--extend", str(site / "first"), kind="--features")
    assert "first holds images" in said
    (site / "plain").mkdir()
    shards.write(site / "plain", iter([(b"1", caffe_pb2.Datum(label=1, data=b"x"))]), "x")
    shutil.rmtree(site / "out")
    deliver(site, 4, pictures(["sku-1"]))
    assert "it has no sides" in refused(site, "--extend", str(site / "plain"))
    part = site / "first" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    assert "has changed since it was written" in refused(site, "--extend", str(site / "first"))


def vectors(names: list[str], seed: int = 0, dim: int = 5) -> dict[str, np.ndarray]:
    drawn = np.random.default_rng(seed).normal(size=(len(names), dim)).astype(np.float32)
    return dict(zip(names, drawn, strict=True))


def test_features_make_a_dataset_for_heads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deliver(tmp_path, 1, vectors(["sku-7", "sku-8", "sku-100"], 4), fingerprint="a" * 64)
    wanted = vectors(NAMES[:50])
    deliver(tmp_path, 2, wanted)
    labelled(tmp_path / "labels.csv", [(name, label_of(name)) for name in NAMES])
    made = make(tmp_path, "made", kind="--features")
    assert (made.kind, made.dim, made.fingerprints) == ("features", 5, {"f" * 64: 50})
    assert made.law is not None
    assert made.law.without_image == {"another fingerprint": 1, "not delivered": 50}
    assert made.law.rows == 101
    assert "50 examples of features" in capsys.readouterr().out
    found = list(shards.batches(tmp_path / "made", "train", ["features", "label", "external_id"]))
    assert {str(batch.schema.field("features").type) for batch in found} == {
        "fixed_size_list<element: float not null>[5]"
    }
    table = pa.Table.from_batches(found)
    matrix = table["features"].combine_chunks().flatten().to_numpy().reshape(-1, 5)
    for name, vector in zip(table["external_id"].to_pylist(), matrix, strict=True):
        assert vector.tolist() == wanted[name].tolist()
    assert made.sides["train"].examples == len(matrix) == 40
    shown = list(examples.read(tmp_path / "made", "test"))
    assert [one.image().shape for one in shown] == [(5, 1, 1)] * made.sides["test"].examples
    deliver(tmp_path, 3, vectors(["sku-60"], 6, 5))
    more = make(tmp_path, "more", "--extend", str(tmp_path / "made"), kind="--features")
    assert more.examples == 51
    assert sides(tmp_path / "made").items() <= sides(tmp_path / "more").items()


def test_features_are_of_the_net_that_readers_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = "a" * 64, "b" * 64
    deliver(tmp_path, 1, vectors(NAMES[:42]), fingerprint=old, source="shop.csv")
    deliver(tmp_path, 2, vectors(["sku-1", "sku-50"], 4), fingerprint=new, source="day2.csv")
    labelled(tmp_path / "labels.csv", [(name, label_of(name)) for name in NAMES[:51]])
    made = make(tmp_path, "made", kind="--features")
    assert made.fingerprints == {old: 42}, "the small list of the new net takes no example"
    assert made.law is not None
    assert made.law.without_image == {"another fingerprint": 1, "not delivered": 8}
    said = "only another net has features of 1 item, left out here: `hathi backfill SET` first"
    assert said in made.warnings[0]
    assert said in capsys.readouterr().err
    labelled(tmp_path / "labels.csv", [("sku-50", "boots")])
    assert f"hint: {said}" in refused(tmp_path, kind="--features")
    deliver(tmp_path, 3, vectors(NAMES[:42], 9), fingerprint=new, source="shop.csv")
    labelled(tmp_path / "labels.csv", [(name, label_of(name)) for name in NAMES[:51]])
    assert make(tmp_path, "switched", kind="--features").fingerprints == {new: 43}
    extended = make(tmp_path, "extended", "--extend", str(tmp_path / "made"), kind="--features")
    assert extended.fingerprints == {old: 42}, "what is extended keeps its net"


def test_show_says_how_many_examples_each_side_has(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make(site, "made")
    counts = {name: one.examples for name, one in made.sides.items()}
    capsys.readouterr()
    assert main(["dataset", "show", str(site / "made")]) == 0
    told = ", ".join(f"{name} {count}" for name, count in counts.items())
    assert f"\nsides: {told}\n" in capsys.readouterr().out
    assert main(["dataset", "show", str(site / "made"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sides"] == counts
    assert main(["dataset", "show", str(site / "made"), "--side", "test"]) == 0
    assert "sides" not in capsys.readouterr().out


def test_export_writes_one_side_in_one_size_as_a_net_would_see_it(site: Path) -> None:
    made = make(site, "made")
    assert main(["dataset", "export", str(site / "made"), str(site / "db"), "--side", "test", "--resize", "20x30"]) == 0
    before, after = (list(examples.read(site / name, side)) for name, side in (("made", "test"), ("db", None)))
    assert len(after) == made.sides["test"].examples
    was = {one.key: one.datum for one in before}
    for one in after:
        pixels = decode(was[one.key].data)
        assert not isinstance(pixels, Failure)
        assert one.datum.label == was[one.key].label
        assert np.array_equal(one.image(), resize(pixels, (20, 30)).transpose(2, 0, 1))


def test_a_damaged_shard_and_an_unknown_side_are_named(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(site, "made")
    capsys.readouterr()
    assert main(["dataset", "show", str(site / "made"), "--side", "test"]) == 0
    assert "examples: 10\n" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no side 'dev'"):
        list(examples.read(site / "made", "dev"))
    for field, value in (("name", "../x.parquet"), ("rows", 1)):
        tree = json.loads((site / "made" / "_manifest.json").read_text())
        tree["shards"][0][field] = value
        (site / "changed").mkdir(exist_ok=True)
        (site / "changed" / "_manifest.json").write_text(json.dumps(tree))
        with pytest.raises(FormatError, match="cannot be read"):
            read_manifest(site / "changed")


def test_the_page_of_datasets_shows_what_is_printed(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (site / "out").rename(site / "pictures")
    some = [(name, label_of(name)) for name in NAMES[:90]]
    lost = [("sku-95", ""), *((name, "boots") for name in ("sku-100", "sku-101", "sku-999"))]
    labelled(site / "labels.csv", [*some, *some[:3], *lost])
    monkeypatch.chdir(site)
    page = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text()
    (block,) = re.findall(r"```console\n([^`]*dataset make[^`]*)```", page)
    typed = block.split("$ hathi ")[1:]
    assert len(typed) == 2
    for one in typed:
        command, _, shown = one.partition("\n")
        if command.split()[1] == "export" and importlib.util.find_spec("lmdb") is None:
            continue
        assert main(command.split()) == 0
        assert capsys.readouterr().out == shown, command


def test_nothing_is_overwritten(site: Path) -> None:
    make(site, "made")
    content = (site / "made" / "_manifest.json").read_bytes()
    assert main(words_of(site, "made")) == 2
    assert (site / "made" / "_manifest.json").read_bytes() == content


def test_deliveries_are_read_a_block_at_a_time(tmp_path: Path) -> None:
    big = {f"sku-{at}": np.random.default_rng(at).bytes(30_000) for at in range(640)}
    deliver(tmp_path, 1, big)
    found = Deliveries(Place(LocalStore(tmp_path), Root("out"), "out"), "images")
    sum(len(table) for table in found.tables())  # what is imported is imported
    tracemalloc.start()
    try:
        assert sum(len(table) for table in found.tables()) == 640
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 640 * 30_000 / 3, "the reader keeps the bytes of what it has read"


def test_a_set_is_named_as_the_configuration_calls_it(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "hathi.toml").write_text(
        f"""[bucket]
url = "{site}/bucket"
[lakes.main]
url = "{site}"
[sets.pictures]
net = "image"
root = "out"
"""
    )
    words = ["dataset", "make", str(site / "made"), "--labels", str(site / "labels.csv"), "--images", "pictures"]
    assert main([*words, "--config", str(site / "hathi.toml")]) == 0
    assert read_manifest(site / "made").source == "pictures"
    assert main([*words, "--config", str(site / "hathi.toml"), "--lake", "other"]) == 2
    assert "--lake: main" in capsys.readouterr().err
