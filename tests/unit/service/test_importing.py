"""`hathi dataset import` of archives: the law, sides that are real, labels, and what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.cli.main import main
from pipeline.training.dataset.gathered import Layout, layout_of
from pipeline.training.dataset.manifest import Manifest, read_manifest
from pipeline.training.dataset.shards import batches

ROOT = Path(__file__).parents[3]


def picture(number: int, form: str = "PNG") -> bytes:
    """Each number another picture."""
    out = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(out, form, **({"lossless": True} if form == "WEBP" else {}))
    return out.getvalue()


SET = {f"set/{label}/{at}.png": picture(100 * number + at) for number, label in enumerate("abc") for at in range(10)}


def packed(path: Path, files: Mapping[str, bytes]) -> Path:
    """An archive by its ending."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as out:
            for name, content in files.items():
                out.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as out:
            for name, content in files.items():
                told = tarfile.TarInfo(name)
                told.size = len(content)
                out.addfile(told, io.BytesIO(content))
    return path


def imported(archive: Path, *words: str) -> Manifest:
    out = archive.parent / f"made-{len(list(archive.parent.iterdir()))}"
    assert main(["dataset", "import", str(archive), str(out), *words]) == 0
    made = read_manifest(out)
    assert made.law is not None
    law = made.law
    without = sum(law.without_image.values()) + sum(law.without_label.values())
    assert law.rows == law.examples + without + law.duplicates
    return made


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for batch in batches(folder, columns=["label", "side", "external_id", "content_sha256", "data"])
            for row in batch.to_pylist()]  # fmt: skip


def newest(folder: Path) -> Path:
    return max(folder.glob("made-*"), key=lambda one: one.stat().st_mtime_ns)


def test_a_split_is_stratified_and_the_same_from_any_kind_of_archive(tmp_path: Path) -> None:
    digests = set()
    for name, files in (("a.tar", SET), ("a.tar.gz", dict(reversed(SET.items()))), ("a.zip", SET)):
        made = imported(packed(tmp_path / name, files), "--split", "80/20", "--seed", "7")
        assert {side: of.labels for side, of in made.sides.items()} == {
            "train": {"0": 8, "1": 8, "2": 8}, "test": {"0": 2, "1": 2, "2": 2}}  # fmt: skip
        assert made.classes == {"0": "a", "1": "b", "2": "c"}
        digests.add(tuple(shard.sha256 for shard in made.shards))
    assert len(digests) == 1


def test_equal_bytes_never_stand_on_two_sides_and_count_once_under_a_label(tmp_path: Path) -> None:
    """A net that remembers what it has seen can say no more on the test's side than chance."""
    files = dict(SET)
    for at in range(10):
        files[f"set/a/copy-{at}.png"] = picture(at)
        files[f"set/b/also-{at}.png"] = picture(at)  # of label a as well
    made = imported(packed(tmp_path / "a.zip", files), "--split", "50/50")
    assert made.law is not None
    assert (made.law.duplicates, made.examples) == (10, 40)
    sides: defaultdict[bytes, set[str]] = defaultdict(set)
    for row in rows(newest(tmp_path)):
        sides[row["content_sha256"]].add(row["side"])
    assert all(len(one) == 1 for one in sides.values())
    assert any("10 pictures stand under more than one label" in one for one in made.warnings)


def test_a_class_that_lacks_on_one_side_shifts_no_label(tmp_path: Path) -> None:
    files = {name.replace("set/", "test/" if int(name.split("/")[2][0]) > 6 else "train/"): content
             for name, content in SET.items()}  # fmt: skip
    files = {name: content for name, content in files.items() if not name.startswith("test/a/")}
    made = imported(packed(tmp_path / "a.tar", files))
    assert made.sides["test"].labels == {"1": 3, "2": 3}
    assert made.sides["train"].labels == {"0": 7, "1": 7, "2": 7}
    assert made.split is not None
    assert made.split.by == "column"


def test_a_test_picture_that_is_also_in_train_leaves_the_test(tmp_path: Path) -> None:
    files = {f"{side}/a/{at}.png": picture(at) for side in ("test", "train") for at in range(4)}
    files |= {f"test/b/{at}.png": picture(100 + at) for at in range(4)} | {"train/b/9.png": picture(109)}
    made = imported(packed(tmp_path / "a.tar", files))
    assert made.sides["train"].labels == {"0": 4, "1": 1}
    assert made.sides["test"].labels == {"1": 4}


