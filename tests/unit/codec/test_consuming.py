"""docs/consuming.md does what it says: its pandas and DuckDB blocks run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from pipeline.codec.delivered.merge import MergeInput, Output, merge
from pipeline.codec.shards import write_failures, write_features
from pipeline.ledger.deliveries import Delivery, Index, IndexFile, PartnerManifest
from pipeline.ledger.layout import ShipmentName
from pipeline.records import MAX_ITEM_ID
from pipeline.stages.index import next_index
from tests.unit.codec.rows import failure, feature

PAGE = Path(__file__).parents[3] / "docs" / "consuming.md"
OLD = "20260101T000000Z.000.00000.0-3f2a9c0d11e4"
NEW = "20260102T000000Z.000.00000.0-5b7d1f3e9a20"
RETRY = "20260101T000000Z.000.00000.1-9e8d7c6b5a40"
"""Delivered last, though its version is the old one."""


def deliver(root: Path, scratch: Path, shipment: str, items: dict[int, float]) -> Delivery:
    """Delivers items of partner 12 with a one-valued feature each; a NaN fails."""
    inputs = scratch / shipment
    inputs.mkdir()
    good = [(item, value) for item, value in items.items() if value == value]
    bad = [item for item, value in items.items() if value != value]
    rows = [feature(12, item, ordinal) for ordinal, (item, _) in enumerate(good)]
    write_features(inputs / "features", rows, np.array([[value, 0.5] for _, value in good], np.float32).reshape(-1, 2))
    write_failures(inputs / "failures", [failure(12, item, 100 + at) for at, item in enumerate(bad)])
    (partner,) = merge(
        [MergeInput(0, inputs / "features", inputs / "failures")],
        Output(
            root / shipment,
            dim=2,
            version=shipment[:16],
            fingerprint="f" * 64,
            formats=["text", "parquet", "libsvm"],
            redact_queries=True,
            last_try=True,
        ),
    ).partners
    (root / shipment / "12" / "_SUCCESS").touch()
    files = tuple(IndexFile(name=f.name, size=f.size, sha256=f.sha256, rows=f.rows) for f in partner.files)
    name = ShipmentName.parse(shipment)
    body = PartnerManifest(
        shipment=shipment, partner_id=12, set="demo", fingerprint="f" * 64, dim=2, version=name.version, files=files,
        round=name.round, generation=name.generation, features=partner.features, failures=partner.failures,
    )  # fmt: skip
    (root / shipment / "12" / "_manifest.json").write_bytes(body.encode())
    return Delivery(
        folder=f"{shipment}/12",
        partner_id=12,
        files=files,
        features=partner.features,
        failures=partner.failures,
        fingerprint="f" * 64,
        jobTimeStamp=shipment[:16],
        round=0,
        generation=int(shipment[27]),
        delivered="",
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "features"
    (folder / "_tmp" / "half" / "12" / "features").mkdir(parents=True)
    (folder / "_tmp" / "half" / "12" / "features" / "part-00000.parquet").write_bytes(b"half")
    index = Index()
    for day, shipment, items in (
        (3, OLD, {1: 0.1, 2: 0.1, MAX_ITEM_ID: 0.1, 4: np.nan, 5: 0.1}),
        (4, NEW, {1: 0.2, 2: 0.2, 5: np.nan}),
        (5, RETRY, {2: 0.3, 4: 0.3}),
    ):
        delivery = deliver(folder, tmp_path, shipment, items)
        index = next_index(index, [delivery], "features", f"2026010{day}T000000Z", 7)
    (folder / "outputByPartner").write_bytes(index.encode())
    return folder


def blocks(kind: str, root: Path) -> list[str]:
    found = re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [block.replace("/lake/features", str(root)) for block in found if "pyspark" not in block]


WINNERS = {1: 0.2, 2: 0.2, 4: 0.3, 5: 0.1, MAX_ITEM_ID: 0.1}


def test_the_pandas_blocks_run_and_give_each_item_its_greatest_shipment(root: Path) -> None:
    names: dict[str, Any] = {}
    for block in blocks("python", root):
        exec(block, names)
    got = names["features"]
    assert dict(zip(got["item_id"].tolist(), (round(float(v[0]), 3) for v in got["features"]), strict=True)) == WINNERS
    assert len(names["by_item"]) == len(names["text"])
    assert {vector[1] for vector in names["by_item"].values()} == {np.float32(0.5)}
    read = names["table"]
    vectors = [round(float(v[0]), 3) for v in read["features"].to_pylist()]
    assert dict(zip(read["item_id"].to_pylist(), vectors, strict=True)) == WINNERS
    assert sorted(names["rows"]["item_id"]) == [1, 2]
    assert set(names["vectors"][3]) == {0.5}
    unseen, index = names["unseen"], names["index"]
    assert unseen(index, f"{OLD}/12", {f"{OLD}/12"}) == [f"{NEW}/12", f"{RETRY}/12"]
    assert unseen(index, f"{RETRY}/12", set()) == []
    assert unseen(index, "gone/12", {f"{NEW}/12"}) == [f"{OLD}/12", f"{RETRY}/12"]


def test_the_duckdb_block_runs_and_gives_each_item_its_greatest_shipment(root: Path) -> None:
    (block,) = blocks("sql", root)
    got = duckdb.sql(f"SELECT item_id, features[1], shipment FROM ({block})").fetchall()
    assert {item: round(value, 3) for item, value, _ in got} == WINNERS
    assert {shipment for _, _, shipment in got} == {OLD, NEW, RETRY}


def test_the_page_names_the_columns_that_are_delivered(root: Path) -> None:
    page = PAGE.read_text()
    for name in ("features", "failures"):
        for column in pd.read_parquet(root / OLD / "12" / name).columns:
            assert f"`{column}`" in page
