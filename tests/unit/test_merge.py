from __future__ import annotations

import gzip
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from pipeline.codec import image_refs
from pipeline.codec.delivered import merge as merge_module
from pipeline.codec.delivered.merge import Merged, MergeInput, Output, merge
from pipeline.codec.delivered.merge_plan import Winners, choose
from pipeline.codec.shards import FailureRow, FeatureRow, write_failures, write_features
from pipeline.errors import FormatError, LawBroken
from pipeline.process.redaction import redact_query
from pipeline.records import MAX_ITEM_ID, ImageRef, normalise_external_id, signed
from tests.unit.codec.rows import failure, feature

DIM = 3


@dataclass(frozen=True)
class Batch:
    """What a batch yields, before it is written."""

    features: tuple[FeatureRow, ...] = ()
    failures: tuple[FailureRow, ...] = ()
    held: tuple[ImageRef, ...] = ()


def vector(ordinal: int) -> list[float]:
    return [ordinal / 1000, 0.5, -0.25]


def shards(batches: Sequence[Batch], folder: Path) -> list[MergeInput]:
    folder.mkdir(parents=True)
    inputs = []
    for number, batch in enumerate(batches):
        features = failures = None
        if batch.features:
            features = folder / f"{number}.features"
            write_features(features, batch.features, np.array([vector(r.ordinal) for r in batch.features], np.float32))
        if batch.failures:
            failures = folder / f"{number}.failures"
            write_failures(failures, batch.failures)
        inputs.append(MergeInput(number, features, failures, batch.held))
    return inputs


def merged(inputs: Sequence[MergeInput], folder: Path, threads: int = 0, **more: Any) -> Merged:
    options: dict[str, Any] = {
        "dim": DIM,
        "version": "20240101T000000Z",
        "fingerprint": "f" * 64,
        "formats": ["text", "parquet"],
        "redact_queries": True,
        "last_try": False,
    }
    return merge(inputs, Output(folder, **options | more), threads)


def merged_batches(batches: Sequence[Batch], tmp_path: Path, **more: Any) -> Merged:
    return merged(shards(batches, tmp_path / "in"), tmp_path / "out", **more)


# The rules once more, as plainly as they can be said.


@dataclass(frozen=True)
class Expected:
    features: list[FeatureRow]
    failures: list[FailureRow]
    carried: list[ImageRef]
    duplicates: int


def as_failure(row: FeatureRow | FailureRow) -> FailureRow:
    return FailureRow(
        row.partner_id,
        row.item_id,
        row.ordinal,
        row.external_id,
        row.url,
        "id_collision",
        False,
        "another external id has the same item id",
    )


def by_the_rules(batches: Sequence[Batch], last_try: bool) -> Expected:
    items: dict[tuple[int, int], list[FeatureRow | FailureRow]] = {}
    for number, batch in enumerate(batches):
        held = [FailureRow(r[0], r[1], r.ordinal, r[2], r[3], "held", False, f"batch {number}") for r in batch.held]
        for row in (*batch.features, *batch.failures, *held):
            items.setdefault((row.partner_id, row.item_id), []).append(row)  # type: ignore[arg-type, attr-defined]
    features: list[FeatureRow] = []
    failures: list[FailureRow] = []
    carried: list[ImageRef] = []
    duplicates = 0
    for key in sorted(items):
        rows = sorted(items[key], key=lambda row: row.ordinal)
        names: dict[str, FeatureRow | FailureRow] = {}
        for row in rows:
            names[normalise_external_id(row.external_id)] = row
        if len(set(names) - {""}) > 1:
            failures += sorted(map(as_failure, names.values()), key=lambda row: row.ordinal)
            duplicates += len(rows) - len(names)
            continue
        computed = [row for row in rows if isinstance(row, FeatureRow)]
        failed = [row for row in rows if isinstance(row, FailureRow)]
        duplicates += len(rows) - 1
        if computed:
            features.append(computed[-1])
            continue
        row = ([row for row in failed if row.retriable] or failed)[-1]
        if row.retriable and last_try:
            detail = row.detail + "; gave up after 4 tries" if row.detail else "gave up after 4 tries"
            row = replace(row, retriable=False, detail=detail)
        elif row.retriable:
            carried.append(ImageRef(row.partner_id, row.item_id, row.external_id, row.url, row.content or b"", 0))
        failures.append(row)
    return Expected(features, failures, carried, duplicates)


# What was written, read without our code.


def read_features(result: Merged) -> list[dict[str, Any]]:
    files = [file for partner in result.partners for file in partner.files if file.name.startswith("features/")]
    return [row for file in files for row in pq.read_table(file.path).to_pylist()]


def read_failures(result: Merged) -> list[dict[str, Any]]:
    files = [file for partner in result.partners for file in partner.files if file.name.startswith("failures/")]
    return [row for file in files for row in pq.read_table(file.path).to_pylist()]


