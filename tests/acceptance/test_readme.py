"""What the README promises, typed into a fresh clone, and read as a consumer would: with pandas and DuckDB."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from pipeline.records import item_id_of, signed
from tests.acceptance.conftest import Clone

FEATURES = [
    "partner_id",
    "item_id",
    "external_id",
    "url",
    "content_sha256",
    "fetched_at",
    "version",
    "fingerprint",
    "features",
]
FAILURES = ["partner_id", "item_id", "external_id", "url", "reason", "retriable", "detail", "version", "fingerprint"]


@pytest.fixture(scope="session")
def first_run(clone: Clone) -> str:
    """The output of the README's first command."""
    command = clone.readme()[0][0]
    assert command == "./run-all.sh"
    done = clone.run(command)
    assert done.returncode == 0, done.stdout
    return done.stdout


def shape(line: str) -> str:
    """A line without what differs from run to run: numbers, paths, and the width of columns."""
    line = re.sub(r"/\S+", "PATH", line)
    return re.sub(r"[\s─-]+", " ", re.sub(r"\d[\d.,:TZ]*", "N", line)).strip()


def delivered(clone: Clone) -> Path:
    return clone.path / "work" / "lake" / "features"


def test_the_readme_shows_what_its_first_command_really_prints(clone: Clone, first_run: str) -> None:
    printed = {shape(line) for line in first_run.splitlines()}
    for line in clone.readme()[0][1]:
        assert shape(line) in printed, f"{line!r} is not among:\n{first_run}"


def test_the_readme_opens_with_the_two_commands(clone: Clone) -> None:
    assert [command for command, _ in clone.readme()[:2]] == ["./run-all.sh", "./scripts/test.sh"]


def test_the_second_command_runs_in_a_fresh_clone(clone: Clone, first_run: str) -> None:
    # All of it would run this test again, in a clone of the clone: two tests of each store, the servers' among them.
    done = clone.run("./scripts/test.sh contract -- -k 'read_back or gives_back_the_winner'", timeout=600)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^contract +16 tests", done.stdout, re.M), done.stdout
    read = clone.run(".venv/bin/python -m pytest --collect-only -q tests", timeout=600)
    assert read.returncode == 0, f"what needs an extra is left out, and breaks nothing: {read.stdout[-3000:]}"


def test_pandas_reads_the_features(clone: Clone, first_run: str) -> None:
    files = sorted(delivered(clone).glob("*/*/features/*.parquet"))
    table = pd.concat([pd.read_parquet(path) for path in files])
    assert list(table.columns)[: len(FEATURES)] == FEATURES
    assert table.groupby("partner_id").size().to_dict() == {101: 12, 202: 12, 303: 12}
    assert {len(row) for row in table.features} == {128}
    lengths = table.features.map(lambda row: float((row.astype("float64") ** 2).sum()))
    assert lengths.between(1 - 1e-5, 1 + 1e-5).all()
    cushions = table[table.partner_id == 202]
    assert set(cushions.item_id) == {signed(item_id_of(f"cushion-{n:02}")) for n in range(12)}
    assert table.fetched_at.dt.tz is not None


def test_duckdb_reads_features_and_failures(clone: Clone, first_run: str) -> None:
    rows = duckdb.sql(
        f"select url, reason, retriable from '{delivered(clone)}/*/*/failures/*.parquet' order by reason"
    ).fetchall()
    by_name = {url.rpartition("/")[2]: (reason, retriable) for url, reason, retriable in rows}
    assert by_name == {
        "gone.jpg": ("http_4xx", False),
        "busy.jpg": ("http_5xx", True),
        "sold-out.html": ("not_image", False),
        "torn.jpg": ("truncated", True),
    }
    names = duckdb.sql(f"describe select * from '{delivered(clone)}/*/*/failures/*.parquet'").fetchall()
    assert [row[0] for row in names][: len(FAILURES)] == FAILURES
    count = duckdb.sql(f"select count(*) from '{delivered(clone)}/*/*/features/*.parquet'").fetchall()
    assert count == [(36,)]


def test_the_text_features_are_the_same_numbers(clone: Clone, first_run: str) -> None:
    for folder in delivered(clone).glob("*T*/*/"):
        table = pd.concat([pd.read_parquet(path) for path in (folder / "features").glob("*.parquet")])
        with gzip.open(folder / "cnn_features.txt.gz", "rt") as lines:
            text = {tuple(map(int, line.split()[:2])): [int(v) for v in line.split()[2:]] for line in lines}
        assert len(text) == len(table)
        for row in table.itertuples():
            expected = (row.features.astype("float64") * 1e6).round().astype(int).tolist()
            assert text[row.partner_id, row.item_id % 2**64] == expected


def test_every_delivered_folder_is_complete_and_in_the_index(clone: Clone, first_run: str) -> None:
    folders = sorted(delivered(clone).glob("*T*/*/"))
    assert len(folders) == 3
    assert all((folder / "_SUCCESS").exists() for folder in folders)
    assert all(json.loads((folder / "_manifest.json").read_text()) for folder in folders)
    index = json.loads((delivered(clone) / "outputByPartner").read_text())
    listed = {entry["folder"].strip("/").split("/")[0] for entry in index["deliveries"]}
    assert listed == {folder.parent.name for folder in folders}


def test_run_again_it_finds_nothing_to_do(clone: Clone, first_run: str) -> None:
    before = contents(delivered(clone))
    done = clone.run("./run-all.sh")
    assert done.returncode == 0, done.stdout
    assert contents(delivered(clone)) == before


def test_a_new_ref_file_alone_is_computed(clone: Clone, first_run: str) -> None:
    before = contents(delivered(clone))
    port = clone.environ["SAMPLE_PORT"]
    path = clone.path / "work" / "lake" / "refs" / "more.csv"
    path.write_text(f"partner_id,sku,url\n404,one more,http://127.0.0.1:{port}/mug-05.jpg\n")
    done = clone.run("./run-all.sh")
    assert done.returncode == 0, done.stdout
    after = contents(delivered(clone))
    new = {Path(name).parts[1] for name in set(after) - set(before) if "T" in Path(name).parts[0]}
    assert new == {"404"}
    assert all(after[name] == before[name] for name in before if "outputByPartner" not in name)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
