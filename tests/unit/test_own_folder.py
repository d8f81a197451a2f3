"""What stands in the folder of an own list: each setting of its set and of its source, for the commands that look."""

from __future__ import annotations

import math
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pipeline.app import own_folder
from pipeline.errors import ConfigError
from pipeline.settings import FeatureSet, Settings, Source, load
from pipeline.settings.written import toml_of

WORDS = 'a "quoted" \\ é 😀 \x7f\t\x01'
VALUES: dict[str, Any] = {
    "net": "/nets/a b.prototxt",
    "weights": "/nets/x.caffemodel",
    "blob": WORDS,
    "input_size": [320, 240],
    "normalise": "none",
    "reuse": False,
    "precision": "bf16",
    "engine": "onnxruntime",
    "batch_size": 7,
    "dependent_rows": "alone",
    "lakes": ["list"],
    "pool": "mean",
    "formats": ["libsvm", "parquet"],
    "preprocess": {
        "resize": "crop",
        "resize_to": 300,
        "channel_order": "rgb",
        "raw_scale": 1.0,
        "mean": [0.485, 1e-30, 123456.0],
        "std": [0.1, 2.0, 3.0],
        "input_scale": 0.017,
        "reduced_decode": False,
        "max_pixels": 1234567,
        "damaged": "fail",
        "preset": "imagenet",
        "crop_pct": 0.5,
        "size": [224, 223],
        "interpolation": "lanczos",
        "layout": "nhwc",
    },
}
OTHERS: dict[str, dict[str, Any]] = {
    "model": {"net": "", "model": "shoes"},
    "short_side": {"net": "image", "blob": "image", "formats": ["parquet"], "short_side": 300},
    "quality": {"net": "image", "blob": "image", "formats": ["parquet"], "quality": 71},
}
"""Settings of sets of other kinds, with what such a set needs."""
SOURCE: dict[str, Any] = {
    "path": "lists/a*.csv",
    "convention": "success",
    "format": "csv",
    "partner_id": 2**62,
    "ids": "as_written",
    "null_words": ["", WORDS, "\\N"],
    "columns": {"url": [WORDS], "partner_id": [], "item_id": ["a", "b"], "external_id": ["x y"], "content": []},
    "text": {
        "encoding": "latin-1",
        "separator": "\x01",
        "quote": "'",
        "escape": "\\",
        "header": False,
        "names": ["1", WORDS],
    },
    "keep": ["caption", WORDS],
    "settle_seconds": 1.5,
    "look_back_days": 5,
    "sweep_days": 6,
    "job_time_unit": "text",
    "job_time_zone": "Europe/Paris",
}


def made(folder: Path, values: dict[str, Any], source: dict[str, Any], mine: dict[str, Any] | None = None) -> Settings:
    private = own_folder.private(folder)
    return load(
        None,
        {},
        {
            "state": str(private / "state"),
            "bucket.url": str(private / "bucket"),
            "logs.folder": str(private / "logs"),
            "lakes.list.url": "/",
            "preprocess": {"mine": mine} if mine else {},
            "lakes.list.sources": [source],
            "sets.features": {"net": "/n.onnx", "blob": "out", **values, "root": str(folder)},
        },
    )


def again(settings: Settings) -> Settings:
    """Written down, and read by a command that looks at the folder."""
    own_folder.write_config(settings)
    return load(own_folder.config_of(Path(settings.sets["features"].root)), {})


@pytest.mark.parametrize("field", sorted(set(FeatureSet.model_fields) - {"root", "parquet_numbers"}))
def test_each_setting_of_the_set_is_read_as_it_was_given(tmp_path: Path, field: str) -> None:
    values = OTHERS.get(field) or {field: VALUES[field]}
    assert FeatureSet.model_fields[field].default != values[field], "a value of its own, or nothing is shown"
    settings = made(tmp_path / "out", values, {"path": "x"})
    assert again(settings).sets == settings.sets


@pytest.mark.parametrize("field", sorted(Source.model_fields))
def test_each_setting_of_the_source_is_read_as_it_was_given(tmp_path: Path, field: str) -> None:
    assert Source.model_fields[field].default != SOURCE[field], "a value of its own, or nothing is shown"
    settings = made(tmp_path / "out", {}, {"path": "x", field: SOURCE[field]})
    assert again(settings).lakes == settings.lakes


