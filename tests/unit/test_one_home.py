"""Each fact that many rooms need stands in one module: its literal in another one is a second home for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from pipeline.codec.delivered.forms import FORMATS
from pipeline.settings.sets import FeatureSet
from pipeline.stores.backends import HDFS
from pipeline.stores.hdfs.store import SCHEMES

STAGE = r"['\"](?:ship|compute|aggregate|deliver)['\"]"
PIPELINE = Path(__file__).parents[2] / "pipeline"
MODULES = {str(path.relative_to(PIPELINE)): path.read_text() for path in PIPELINE.rglob("*.py")}


@pytest.mark.parametrize(
    ("literal", "homes"),
    [
        pytest.param(r"\b(?:86_?400|3_?600)\b", ["times.py"], id="the seconds of a day and of an hour"),
        pytest.param(r"gmtime\(", ["ledger/layout.py", "times.py"], id="a time in names, and as people read it"),
        pytest.param(r"\[9:11\]", ["ledger/layout.py"], id="the fields of a version"),
        pytest.param(rf"{STAGE},\s*{STAGE}", ["stage_names.py"], id="the stages' names in a row"),
        pytest.param(r"root\.strip\(['\"]/", ["settings/sets.py"], id="the root of a set as a path of the lake"),
        pytest.param(r"ShipmentName\.parse\(entry\b", ["ledger/listing.py"], id="the shipments under a prefix"),
        pytest.param(r"0-9a-f\]\{12\}", ["ledger/layout.py"], id="how keys under a shipment are written"),
        pytest.param("0{8}T0{6}Z", ["ledger/layout.py"], id="a due of at once"),
        pytest.param(r"[\"']jsonl[\"'],", ["settings/lakes.py"], id="the formats of sources by name"),
        pytest.param(r"\.ndjson", ["codec/refs/tables.py"], id="how the names of their files end"),
        pytest.param(r"[\"'](?:webhdfs|s3a)[\"']", ["stores/backends.py"], id="the schemes of stores"),
        pytest.param(r"startswith\([\"'](?:s3|hdfs|httpfs):", [], id="what a store's URL begins with"),
        pytest.param(r"is not what was written", ["stages/whole_folder.py"], id="how a folder appears whole"),
        pytest.param(r"rejected: int = 0", ["ledger/row_counts.py"], id="the counters of rows"),
        pytest.param(r"\.(?:duplicates|damaged|alike) \+", [], id="how they are added"),
        pytest.param(
            r"\bspelt\(\s*\n?\s*[\"']\[0-9a-f\]", ["ledger/values.py"], id="how a digest in a document is judged"
        ),
        pytest.param(r"kind.model_validate\(fields\)", ["ledger/bodies.py"], id="how a document is read"),
        pytest.param(r"startswith\(context\.keys\.data\)", ["ledger/data.py"], id="what may be read as a data file"),
        pytest.param(
            r"\b(?:import|from) (?:subprocess|multiprocessing|pty)\b|ProcessPoolExecutor|create_subprocess|PDEATHSIG"
            r"|\bos\.(?:fork|forkpty|posix_spawnp?|popen|system|(?:spawn|exec)[lv]\w*)\(",
            # The sample's shop outlives who began it, and its loop types commands as a person does.
            ["cli/sample.py", "cli/sample_loop.py", "process/child.py", "process/life.py"],
            id="how a process begins, and dies with its parent",
        ),
        pytest.param("Hathi ignores and keeps", ["errors.py"], id="what Hathi does with what it cannot read"),
        pytest.param("says how to repair it", ["errors.py"], id="where it is said how to repair that"),
        pytest.param(r"[\"']ESTOP or a signal[\"']", ["errors.py"], id="what a stop at a safe point says"),
        pytest.param("against_host=", ["records.py"], id="which reasons speak against a host"),
        pytest.param(
            r"scripts/[\w-]+\.(?:sh|py)|run-all\.sh|pip install", ["process/installed.py"], id="what a package lacks"
        ),
    ],
)
def test_a_fact_has_one_home(literal: str, homes: list[str]) -> None:
    assert sorted(name for name, text in MODULES.items() if re.search(literal, text)) == homes


@pytest.mark.parametrize("name", ["[\"'](?:features|failures)/", "(?:features|failures)/part-", "cnn_features"])
def test_what_the_files_of_a_delivery_are_called_stands_in_one_module(name: str) -> None:
    assert {module for module, text in MODULES.items() if re.search(name, text)} <= {"codec/delivered/forms.py"}


def test_a_set_may_name_each_form_of_features_that_there_is() -> None:
    assert sorted(get_args(get_args(FeatureSet.model_fields["formats"].annotation)[0])) == sorted(FORMATS)


def test_each_scheme_of_hdfs_is_spoken_in_some_way() -> None:
    assert sorted(SCHEMES) == sorted(HDFS.schemes)
