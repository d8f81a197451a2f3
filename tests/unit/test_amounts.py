"""Counted things, sizes and lengths of time: one place words them, and each sentence takes them from there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from pipeline.amounts import counted, length_of_time, rounded, size

TREE = Path(__file__).parents[2]
SENTENCES = sorted(
    path for room in ("pipeline", "hathi") for path in (TREE / room).rglob("*") if path.suffix in (".py", ".jinja")
)
NOUNS = "shipment|ref|row|feature|failure|duplicate|file|object|item|image|partner|folder|attempt|hint|table"
VALUE = r"\{(?!counted\(|size\()(?![A-Z_0-9]+[:}])[^{}]*\}"
"""A value in a sentence of Python or of a template; limits, whose names are capitals, are many."""
BARE = re.compile(r"(?<!\+ )" + VALUE + r"\}? (?:(?:" + NOUNS + r")s|batches|deliveries)\b(?!/| \+)")
"""A number that is put before a noun in the plural by hand: `1 shipments`; the terms of a sum stay as they are."""


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


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0"), (882_000, "882,000"), (9_999_499, "9,999,499"), (9_999_500, "10.0 M"), (999_900_000, "999.9 M"),
     (999_960_000, "1.0 G"), (4.2e9, "4.2 G"), (999_960_000_000, "1.0 T"), (3.5e15, "3,500.0 T")],
)  # fmt: skip
def test_a_large_number_has_the_unit_in_which_something_is_left_of_it(number: float, said: str) -> None:
    assert rounded(number) == said


def test_a_few_minutes_are_not_a_tenth_of_an_hour() -> None:
    assert [length_of_time(one) for one in (0, 59, 60, 3600 * 5 + 600, 86400 * 3 + 3600 * 4)] == [
        "0 s", "59 s", "1 min", "5 h 10 min", "3 d 4 h",
    ]  # fmt: skip


def test_a_noun_that_takes_more_than_an_s_comes_with_its_plural() -> None:
    """`2 classs`, `3 entrys`."""
    calls = [
        (path.relative_to(TREE), call.args[1].value)
        for path in SENTENCES
        if path.suffix == ".py"
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "counted"
        and len(call.args) == 2
        and isinstance(call.args[1], ast.Constant)
    ]
    assert len(calls) > 100
    assert [call for call in calls if re.search("(s|x|z|ch|sh|[^aeiou]y)$", str(call[1]))] == []


def test_no_sentence_puts_a_number_before_a_plural_by_hand() -> None:
    found = [
        f"{path.relative_to(TREE)}: {line.strip()}"
        for path in SENTENCES
        for line in path.read_text().splitlines()
        if BARE.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        'f"{n} shipments wait"',
        'f"{tally.refs:,} refs"',
        'f"{failed} of {refs:,} images failed"',
        'f"none of its {end.rows:,} rows is a ref"',
        'f"{left} rows, but {terms}"',
        '"""{n} rows"""',
        "<p>{{ report.undecoded|figure }} images.",
    ],
)
def test_the_rule_sees_what_it_is_for(line: str) -> None:
    assert BARE.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "f\"{counted(n, 'shipment')} wait\"",
        'f"more than {_MOST_ITEMS} items"',
        'f"{one.features} features + {one.failures} failures"',
        'f"{size(n)} rows"',
        '{{ one.size|counted("byte") }}; {{ one.note }}',
    ],
)
def test_the_rule_leaves_alone_what_is_counted_a_limit_or_a_sum(line: str) -> None:
    assert not BARE.search(line)
