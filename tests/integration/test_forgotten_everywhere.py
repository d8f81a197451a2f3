"""Every place that the product writes what follows from an item: each holds it before, and none does afterwards.

A place that is new belongs into PLACES.  Where it holds the item still, and is not in the list, this test names it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import hathi
from pipeline.app.own_folder import config_of
from pipeline.cli.main import main
from pipeline.cli.wiring.out_file import write_out
from pipeline.operations.forget.made import SIMILAR
from pipeline.records import item_id_of, signed
from pipeline.settings import load
from pipeline.training.dataset.manifest import read_manifest
from tests.environment import environ
from tests.integration.conftest import ROOT, OwnList, picture

CANARY, OTHER = "canary-4711", "sku-{}"
ITEMS = 24
PLACES = {
    "archive": "*/.hathi/bucket/list/d/a/",
    "refs and shards": "*/.hathi/bucket/list/d/2",
    "features to be used again": "*/.hathi/bucket/list/u/",
    "delivered rows": "*/2*/7/",
    "current table": "*/_current/",
    "kept columns": "features/.hathi/kept.parquet",
    "what a killed run left": "features/.hathi/keep-left/",
    "--out, Parquet": "out/all.parquet",
    "--out, NumPy": "out/all.npy",
    "--out, its ids": "out/all.ids.parquet",
    "what a killed --out left": "out/.all.npy.",
    "index of similar": f"features/.hathi/state/{SIMILAR}/",
    "data set of features": "sets/vectors/",
    "data set of images": "sets/images/",
    "data set that extends it": "sets/extended/",
    "what a killed dataset make left": "sets/.images-0a1b2c3d/",
    "exported database": "sets/lmdb/",
    "databases of a fine-tuning": "sets/tuned/",
}


@dataclass
class Ground:
    """Two sets of one list: features with kept columns and files, and the images themselves."""

    own: OwnList
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.own.folder

    def hathi(self, *words: str) -> str:
        """A command in this process; what it prints."""
        with contextlib.redirect_stdout(io.StringIO()) as said:
            assert main(list(words)) == 0, words
        return said.getvalue()

    def run(self, out: str, *more: str) -> None:
        words = ["run", "--refs", str(self.own.refs), "--features", str(self.folder / out), *more]
        command, env = [sys.executable, "-m", "pipeline.cli.main", *words], {**environ(), **self.environ}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"

    def told(self) -> Iterator[tuple[str, bytes]]:
        """Each file but the source, by its path, and what it holds, packed or not."""
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            where = path.relative_to(self.folder).as_posix()
            if where.startswith("source/") or path == self.own.refs:
                continue
            content = path.read_bytes()
            if content.startswith(b"PAR1"):
                content += repr(pq.read_table(path, partitioning=None).to_pylist()).encode()
            elif content.startswith(b"\x1f\x8b"):
                content += gzip.decompress(content)
            yield where, where.encode() + b"\n" + content


@pytest.fixture
def ground(own: OwnList) -> Ground:
    """A list, and all that commands make of it."""
    made = Ground(own, {"HATHI_ARCHIVE__ENABLED": "true", "HATHI_FETCH__ALLOW_FOLDERS": f'["{own.folder}"]'})
    lines, labels = [], ["partner_id,external_id,label"]
    for at in range(ITEMS):
        name = CANARY if at == 5 else OTHER.format(at)
        path = own.folder / "source" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(at))
        lines.append({"partner_id": 7, "external_id": name, "url": f"file://{path}", "caption": f"about {name}"})
        labels.append(f"7,{name},{'boots' if at % 2 else 'clogs'}")
    own.refs.write_text("\n".join(map(json.dumps, lines)) + "\n")
    (own.folder / "source" / "labels.csv").write_text("\n".join(labels) + "\n")
    return made


def fill(ground: Ground) -> None:
    """All of PLACES."""
    own, sets, out = ground.own, ground.folder / "sets", ground.folder / "out"
    out.mkdir()
    net = ["--net", str(own.net), "--weights", str(own.weights), "--blob", "features", "--keep", "caption"]
    ground.run("features", *net, "--out", str(out / "all.npy"))
    write_out(load(config_of(ground.folder / "features"), {}), out / "all.parquet")
    ground.run("pictures", "--net", "image")
    labels = ["--labels", str(ground.folder / "source" / "labels.csv")]
    images, features = ["--images", str(ground.folder / "pictures")], ["--features", str(ground.folder / "features")]
    ground.hathi("dataset", "make", str(sets / "vectors"), *labels, *features)
    ground.hathi("dataset", "make", str(sets / "images"), *labels, *images)
    ground.hathi("dataset", "make", str(sets / "extended"), *labels, *images, "--extend", str(sets / "images"))
    ground.hathi("dataset", "export", str(sets / "images"), str(sets / "lmdb"))
    tuned = ["finetune", str(sets / "tuned"), "--net", str(own.net), "--dataset", str(sets / "images")]
    ground.hathi("train", "template", *tuned, "--blob", "features")
    ground.hathi("similar", "7", CANARY, "--approximate", *features)
    for left, source in (
        ("features/.hathi/keep-left/list.0", "features/.hathi/kept.parquet"),
        ("sets/.images-0a1b2c3d/part-00000.parquet", "sets/images/part-00000.parquet"),
        ("out/.all.npy.999999999", "out/all.npy"),
    ):
        (ground.folder / left).parent.mkdir(exist_ok=True)
        (ground.folder / left).write_bytes((ground.folder / source).read_bytes())


def needles_of(ground: Ground) -> list[bytes]:
    """Its image, ids, hash and vector, in each form in which something is written."""
    image = picture(5)
    ids, matrix = hathi.read_matrix(ground.folder / "features")
    vector = matrix[ids["external_id"].to_pylist().index(CANARY)]
    number, digest = item_id_of(CANARY), hashlib.sha256(image).digest()
    return [
        image, CANARY.encode(), str(number).encode(), str(signed(number)).encode(), number.to_bytes(8, "little"),
        digest, digest.hex().encode(), vector.tobytes(), vector.astype(np.float16).tobytes(),
        " ".join(str(round(1e6 * float(one))) for one in vector).encode(),
    ]  # fmt: skip


def holding(ground: Ground, needles: list[bytes]) -> list[str]:
    return [where for where, content in ground.told() if any(one in content for one in needles)]


def stands_at(place: str, where: str) -> bool:
    """place: how a path begins; `*` is one folder."""
    return fnmatch(where, f"{place}*")


def test_who_is_forgotten_is_in_no_byte_of_what_hathi_writes(ground: Ground) -> None:
    fill(ground)
    needles = needles_of(ground)
    before = holding(ground, needles)
    for what, place in PLACES.items():
        assert any(stands_at(place, where) for where in before), f"{what}: the test looks where it is"
    strange = [where for where in before if not any(stands_at(place, where) for place in PLACES.values())]
    assert strange == [], "a place that this test does not know"
    parents = {name: read_manifest(ground.folder / "sets" / name) for name in ("vectors", "images", "extended")}
    kept = pq.read_table(ground.folder / "features/.hathi/kept.parquet")

    for out in ("features", "pictures"):
        said = ground.hathi("forget", "7", CANARY, "--yes", "--features", str(ground.folder / out))
        assert "it is done" in said, said
    assert holding(ground, needles) == []

    for name, was in parents.items():
        now = read_manifest(ground.folder / "sets" / name)
        assert was.law is not None
        assert now.law is not None
        assert (now.examples, now.law.forgotten, now.law.rows) == (ITEMS - 1, 1, was.law.rows)
        assert now.before == [hashlib.sha256(was.text().encode()).hexdigest()]
        shown = json.loads(ground.hathi("dataset", "show", str(ground.folder / "sets" / name), "--json"))
        assert (shown["examples"], shown["damaged"]) == (ITEMS - 1, [])
    shown = json.loads(ground.hathi("dataset", "show", str(ground.folder / "sets" / "lmdb"), "--json"))
    assert (shown["examples"], shown["damaged"]) == (ITEMS - 1, [])
    left = pq.read_table(ground.folder / "features/.hathi/kept.parquet")
    assert left.to_pylist() == [one for one in kept.to_pylist() if one["item_id"] != item_id_of(CANARY)]
    values = np.load(ground.folder / "out" / "all.npy")
    assert np.array_equal(values, hathi.read_matrix(ground.folder / "features")[1])
    ids = pq.read_table(ground.folder / "out" / "all.ids.parquet")
    assert ids["external_id"].to_pylist() == hathi.read_features(ground.folder / "features")["external_id"].to_pylist()
    for out in ("features", "pictures"):
        assert "damage" not in ground.hathi("verify", "--deep", "--features", str(ground.folder / out))
    labels, folder = str(ground.folder / "source" / "labels.csv"), ground.folder / "sets"
    images = ["--images", str(ground.folder / "pictures")]
    ground.hathi(
        "dataset", "make", str(folder / "later"), "--labels", labels, *images, "--extend", str(folder / "images")
    )
    assert read_manifest(folder / "later").examples == ITEMS - 1
    ground.own.refs.write_text("".join(f"{line}\n" for line in _lines(ground) if CANARY not in line))
    net = ["--net", str(ground.own.net), "--weights", str(ground.own.weights), "--blob", "features"]
    ground.run("features", *net, "--out", str(ground.folder / "out" / "all.npy"))
    assert holding(ground, needles) == []


def _lines(ground: Ground) -> list[str]:
    return ground.own.refs.read_text().splitlines()