def read_text(result: Merged) -> list[list[int]]:
    files = [file for partner in result.partners for file in partner.files if file.name == "cnn_features.txt.gz"]
    return [
        list(map(int, line.split())) for file in files for line in gzip.decompress(file.path.read_bytes()).splitlines()
    ]


def read_carried(result: Merged) -> list[ImageRef]:
    return [] if result.carried is None else image_refs.decode(result.carried.read_bytes())


def check(batches: Sequence[Batch], result: Merged, last_try: bool) -> None:
    expected = by_the_rules(batches, last_try)
    assert read_features(result) == [
        {
            "partner_id": row.partner_id,
            "item_id": signed(row.item_id),
            "external_id": row.external_id,
            "url": row.url,
            "content_sha256": row.content_sha256,
            "fetched_at": row.fetched_at,
            "version": "20240101T000000Z",
            "fingerprint": "f" * 64,
            "features": np.array(vector(row.ordinal), np.float32).tolist(),
            "etag": row.etag,
            "last_modified": row.last_modified,
            "reused": row.reused,
        }
        for row in expected.features
    ]
    assert read_text(result) == [
        [row.partner_id, row.item_id, *(round(1e6 * float(np.float32(value))) for value in vector(row.ordinal))]
        for row in expected.features
    ]
    assert read_failures(result) == [
        {
            "partner_id": row.partner_id,
            "item_id": signed(row.item_id),
            "external_id": row.external_id,
            "url": redact_query(row.url),
            "reason": row.reason,
            "retriable": row.retriable,
            "detail": row.detail,
            "version": "20240101T000000Z",
            "fingerprint": "f" * 64,
        }
        for row in expected.failures
    ]
    assert read_carried(result) == [ref._replace(ordinal=at) for at, ref in enumerate(expected.carried)]
    assert result.carried_refs == len(expected.carried)
    assert result.duplicates == expected.duplicates
    assert (result.features, result.failures) == (len(expected.features), len(expected.failures))
    assert result.refs == sum(len(batch.features) + len(batch.failures) + len(batch.held) for batch in batches)
    assert sum(result.reasons.values()) == result.failures
    partners = sorted({row.partner_id for row in (*expected.features, *expected.failures)})  # type: ignore[attr-defined]
    assert [partner.partner_id for partner in result.partners] == partners
    for partner in result.partners:
        for file in partner.files:
            data = file.path.read_bytes()
            assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert partner.features == sum(row.partner_id == partner.partner_id for row in expected.features)
        assert partner.failures == sum(row.partner_id == partner.partner_id for row in expected.failures)
        wanted = ["cnn_features.txt.gz", "features/part-00000.parquet"] * bool(partner.features)
        wanted += ["failures/part-00000.parquet"] * bool(partner.failures)
        assert [file.name for file in partner.files] == wanted


@st.composite
def shipments(draw: st.DrawFn) -> list[Batch]:
    """Few items with many rows each, in several batches."""
    batches = []
    ordinal = 0
    for _ in range(draw(st.integers(0, 4))):
        features: list[FeatureRow] = []
        failures: list[FailureRow] = []
        held: list[ImageRef] = []
        is_held = draw(st.booleans()) and draw(st.booleans())
        for _ in range(draw(st.integers(0, 7))):
            partner_id = draw(st.sampled_from([0, 3]))
            item_id = draw(st.sampled_from([0, 1, 2**63, MAX_ITEM_ID]))
            external_id = draw(st.sampled_from(["", "", "a", "a", "A", "%61", "b", "ü"]))
            kind = draw(st.sampled_from(["feature", "feature", "again", "final"]))
            if is_held:
                held.append(ImageRef(partner_id, item_id, external_id, f"http://a/{ordinal}", b"", ordinal))
            elif kind == "feature":
                features.append(feature(partner_id, item_id, ordinal, external_id=external_id))
            else:
                again = kind == "again"
                content = draw(st.sampled_from([None, b"image"])) if again else None
                reason = "dns" if again else "http_4xx"
                more = {"external_id": external_id, "retriable": again, "content": content, "reason": reason}
                failures.append(failure(partner_id, item_id, ordinal, detail="x" * again, **more))
            ordinal += 1
        batches.append(Batch(tuple(features), tuple(failures), tuple(held)))
    return batches


