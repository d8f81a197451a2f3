"""Whoever reads an own list as Hathi says gets one row for each item, however often it was delivered."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

import hathi
from tests.environment import environ
from tests.integration.conftest import ROOT, OwnList, picture, row


def shown(own: OwnList, stdout: str) -> str:
    """What the printed line of a run prints, typed as it stands there."""
    (line,) = [line.removeprefix("load:").strip() for line in stdout.splitlines() if line.startswith("load:")]
    done = subprocess.run(line, shell=True, cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_overlapping_files_reruns_and_corrections_give_one_row_an_item(own: OwnList) -> None:
    lists = own.folder / "l i's\" $x"
    lists.mkdir()
    (lists / "a.jsonl").write_text("\n".join(row(f"sku-{n}", picture(n)) for n in range(4)))
    (lists / "b.jsonl").write_text("\n".join(row(f"sku-{n}", picture(n + 50)) for n in range(2, 6)))
    odd = str(own.folder / "o u't\" $x")
    out = own.folder / "features.npy"
    first = own.run("--out", str(out), refs=str(lists), features=odd)
    assert first.returncode == 0, first.stderr
    again = own.run("--again", refs=str(lists), features=odd)
    assert again.returncode == 0, again.stderr
    delivered = [one for path in Path(odd).glob("*/*/features/*.parquet") for one in pq.read_table(path).to_pylist()]
    assert len(delivered) > 6, "a plain glob reads each delivery"
    for text in (shown(own, first.stdout), shown(own, again.stdout)):
        assert text.count("sku-") == 6
    ids, matrix = hathi.read_matrix(odd)
    assert (ids.num_rows, matrix.shape) == (6, (6, 128))
    assert len(hathi.read_features(odd).to_pandas()) == 6


def test_the_current_table_is_made_by_each_run_that_delivers_and_costs_nothing_else(own: OwnList) -> None:
    def tables() -> list[str]:
        index = json.loads((own.out / "outputByPartner").read_text())
        found = {partner: one["folder"] for partner, one in index["current"].items()}
        assert list(found) == ["7"]
        rows = pq.read_table(own.out / found["7"] / "features").num_rows
        return [found["7"], str(rows)]

    own.refs.write_text("\n".join(row(f"sku-{n}", picture(n)) for n in range(3)))
    assert own.run().returncode == 0
    first = tables()
    assert first[1] == "3"
    assert "nothing to do" in own.run().stdout
    assert tables() == first, "nothing has changed"
    own.refs.write_text("\n".join(row(f"sku-{n}", picture(n)) for n in range(2, 5)))
    assert own.run().returncode == 0
    second = tables()
    assert (second[0] != first[0], second[1]) == (True, "5")
    assert own.run("--again", "--set", "deliver.compact=false").returncode == 0
    assert tables() == second


def test_one_plain_file_stands_beside_with_the_ids_in_its_order(own: OwnList) -> None:
    own.refs.write_text("\n".join(row(f"sku-{n}", picture(n), partner=n % 2) for n in range(5)))
    matrix, table = own.folder / "features.npy", own.folder / "features.parquet"
    matrix.write_bytes(b"old")
    done = own.run("--out", str(matrix))
    assert done.returncode == 0, done.stderr
    assert f"out: {matrix}: 5 features; who they are: {own.folder / 'features.ids.parquet'}" in done.stdout
    same = own.run("--json", "--out", str(table))
    assert json.loads(same.stdout)["features"] == 0, "one object, and nothing was to be done"
    want = hathi.read_features(own.out)
    assert pq.read_table(table).equals(want)
    values = np.load(matrix, allow_pickle=False)
    assert (values.dtype, values.shape) == (np.float32, (5, 128))
    assert values.tobytes() == hathi.read_matrix(own.out)[1].tobytes()
    ids = pq.read_table(own.folder / "features.ids.parquet")
    assert ids.equals(want.drop_columns(["features"]))
    assert not [path.name for path in own.folder.iterdir() if path.name.startswith(".")], "nothing is left beside"


def test_a_place_that_takes_no_file_is_said_before_anything_is_done(own: OwnList) -> None:
    own.refs.write_text(row("sku-1", picture(1)))
    for name, said in (("x.csv", "end the name with .npy or .parquet"), ("no/x.npy", "there is no folder")):
        refused = own.run("--out", str(own.folder / name))
        assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr
    assert not own.out.exists()
    alone = own.hathi("run", "--out", str(own.folder / "x.npy"))
    assert (alone.returncode, "--out is for a list of your own" in alone.stderr) == (2, True)
    own.refs.write_text(json.dumps({"partner_id": 7, "external_id": "a", "url": "http://127.0.0.1:9/x.jpg"}))
    none = own.run("--out", str(own.folder / "x.npy"))
    assert (none.returncode, "there is no feature yet" in none.stderr) == (1, True)
    assert not (own.folder / "x.npy").exists()