def test_all_settings_at_once_and_those_of_each_table_in_them_have_values_of_their_own(tmp_path: Path) -> None:
    for model, given in ((FeatureSet, VALUES), (Source, SOURCE)):
        for name, value in given.items():
            if isinstance(value, dict):
                below = model.model_fields[name].annotation.model_fields
                assert all(value[key] != below[key].default for key in value)
    settings = made(tmp_path / "out", VALUES, SOURCE)
    found = again(settings)
    assert (found.sets, found.lakes) == (settings.sets, settings.lakes)
    float16 = made(tmp_path / "two", {"parquet_numbers": "float16"}, {"path": "x"})
    assert again(float16).sets == float16.sets
    assert again(settings).state == settings.state
    assert (found.bucket.url, found.logs.folder) == (settings.bucket.url, settings.logs.folder)


def test_what_was_given_of_bucket_and_fetch_is_written_and_no_secret(tmp_path: Path) -> None:
    given = {
        "bucket.url": "s3://bucket/x",
        "bucket.endpoint": "https://s3.example.org",
        "bucket.secret_key": "very secret",
        "fetch.requests_per_second": 200.0,
        "fetch.allow_private": True,
        "fetch.hosts": {"img.example": {"requests_per_second": 5.0, "headers": {"Authorization": "very secret"}}},
    }
    plain = made(tmp_path / "out", VALUES, SOURCE)
    tree = plain.model_dump(mode="json", include={"state": True, "lakes": True, "sets": True, "logs": {"folder"}})
    tree["sets"]["features"]["preprocess"] = VALUES["preprocess"]
    found = again(load(None, {}, {**tree, **given}))
    assert (found.bucket.url, found.bucket.endpoint) == ("s3://bucket/x", "https://s3.example.org")
    assert (found.fetch.requests_per_second, found.fetch.allow_private) == (200.0, True)
    assert found.fetch.hosts["img.example"].requests_per_second == 5.0
    assert "very secret" not in own_folder.config_of(tmp_path / "out").read_text()
    assert "connections_per_host" not in own_folder.config_of(tmp_path / "out").read_text(), "it was not given"


def test_a_folder_that_was_moved_is_looked_at_where_it_is(tmp_path: Path) -> None:
    settings = made(tmp_path / "out", VALUES, SOURCE)
    own_folder.write_config(settings)
    shutil.move(tmp_path / "out", tmp_path / "moved")
    found = load(own_folder.config_of(tmp_path / "moved"), {})
    assert found.sets["features"].root == str(tmp_path / "moved")
    assert found.state == str(tmp_path / "moved" / ".hathi" / "state")
    assert found.bucket.url == str(tmp_path / "moved" / ".hathi" / "bucket")
    assert found.lakes == settings.lakes


def test_a_folder_of_another_kind_is_no_own_list(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not a folder of `hathi run --features`"):
        own_folder.config_of(tmp_path)


def test_any_tree_is_written_as_toml_reads_it() -> None:
    tree = {"a": {"b c": {"d": [1, 20_000, -3]}, "e": [{"f": WORDS}, {"g": {"h": True}}], "i": None}, "j": []}
    assert tomllib.loads(toml_of(tree)) == {"a": {"b c": {"d": [1, 20_000, -3]}, "e": tree["a"]["e"]}, "j": []}  # type: ignore[index]
    numbers = [0.1, 1e300, 5e-324, 1000.0, float("inf"), -0.0]
    assert tomllib.loads(toml_of({"x": numbers}))["x"] == numbers
    assert math.isnan(tomllib.loads(toml_of({"x": float("nan")}))["x"])


@pytest.mark.parametrize(
    "how", [{}, {"preset": "clip"}, {"preset": "clip", "interpolation": "fast", "resize_to": 300}, {"preset": "mine"}]
)
def test_what_was_not_said_of_preprocessing_stays_unsaid(tmp_path: Path, how: dict[str, Any]) -> None:
    """A value that equals the default still wins over the preset's, and a net's owner is asked where nobody says."""
    settings = made(tmp_path / "out", {"preprocess": how}, {"path": "x"}, mine={"preset": "dinov2", "raw_scale": 3.0})
    assert again(settings).sets == settings.sets