@given(shipments(), st.booleans(), st.sampled_from([1, 3]))
@settings(max_examples=200, deadline=None)
def test_each_row_ends_as_the_rules_say(
    tmp_path_factory: pytest.TempPathFactory, batches: list[Batch], last_try: bool, threads: int
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    check(batches, merged_batches(batches, folder, last_try=last_try, threads=threads), last_try)
    shutil.rmtree(folder)


def large() -> list[Batch]:
    """Row groups, chunks of a thousand rows and partners that end anywhere; every tenth item comes twice."""
    random = np.random.default_rng(11)
    batches = []
    for number in range(5):
        rows = []
        failed = []
        for at in range(700):
            ordinal = number * 1000 + at
            item_id = int(random.integers(0, 2**64, dtype=np.uint64)) if at % 10 else at
            partner_id = int(random.choice([1, 2, 2, 2, 2, 7, 9]))
            if at % 7:
                rows.append(feature(partner_id, item_id, ordinal))
            else:
                failed.append(failure(partner_id, item_id, ordinal, retriable=at % 2 == 0))
        batches.append(Batch(tuple(rows), tuple(failed)))
    return batches


def test_a_shipment_of_many_row_groups_is_merged_by_the_same_rules(tmp_path: Path) -> None:
    batches = large()
    result = merged_batches(batches, tmp_path, threads=3)
    check(batches, result, False)
    assert result.duplicates > 100


def test_the_same_shards_give_the_same_bytes_in_any_order_and_on_any_number_of_cores(tmp_path: Path) -> None:
    inputs = shards(large(), tmp_path / "in")
    results = [
        merged(inputs, tmp_path / "one", threads=1),
        merged(inputs[::-1], tmp_path / "other", threads=4),
    ]
    files = [[(f.name, f.size, f.sha256, f.rows) for p in result.partners for f in p.files] for result in results]
    assert files[0] == files[1]
    assert read_carried(results[0]) == read_carried(results[1])
    assert results[0].reasons == results[1].reasons


def test_the_formats_that_are_not_asked_for_are_not_written(tmp_path: Path) -> None:
    batches = [Batch((feature(1, 2, 0),))]
    for formats, names in (
        (["text"], ["cnn_features.txt.gz"]),
        (["parquet"], ["features/part-00000.parquet"]),
        (["libsvm"], ["cnn_features.libsvm.gz"]),
        (["libsvm", "text"], ["cnn_features.txt.gz", "cnn_features.libsvm.gz"]),
    ):
        result = merged_batches(batches, tmp_path / "-".join(formats), formats=formats)
        assert [file.name for file in result.partners[0].files] == names
        assert {path.name for path in (tmp_path / "-".join(formats) / "out").iterdir()} == {"1"}


def test_a_shipment_without_refs_has_no_partners(tmp_path: Path) -> None:
    result = merged_batches([Batch(), Batch()], tmp_path, dim=0)
    assert result == Merged((), 0, 0, 0, 0, {}, None, 0)


def test_a_query_is_kept_out_of_failures_but_goes_along_to_the_retry(tmp_path: Path) -> None:
    url = "http://a/x.jpg?signature=abc"
    rows = (failure(1, 2, 0, url=url, external_id=url, retriable=True, reason="dns"),)
    result = merged_batches([Batch(failures=rows)], tmp_path)
    (row,) = read_failures(result)
    assert (row["url"], row["external_id"]) == ("http://a/x.jpg?redacted",) * 2
    assert read_carried(result) == [ImageRef(1, 2, url, url, b"", 0)]
    (row,) = read_failures(merged_batches([Batch(failures=rows)], tmp_path / "again", redact_queries=False))
    assert (row["url"], row["external_id"]) == (url, url)


def test_the_last_try_gives_up_and_carries_nothing(tmp_path: Path) -> None:
    rows = (failure(1, 2, 0, retriable=True, reason="dns", detail=""), failure(1, 3, 1, retriable=True, detail="429"))
    result = merged_batches([Batch(failures=rows)], tmp_path, last_try=True)
    assert [(row["retriable"], row["detail"]) for row in read_failures(result)] == [
        (False, "gave up after 4 tries"),
        (False, "429; gave up after 4 tries"),
    ]
    assert (result.carried, result.carried_refs) == (None, 0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1"]


def test_a_merge_that_loses_a_row_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(*arguments: Any) -> Winners:
        winners = choose(*arguments)
        return replace(winners, features=winners.features[1:])

    monkeypatch.setattr(merge_module, "choose", forgetful)
    with pytest.raises(LawBroken, match="lost rows"):
        merged_batches([Batch((feature(1, 2, 0), feature(1, 3, 1)))], tmp_path)


def test_a_damaged_shard_stops_the_merge_and_its_threads(tmp_path: Path) -> None:
    inputs = shards(large(), tmp_path / "in")
    path = inputs[2].features
    assert path is not None
    data = bytearray(path.read_bytes())
    metadata = pq.read_metadata(path)
    start = metadata.row_group(3).column(metadata.num_columns - 1).data_page_offset
    data[start : start + 200] = b"\xff" * 200
    path.write_bytes(data)
    with pytest.raises(FormatError, match="damaged"):
        merged(inputs, tmp_path / "out", threads=3)


@pytest.mark.parametrize("formats", [["text"], ["parquet"], ["text", "parquet"]])
def test_features_of_damaged_images_are_counted_where_they_win(formats: list[str], tmp_path: Path) -> None:
    batches = [
        Batch((feature(1, 5, 0, damage="torn"), feature(1, 6, 1), feature(2, 5, 2, damage="torn"))),
        Batch((feature(1, 5, 3, damage="torn"), feature(2, 9, 4, damage="torn"))),
    ]
    assert merged(shards(batches, tmp_path / "in"), tmp_path / "out", formats=formats).damaged == 3
