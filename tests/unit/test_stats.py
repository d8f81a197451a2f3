"""`stats` says what NumPy says of all rows at once, finds what was planted, and tells two runs apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.analysis.stats.buckets import Buckets
from pipeline.analysis.stats.chart import ticks
from pipeline.analysis.stats.collecting import Stats, collect
from pipeline.analysis.stats.drift import drift
from pipeline.analysis.stats.finding import files_of
from pipeline.analysis.stats.sampling import Repeats, Sample, item_hashes
from pipeline.cli import main as command_line
from pipeline.codec.delivered.parquet import FeaturesWriter
from pipeline.codec.delivered.text import TextWriter
from pipeline.errors import ConfigError, FormatError
from pipeline.stores.local import LocalStore
from tests.unit import deltas as delivered
from tests.unit.codec.rows import feature

OLD = "20260101T000000Z.000.00000.0-3f2a9c0d11e4"
NEW = "20260102T000000Z.000.00000.0-5b7d1f3e9a20"


def deliver(root: Path, shipment: str, partner: int, items: range, matrix: np.ndarray, print_: str = "f" * 64) -> None:
    writer = FeaturesWriter(root / shipment / str(partner) / "features", matrix.shape[1], shipment[:16], print_)
    rows = [feature(partner, item, ordinal) for ordinal, item in enumerate(items)]
    for first in range(0, len(rows), 100):
        writer.write(rows[first : first + 100], matrix[first : first + 100])
    writer.close()


def normal(rows: int, dim: int = 8, seed: int = 1, loc: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(loc, 1, (rows, dim)).astype(np.float32)


def of(root: Path, partner: int | None = None) -> Stats:
    lake = LocalStore(root)
    return collect(lake, files_of(lake, "", partner), partner)


def test_the_figures_are_those_of_all_rows_at_once(tmp_path: Path) -> None:
    matrix = np.maximum(normal(1000), 0)
    matrix[:, 3] = 0
    matrix[:, 5] = 0.25
    deliver(tmp_path, OLD, 7, range(600), matrix[:600])
    deliver(tmp_path, NEW, 8, range(600, 1000), matrix[600:], "e" * 64)
    stats = of(tmp_path)
    assert (stats.files, stats.rows, stats.dim, stats.not_finite) == (2, 1000, 8, 0)
    assert stats.fingerprints == {"e" * 64: 400, "f" * 64: 600}
    assert (stats.always_zero, stats.constant) == ([3], [5])
    assert stats.nonzero_share == np.count_nonzero(matrix) / matrix.size
    np.testing.assert_allclose(stats.mean, matrix.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(stats.deviation, matrix.std(0, dtype=np.float64), rtol=1e-6, atol=1e-9)
    lengths = np.linalg.norm(matrix.astype(np.float64), axis=1)
    norms = stats.norms
    np.testing.assert_allclose(
        [norms.least, norms.mean, norms.greatest], [lengths.min(), lengths.mean(), lengths.max()]
    )
    shares = [0.05, 0.5, 0.75, 0.99, 1]
    exact = np.quantile(matrix, shares, method="inverted_cdf")
    np.testing.assert_allclose(stats.buckets.quantiles(shares), exact, rtol=0.004)
    edges = np.array([-1.0, 0.5, 1.0, 9.0])
    assert stats.buckets.histogram(edges).tolist() == np.histogram(matrix, edges)[0].tolist()


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
@hypothesis_settings(max_examples=60, deadline=None)
def test_a_percentile_is_within_its_bucket_for_any_values(values: list[float]) -> None:
    buckets = Buckets()
    buckets.add(np.array([values], np.float32))
    shares = [0, 0.1, 0.5, 0.9, 1]
    exact = np.quantile(np.array(values, np.float32).astype(np.float64), shares, method="inverted_cdf")
    got = buckets.quantiles(shares)
    assert buckets.total == len(values)
    np.testing.assert_allclose(got, exact, rtol=0.004, atol=1e-38)


def test_what_is_not_finite_is_counted_and_spoils_nothing(tmp_path: Path) -> None:
    matrix = normal(300)
    matrix[17, 2], matrix[250, 0] = np.nan, np.inf
    deliver(tmp_path, OLD, 7, range(300), matrix)
    stats = of(tmp_path)
    good = np.delete(matrix, [17, 250], axis=0)
    assert (stats.rows, stats.not_finite, stats.finite) == (300, 2, 298)
    np.testing.assert_allclose(stats.mean, good.mean(0, dtype=np.float64), rtol=1e-9)
    assert stats.buckets.total == good.size


def test_norms_that_are_not_one_stand_out_where_the_others_are(tmp_path: Path) -> None:
    matrix = normal(200)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    matrix[5] *= 2
    matrix[6] = 0
    deliver(tmp_path, OLD, 7, range(200), matrix)
    norms = of(tmp_path).norms
    assert (norms.normalised, norms.not_one, norms.zero) == (True, 2, 1)


def test_equal_items_and_equal_vectors_are_counted(tmp_path: Path) -> None:
    matrix = normal(500)
    matrix[100:110] = matrix[0]
    deliver(tmp_path, OLD, 7, range(500), matrix)
    deliver(tmp_path, NEW, 7, range(490, 500), normal(10, seed=2))
    deliver(tmp_path, NEW, 8, range(10), normal(10, seed=3))
    stats = of(tmp_path)
    assert (stats.equal_items.rows, stats.equal_items.exact) == (10, True)
    assert (stats.equal_vectors.rows, stats.equal_vectors.exact) == (10, True)


def test_of_more_rows_than_are_kept_repeats_are_estimated_in_bounded_memory() -> None:
    repeats = Repeats(limit=1000)
    items = np.arange(20_000, dtype=np.uint64) // np.uint64(2)
    for first in range(0, len(items), 500):
        some = items[first : first + 500]
        repeats.add(item_hashes(np.zeros(len(some), np.int64), some))
        assert repeats._held <= 1000
    told = repeats.repeated()
    assert not told.exact
    assert told.rows == pytest.approx(10_000, rel=0.02)


def test_two_samples_hold_the_same_items_and_the_vector_that_came_last() -> None:
    items = np.arange(5000, dtype=np.uint64)
    hashes = item_hashes(np.zeros(5000, np.int64), items)
    one, other = Sample(2, items=300), Sample(2, items=300)
    order = np.random.default_rng(3).permutation(5000)
    matrix = np.stack([items, items], 1).astype(np.float32)
    for some in np.array_split(np.arange(5000), 40):
        one.add(hashes[some], matrix[some])
    for some in np.array_split(order, 40):
        other.add(hashes[some], matrix[some] + 1)
    other.add(hashes, matrix + 2)
    mine, theirs = one.common(other)
    assert len(mine) == 300
    assert set(mine[:, 0].astype(int)) == set(items[np.argsort(hashes)[:300]].astype(int))
    np.testing.assert_array_equal(theirs, mine + 2)


def test_text_tells_the_same_as_parquet_and_parquet_is_read_where_both_lie(tmp_path: Path) -> None:
    matrix = (np.round(normal(150) * 1e3) / 1e3).astype(np.float32)
    deliver(tmp_path / "both", OLD, 7, range(150), matrix)
    for folder in ("both", "text"):
        path = tmp_path / folder / OLD / "7" / "cnn_features.txt.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = TextWriter(path)
        writer.write(7, range(150), matrix)
        writer.close()
    both, text = of(tmp_path / "both"), of(tmp_path / "text")
    assert (both.rows, text.rows, both.files) == (150, 150, 1)
    np.testing.assert_allclose(text.mean, both.mean, atol=1e-7)
    apart = drift(both, text)
    assert apart.common == 150
    assert apart.greatest < 1e-6


def test_a_text_whose_lines_are_not_as_long_as_its_manifest_says_is_refused(tmp_path: Path) -> None:
    delivered.deliver(tmp_path, delivered.name_of(1), {1: np.ones(3), 2: np.ones(3)}, text=True)
    assert of(tmp_path, 7).rows == 2
    (manifest,) = tmp_path.rglob("_manifest.json")
    manifest.write_text(manifest.read_text().replace('"dim":3', '"dim":4'))
    with pytest.raises(FormatError, match="damaged") as error:
        of(tmp_path)
    assert "its lines have 3 values, its manifest says 4" in error.value.detail


def test_equal_runs_do_not_drift_and_others_do_by_each_measure(tmp_path: Path) -> None:
    matrix = normal(2000)
    moved = matrix.copy()
    moved[:, 2] += 3
    for name, one, seed in (("a", matrix, 0), ("same", matrix, 0), ("again", normal(2000, seed=9), 0), ("b", moved, 0)):
        deliver(tmp_path / name, OLD, 7, range(seed, seed + 2000), one)
    deliver(tmp_path / "other", OLD, 7, range(5000, 5100), normal(100))
    runs = {name: of(tmp_path / name) for name in ("a", "same", "again", "b", "other")}
    assert drift(runs["a"], runs["same"]).greatest < 1e-9
    again = drift(runs["a"], runs["again"])
    assert again.psi < 0.02
    assert again.moved > 0.9, "the items have vectors of chance"
    apart = drift(runs["a"], runs["b"])
    assert int(np.abs(apart.shifts).argmax()) == 2
    assert apart.shifts[2] == pytest.approx(3 / matrix[:, 2].std(), rel=0.01)
    assert apart.psi > 0.1
    assert 0 < apart.jensen_shannon < 1
    assert apart.common == 2000
    assert drift(runs["a"], runs["other"]).common == 0


def test_two_lengths_and_nothing_at_all_are_refused(tmp_path: Path) -> None:
    deliver(tmp_path / "a", OLD, 7, range(5), normal(5, 8))
    deliver(tmp_path / "a", NEW, 7, range(5), normal(5, 4))
    with pytest.raises(FormatError, match="two lengths"):
        of(tmp_path / "a")
    with pytest.raises(ConfigError, match="no features of partner 9"):
        of(tmp_path / "a", 9)
    (tmp_path / "a" / OLD / "7" / "features" / "part-00000.parquet").write_bytes(b"PAR1 torn PAR1")
    with pytest.raises(FormatError, match=r"part-00000\.parquet"):
        of(tmp_path / "a")


def test_a_root_that_is_called_features_has_failures_that_are_none(tmp_path: Path) -> None:
    for root in ("features", "failures"):
        deliver(tmp_path / root, OLD, 7, range(5), normal(5))
        failures = tmp_path / root / OLD / "7" / "failures" / "part-00000.parquet"
        failures.parent.mkdir()
        failures.write_bytes(b"not read")
        assert files_of(LocalStore(tmp_path), root) == [f"{root}/{OLD}/7/features/part-00000.parquet"]


def test_a_glob_goes_level_by_level_and_leaves_hidden_folders_out(tmp_path: Path) -> None:
    for shipment in (OLD, NEW, "_tmp"):
        for partner in (7, 8):
            deliver(tmp_path, shipment, partner, range(3), normal(3))
    lake = LocalStore(tmp_path)
    assert files_of(lake, "2026*/7") == [f"{one}/7/features/part-00000.parquet" for one in (OLD, NEW)]
    assert len(files_of(lake, "*/*/features/*.parquet")) == 4
    assert len(files_of(lake, "_tmp/*/features/*.parquet", 8)) == 1


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = command_line.main(["stats", *words])
    return code, capsys.readouterr().out


def test_the_command_tells_draws_and_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = np.maximum(normal(400, 16), 0)
    before[:, 4] = 0
    deliver(tmp_path / "a", OLD, 7, range(400), before)
    deliver(tmp_path / "b", NEW, 7, range(400), before * 1.5 + 0.3)
    one, other = str(tmp_path / "a"), str(tmp_path / "b" / "*" / "7")
    code, text = told(capsys, one)
    assert code == 0
    assert "400 of 16 values in 1 file" in text
    assert "1 (4) always zero; none constant" in text
    code, text = told(capsys, one, other, "--plot", str(tmp_path / "plots"), "--json", "--max-drift", "0.25")
    assert code == 1
    body: dict[str, Any] = json.loads(text)
    assert body["drift"]["greatest"] > 0.25
    assert body["runs"][0]["always_zero"] == [4]
    assert [Path(path).name for path in body["pictures"]] == ["values.png", "means.png", "nonzero.png", "norms.png"]
    for path in body["pictures"]:
        picture = np.asarray(Image.open(path))
        assert picture.shape == (520, 1200, 3)
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50, "more than an empty frame"
    assert told(capsys, one, one, "--max-drift", "0")[0] == 0
    assert command_line.main(["stats", one, "--max-drift", "1"]) == 2
    assert "compares two runs" in capsys.readouterr().err


def test_paths_on_a_configured_lake_are_looked_at_where_it_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deliver(tmp_path / "lake" / "features", OLD, 7, range(12), normal(12))
    config = tmp_path / "hathi.toml"
    config.write_text('bucket.url = "bucket"\n[lakes.shop]\nurl = "lake"\n')
    code, text = told(capsys, "features", "--lake", "shop", "--config", str(config), "--json")
    assert (code, json.loads(text)["runs"][0]["rows"]) == (0, 12)
    assert command_line.main(["stats", "features", "--lake", "other", "--config", str(config)]) == 2
    assert "lakes are: shop" in capsys.readouterr().err


def test_ticks_are_round_numbers_within_the_span() -> None:
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(-0.3, 0.7) == pytest.approx([-0.2, 0.0, 0.2, 0.4, 0.6])
    assert all(0.99 <= tick <= 1.01 for tick in ticks(0.99, 1.01))