def test_archives_with_sides_take_no_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        f"{side}/{name.removeprefix('set/')}": content for side in ("train", "val") for name, content in SET.items()
    }
    archive = packed(tmp_path / "a.tar", files)
    assert main(["dataset", "import", str(archive), str(tmp_path / "x"), "--split", "80/20"]) == 2
    assert "sides of its own" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize(
    ("folders", "layout"),
    [
        ([("a",), ("b",)], Layout()),
        ([("set", "a"), ("set", "b")], Layout("set")),
        ([("set", "a"), ("set", "b"), (), ("set", "b", "c")], Layout("set")),
        ([("cat",), ("dog",), ("cat", "more")], Layout()),
        ([("train", "a"), ("test", "a")], Layout("", True)),
        ([("set", "Train", "a"), ("set", "val", "a")], Layout("set", True)),
        ([("train",), ("test",)], Layout()),
        ([("train", "a"), ("train", "b")], Layout("train")),
        ([("train", "a"), ("train", "b"), ("other", "a")], Layout("train")),
        ([(), ("a",)], Layout()),
        ([], Layout()),
    ],
)
def test_what_folders_mean(folders: list[tuple[str, ...]], layout: Layout) -> None:
    assert layout_of(dict.fromkeys(folders, 1)) == layout_of(dict.fromkeys(folders[::-1], 1)) == layout


def test_what_lies_elsewhere_has_no_label_and_is_counted(tmp_path: Path) -> None:
    files = SET | {"top.png": picture(900), "set/a/b/deep.png": picture(901), "set/a/notes.txt": b"hello",
                   "set/a/0.PNG": picture(902)}  # fmt: skip
    made = imported(packed(tmp_path / "a.zip", files))
    assert made.law is not None
    assert made.law.without_image == {"no_label": 1, "not_image": 1, "too_deep": 1}
    assert made.examples == 31


def test_names_alike_after_unicode_count_once(tmp_path: Path) -> None:
    files = {"a/\u00e4.png": picture(1), "a/a\u0308.png": picture(2), "b/1.png": picture(3)}
    made = imported(packed(tmp_path / "a.zip", files), "--split", "100/0")
    assert made.law is not None
    assert (made.law.without_image, made.examples) == ({"duplicate_name": 1}, 2)


def test_a_table_says_the_labels(tmp_path: Path) -> None:
    files = {f"photos/{at}.png": picture(at) for at in range(8)} | {"photos/8.png": b"", "photos/readme.txt": b"hello"}
    lines = ["file,label", *(f"{at}.png,{'odd' if at % 2 else 'even'}" for at in range(7)), "8.png,even", "99.png,odd"]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    archive = packed(tmp_path / "a.tar", {name.replace("photos/", "set/photos/"): one for name, one in files.items()})
    (tmp_path / "whole.csv").write_text("\n".join(["path,label", "set/photos/1.png,x", "set/photos/2.png,y"]) + "\n")
    (tmp_path / "below.csv").write_text("\n".join(["path,label", "photos/1.png,x", "photos/2.png,y"]) + "\n")
    with pytest.raises(AssertionError):  # the names lack a folder more than the one above all
        imported(archive, "--labels", str(tmp_path / "labels.csv"))
    for table in ("whole.csv", "below.csv"):
        made = imported(archive, "--labels", str(tmp_path / table), "--split", "50/50")
        assert made.law is not None
        assert (made.examples, made.law.without_label) == (2, {"no row": 6})
    made = imported(packed(tmp_path / "b.tar", files), "--labels", str(tmp_path / "labels.csv"))
    assert made.law is not None
    assert made.law.examples == 7
    assert made.law.without_image == {"empty": 1, "not in the archive": 1, "not_image": 1}
    assert made.law.without_label == {"no row": 1}
    assert sorted(made.classes.values()) == ["even", "odd"]


def test_extended_by_another_archive_old_pictures_keep_their_side(tmp_path: Path) -> None:
    imported(packed(tmp_path / "a.tar", SET), "--split", "50/50")
    first = newest(tmp_path)
    before = {row["external_id"]: row["side"] for row in rows(first)}
    more = SET | {f"set/0new/{at}.png": picture(500 + at) for at in range(10)}
    made = imported(packed(tmp_path / "b.tar", more), "--extend", str(first))
    after = {row["external_id"]: row["side"] for row in rows(newest(tmp_path))}
    assert {name: after[name] for name in before} == before
    assert made.classes == {"0": "a", "1": "b", "2": "c", "3": "0new"}
    assert made.sides["test"].labels["3"] == 5


