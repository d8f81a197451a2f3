"""A table that Spark reads becomes a table with features: images as bytes, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import hathi
from pipeline.errors import ConfigError, PipelineError
from pipeline.settings import FeatureSet, Fetch
from sample import random_features
from tests.integration.conftest import ROOT, picture

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipeline.cluster.frames import Table


@pytest.fixture
def chosen(tmp_path: Path) -> FeatureSet:
    random_features.write(tmp_path / "random.caffemodel")
    net = str(ROOT / "sample" / "random_features.prototxt")
    return FeatureSet(net=net, weights=str(tmp_path / "random.caffemodel"), blob="features", root="unused")


@pytest.fixture
def table(session: SparkSession, tmp_path: Path) -> Table:
    """A folder of four images and a torn one, as Spark reads files."""
    from pipeline.cluster.frames import Table

    (tmp_path / "in").mkdir()
    for number in range(4):
        (tmp_path / "in" / f"{number}.png").write_bytes(picture(number))
    (tmp_path / "in" / "torn.png").write_bytes(picture(9)[:40])
    return Table(str(tmp_path / "in"), "binaryFile", "content", str(tmp_path / "out"), "json", ("path",))


def test_images_that_spark_reads_as_files_become_features_and_are_left_out_themselves(
    session: SparkSession, tmp_path: Path, table: Table, chosen: FeatureSet
) -> None:
    from pipeline.cluster.frames import write

    written = write(session, table, chosen, Fetch())
    files = (tmp_path / "out").glob("part-*.json")
    rows = {Path(one["path"]).stem: one for file in files for one in map(json.loads, file.read_text().splitlines())}
    assert sorted(rows) == ["0", "1", "2", "3", "torn"]
    reason = rows["torn"]["failure"]["reason"]
    assert (written.rows, written.features, dict(written.failures)) == (5, 4, {reason: 1})
    assert all("content" not in one for one in rows.values())
    for number in range(4):
        (alone,) = hathi.features(picture(number), net=chosen.net, weights=chosen.weights, blob="features")
        assert alone.vector is not None
        assert rows[str(number)]["features"] == pytest.approx(alone.vector.tolist(), rel=1e-6)
    with pytest.raises(ConfigError, match="is there already"):
        write(session, table, chosen, Fetch())
    assert write(session, replace(table, overwrite=True), chosen, Fetch()).rows == 5


def test_what_cannot_be_read_or_computed_is_named_before_anything_is_written(
    session: SparkSession, tmp_path: Path, table: Table, chosen: FeatureSet
) -> None:
    from pipeline.cluster.frames import write

    net = tmp_path / "broken.prototxt"
    net.write_text("layer {")
    wrong: list[tuple[Table, FeatureSet, str]] = [
        (replace(table, path=str(tmp_path / "nothing")), chosen, "Spark does not read"),
        (replace(table, format="parquet"), chosen, "Spark does not read|Spark gave up"),
        (replace(table, column="url"), chosen, "no column 'url'"),
        (replace(table, column="length", kept=()), chosen, "column 'length' holds bigint"),
        (replace(table, kept=("sku",)), chosen, "no column 'sku'"),
        (table, chosen.model_copy(update={"net": str(net)}), "broken.prototxt"),
        (table, chosen.model_copy(update={"blob": "fc7"}), "fc7"),
    ]
    for one, net_, says in wrong:
        with pytest.raises(PipelineError, match=says):
            write(session, one, net_, Fetch())
        assert not (tmp_path / "out").exists()
