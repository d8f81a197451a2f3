"""Names derive from the source, sort by version, round, part, generation, and are read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.layout import Keys, Root, ShipmentName, Task, seconds_of, version_of

NAME = ShipmentName.of("shop", "snap", "demo", "20261120T185900Z", 2, 17, 1)

names = st.builds(
    ShipmentName,
    st.sampled_from(["20250101T000000Z", "20261120T185900Z"]),
    st.integers(0, 999),
    st.integers(0, 99_999),
    st.integers(0, 7),
    st.text("0123456789abcdef", min_size=12, max_size=12),
)


def test_a_name_is_written_with_padded_numbers() -> None:
    assert str(NAME) == f"20261120T185900Z.002.00017.1-{NAME.hash}"
    assert len(NAME.hash) == 12


@given(names)
def test_a_name_is_read_back(name: ShipmentName) -> None:
    assert ShipmentName.parse(str(name)) == name


@given(names, names)
def test_names_sort_as_their_texts_do(one: ShipmentName, other: ShipmentName) -> None:
    assert (one < other) == (str(one) < str(other))


@pytest.mark.parametrize("text", ["", "x", "20261120T185900Z.2.17.1-0123456789ab", str(NAME) + "x"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a shipment"):
        ShipmentName.parse(text)


def test_each_part_of_the_source_changes_the_hash() -> None:
    parts = ("shop", "snap", "demo", "20261120T185900Z", 2, 17, 1, "")
    hashes = {ShipmentName.of(*parts).hash}
    for at, other in enumerate(("l", "s", "d", None, 3, 18, 2, "salt")):
        if other is not None:
            changed = (*parts[:at], other, *parts[at + 1 :])
            hashes.add(ShipmentName.of(*changed).hash)  # type: ignore[arg-type]
    assert len(hashes) == 8


def test_versions_are_times() -> None:
    assert version_of(0) == "19700101T000000Z"
    assert seconds_of(version_of(1_763_664_000.9)) == 1_763_664_000
    with pytest.raises(ValueError, match="not a version"):
        seconds_of("2026")


def test_the_time_of_a_version_is_read_once_however_often_a_poll_meets_it() -> None:
    seconds_of.cache_clear()
    for _ in range(50):
        assert ShipmentName.parse(str(NAME)) == NAME
    for _ in range(2):
        with pytest.raises(ValueError, match="not a version"):
            seconds_of("20261340T000000Z")
    assert seconds_of.cache_info().hits == 49
    assert seconds_of.cache_info().maxsize, "a day's names, not all that ever were"


def test_no_key_of_a_shipment_is_the_folder_of_another() -> None:
    keys = Keys("shop")
    task = Task.batch("ab" * 32, 3)
    all_keys = [
        keys.plan(NAME), keys.end(NAME), keys.out(NAME), keys.done(NAME), keys.batch(NAME, 0),
        keys.result(NAME, "ab" * 32, 0), keys.attempt(NAME, task, 1), keys.attempt_end(NAME, task, 1),
        keys.attempt(NAME, Task("t/out"), 1), keys.shipment_data(NAME, "n", "f"), keys.open_hint("due", NAME),
        keys.held_hint(NAME, 1), keys.alive_hint("p"), keys.estop, keys.gone_hint(NAME),
    ]  # fmt: skip
    for key in all_keys:
        assert not any(other.startswith(key + "/") for other in all_keys)


def test_proposals_sort_by_version() -> None:
    root = Root("features")
    assert sorted([root.proposal(10), root.proposal(9)]) == [root.proposal(9), root.proposal(10)]