def test_what_caffe_does_not_read_is_kept_as_png(tmp_path: Path) -> None:
    files = {"a/1.webp": picture(1, "WEBP"), "a/2.png": picture(2), "b/3.gif": picture(3, "GIF")}
    imported(packed(tmp_path / "a.zip", files), "--split", "100/0")
    kept = {str(row["external_id"]): row for row in rows(newest(tmp_path))}
    assert kept["a/2.png"]["data"] == files["a/2.png"]
    for name in ("a/1.webp", "b/3.gif"):
        assert kept[name]["content_sha256"] == hashlib.sha256(files[name]).digest()
        assert kept[name]["data"][:4] == b"\x89PNG"
    decoded = np.asarray(Image.open(io.BytesIO(kept["a/1.webp"]["data"])))
    assert np.array_equal(decoded, np.asarray(Image.open(io.BytesIO(files["a/1.webp"]))))


def test_every_rejected_entry_is_listed_and_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"b/\x1b[2J.png": b"x", "b/x.txt": b"hello"} | SET
    archive = packed(tmp_path / "a.tar", files)
    listed = tmp_path / "rejected.jsonl"
    words = ["dataset", "import", str(archive), str(tmp_path / "x")]
    assert main([*words, "--rejected", str(listed), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [(line["number"], line["reason"]) for line in lines] == [(0, "bad_name"), (1, "not_image")]
    assert told["without_image"] == {"bad_name": 1, "not_image": 1}
    listed.unlink()
    assert main([*words[:-1], str(tmp_path / "y")]) == 0
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"BZh91AY&SY" + bytes(600), "it is bzip2"),
        (b"Rar!\x1a\x07\x01\0" + bytes(600), "it is rar"),
        (b"\x1f\x8b\x08\0" + bytes(30), "damaged"),
    ],
)
def test_what_is_no_archive_is_refused_by_name_and_leaves_nothing(
    tmp_path: Path, content: bytes, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(content)
    assert main(["dataset", "import", str(archive), str(tmp_path / "x")]) == 1
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [archive]


def test_an_archive_without_a_picture_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = packed(tmp_path / "a.zip", {"a/x.txt": b"hello"})
    assert main(["dataset", "import", str(archive), str(tmp_path / "x")]) == 1
    assert "no picture" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [archive]


def test_options_of_one_kind_are_refused_for_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = packed(tmp_path / "a.zip", SET)
    assert main(["dataset", "import", str(archive), str(tmp_path / "x"), "--gray", "--lmdb"]) == 2
    assert "--gray, --lmdb is for a list of images" in capsys.readouterr().err
    (tmp_path / "list.txt").write_text("070701.png 3\n")
    assert main(["dataset", "import", str(tmp_path / "list.txt"), str(tmp_path / "x"), "--split", "80/20"]) == 2
    assert "--split is for an archive" in capsys.readouterr().err


def test_the_page_of_datasets_shows_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fonts = ("arial", "courier", "georgia", "times", "verdana")
    labels = "0123456789abcdefghijklmnopqrstuvwxyz"
    files = {f"{label}/{font}.png": picture(10 * number + at)
             for number, label in enumerate(labels) for at, font in enumerate(fonts)}  # fmt: skip
    files |= {"a/._arial.png": b"x", "z/readme.txt": b"hello", "z/times-again.png": files["z/times.png"]}
    packed(tmp_path / "alphabet.tar.gz", files)
    page = (ROOT / "docs" / "datasets.md").read_text()
    (block,) = re.findall(r"```console\n(\$ hathi dataset import alphabet[^`]*)```", page)
    command, _, shown = block.removeprefix("$ hathi ").partition("\n")
    assert main(command.split()) == 0
    assert capsys.readouterr().out == shown


def test_a_killed_import_leaves_no_child_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.tar", {f"{at % 3}/{at}.png": SET["set/a/0.png"] for at in range(20_000)})
    words = [sys.executable, "-m", "pipeline.cli.main", "dataset", "import", str(archive), str(tmp_path / "made")]
    running = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (left := list(tmp_path.glob(".made-*/pictures"))):
            assert running.poll() is None
            time.sleep(0.01)
        children: list[str] = []
        while not children:
            assert running.poll() is None
            children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    finally:
        running.kill()
        running.wait()
    while any(_runs(one) for one in children):
        time.sleep(0.01)
    assert [one.exists() for one in left] == [True]
    assert not (tmp_path / "made").exists()
    assert main(["dataset", "import", str(packed(tmp_path / "b.tar", SET)), str(tmp_path / "made")]) == 0
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.tar", "b.tar", "made"]


def _runs(process: str) -> bool:
    """Whether it is there, and no zombie."""
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())
    except OSError:
        return False
