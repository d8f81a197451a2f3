"""Counted things, sizes and lengths of time: one place words them, and each sentence takes them from there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.amounts import counted, length_of_time, size

PIPELINE = Path(__file__).parents[2] / "pipeline"
NOUNS = "shipment|ref|row|feature|failure|duplicate|file|object|item|image|partner|folder|attempt|hint|table"
BARE = re.compile(r"\{(?!counted\(|size\()[^{}]*\} (?:(?:" + NOUNS + r")s|batches|deliveries)\b(?!/)")
"""A number that is put before a noun in the plural by hand: `1 shipments`."""
ROOMS = ("stages", "ledger", "app", "cli", "analysis", "operations")
ARITHMETIC = re.compile(r"\+ \{|\{_?[A-Z_]+\b|(?:its|of) \{|\{self\.\w+\} \w+ \+|, but \{")
"""The terms of a sum that does not add up, and limits, which are many."""


def test_a_counted_noun_is_singular_for_one_alone() -> None:
    assert [counted(number, "shipment") for number in (0, 1, 2, 3200)] == [
        "0 shipments", "1 shipment", "2 shipments", "3,200 shipments",
    ]  # fmt: skip
    assert [counted(number, "batch", "batches") for number in (1, 2)] == ["1 batch", "2 batches"]


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1 kB"), (999_999, "999 kB"), (3_400_000, "3 MB"),
     (2_429_000_000, "2429 MB"), (12_500_000_000, "12.5 GB")],
)  # fmt: skip
def test_a_size_has_the_unit_in_which_something_is_left_of_it(number: int, said: str) -> None:
    assert size(number) == said


def test_a_few_minutes_are_not_a_tenth_of_an_hour() -> None:
    assert [length_of_time(one) for one in (0, 59, 60, 3600 * 5 + 600, 86400 * 3 + 3600 * 4)] == [
        "0 s", "59 s", "1 min", "5 h 10 min", "3 d 4 h",
    ]  # fmt: skip


@pytest.mark.parametrize("room", ROOMS)
def test_no_sentence_puts_a_number_before_a_plural_by_hand(room: str) -> None:
    found = [
        f"{path.relative_to(PIPELINE)}: {line.strip()}"
        for path in sorted((PIPELINE / room).rglob("*.py"))
        for line in path.read_text().splitlines()
        if BARE.search(line) and not ARITHMETIC.search(line) and '"""' not in line
    ]
    assert found == []


def test_the_rule_sees_what_it_is_for() -> None:
    assert BARE.search('f"{n} shipments wait"')
    assert BARE.search('f"{tally.refs:,} refs"')
    assert not BARE.search("f\"{counted(n, 'shipment')} wait\"")
