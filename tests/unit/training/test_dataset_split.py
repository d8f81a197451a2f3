"""Joining labels with images, and sides: laws that hold for whatever is thrown at them."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import LawBroken
from pipeline.training.dataset.joining import NONE, RULES, UNNAMED, Rows, join
from pipeline.training.dataset.law import law_of, table_of
from pipeline.training.dataset.splitting import Pictures, divide, grouped, parts

ROW = st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 5, 2**64 - 1]), st.integers(-1, 2))
ITEM = st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 5, 7, 2**64 - 1]))


def rows(cells: list[tuple[int, int, int]]) -> Rows:
    return Rows(
        np.array([one[0] for one in cells], np.int64),
        np.array([one[1] for one in cells], np.uint64),
        np.array([one[2] for one in cells], np.int32),
        np.full(len(cells), NONE, np.int32),
    )


def says(labels: list[int], rule: str) -> int | None:
    """The label of an item by the rule, from its rows in order; None where none is said."""
    said = [label for label in labels if label != NONE]
    if not said or (rule in ("refuse", "leave-out") and len(set(said)) > 1):
        return None
    return said[-1] if rule == "last" else said[0]


@settings(max_examples=300, deadline=None)
@given(
    table=st.lists(ROW, max_size=30),
    before=st.dictionaries(ITEM, st.integers(0, 2), max_size=6),
    images=st.sets(ITEM, max_size=10),
    rule=st.sampled_from(RULES),
)
def test_every_row_ends_as_one_thing_and_each_item_has_the_label_that_the_rule_gives(
    table: list[tuple[int, int, int]], before: dict[tuple[int, int], int], images: set[tuple[int, int]], rule: str
) -> None:
    old = [(*item, label) for item, label in before.items()]
    shown = sorted(images)
    found = join(rows(table + old), rows([(*item, NONE) for item in shown]), rule, len(old))
    without = sum(found.without_label.values())
    total = len(table) + len(old) + found.without_label.get(UNNAMED, 0)
    law = law_of(total, found.examples, {"x": len(found.without_image)}, found.without_label, found.duplicates)
    assert law.rows == law.examples + len(found.without_image) + without + law.duplicates
    of_item: dict[tuple[int, int], list[int]] = defaultdict(list)
    for partner, item, label in table:
        of_item[partner, item].append(label)
    wanted = {}
    for item in {*of_item, *before}:
        label = says(of_item[item], rule)
        wanted[item] = before.get(item) if label is None else label
    for item, label in zip(shown, found.labels.tolist(), strict=True):
        assert label == (NONE if wanted.get(item) is None else wanted[item])
    lacking = [(table + old)[row][:2] for row in found.without_image.tolist()]
    assert sorted(lacking) == sorted(item for item, label in wanted.items() if label is not None and item not in images)
    differ = [item for item, labels in of_item.items() if len({*labels} - {NONE}) > 1]
    assert found.differing == len(differ)
    assert bool(found.two) == (rule == "refuse" and bool(differ))


def test_a_law_that_does_not_hold_is_a_bug_that_is_said() -> None:
    with pytest.raises(LawBroken, match="lost rows"):
        law_of(5, 2, {"http_4xx": 1}, {}, 1)
    told = dict(table_of(law_of(9, 2, {"http_4xx": 1, "decode": 2}, {"no row": 3}, 1)))
    assert told == {"rows": 9, "examples": 2, "without image": 3, "  decode": 2, "  http_4xx": 1,
                    "without label": 3, "  no row": 3, "duplicates": 1}  # fmt: skip


def pictures(
    content: list[int], labels: list[int], sides: list[int] | None = None, fixed: list[bool] | None = None
) -> Pictures:
    many = len(content)
    return Pictures(
        np.array(content, np.uint64),
        np.array([one // 2 for one in content], np.uint64),  # two contents may be one picture
        np.array(labels, np.int32),
        np.array(sides or [NONE] * many, np.int32),
        np.array(fixed or [False] * many, np.bool_),
    )


EXAMPLE = st.tuples(st.integers(0, 40), st.integers(0, 3), st.integers(-1, 2), st.booleans())


@settings(max_examples=300, deadline=None)
@given(
    examples=st.lists(EXAMPLE, max_size=60),
    shares=st.sampled_from([[80, 10, 10], [1, 1, 1], [0, 1, 0], [7, 3, 5]]),
    seed=st.integers(0, 2**63 - 1),
    by_content=st.booleans(),
    mix=st.randoms(use_true_random=False),
)
def test_equal_pictures_stand_on_one_side_whatever_is_wished_and_in_whatever_order_they_come(
    examples: list[tuple[int, int, int, bool]], shares: list[int], seed: int, by_content: bool, mix: object
) -> None:
    def divided(some: list[tuple[int, int, int, bool]]) -> list[int]:
        columns = [list(column) for column in zip(*some, strict=True)] or [[], [], [], []]
        given_ = pictures(*columns)  # type: ignore[arg-type]
        return divide(given_, shares, seed, by_content=by_content).sides.tolist()

    found = divided(examples)
    assert all(0 <= side < len(shares) for side in found)
    of_group = defaultdict(set)
    columns = [list(column) for column in zip(*examples, strict=True)] or [[], [], [], []]
    for group, side in zip(grouped(pictures(*columns).content, pictures(*columns).value).tolist(), found, strict=True):  # type: ignore[arg-type]
        of_group[group].add(side)
    assert all(len(sides) == 1 for sides in of_group.values())
    shuffled = list(range(len(examples)))
    mix.shuffle(shuffled)  # type: ignore[attr-defined]
    again = divided([examples[at] for at in shuffled])
    assert [again[shuffled.index(at)] for at in range(len(examples))] == found


@settings(max_examples=100, deadline=None)
@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=6), seed=st.integers(0, 2**63 - 1))
def test_each_class_has_its_shares_exactly_and_a_single_example_is_trained_with(counts: list[int], seed: int) -> None:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    content = [10 * at for at in range(len(labels))]
    found = divide(pictures(content, labels), [80, 10, 10], seed)
    for label, count in enumerate(counts):
        have = Counter(side for side, of in zip(found.sides.tolist(), labels, strict=True) if of == label)
        first = parts(count, [80, 10, 10]).tolist()  # validation and test may be equally far from their shares
        assert [have[side] for side in range(3)] in (first, [first[0], first[2], first[1]])
    assert parts(1, [80, 10, 10]).tolist() == [1, 0, 0]
    assert parts(10, [1, 1, 1]).tolist() == [4, 3, 3]


def test_many_small_classes_leave_no_side_empty() -> None:
    labels = [label for label in range(200) for _ in range(5)]
    found = divide(pictures([10 * at for at in range(1000)], labels), [80, 10, 10], 0)
    assert Counter(found.sides.tolist()) == {0: 800, 1: 100, 2: 100}
    alone = divide(pictures([10 * at for at in range(50)], list(range(50))), [50, 50], 0)
    assert Counter(alone.sides.tolist()) == {0: 50}, "a class that no net is trained with"


@settings(max_examples=100, deadline=None)
@given(
    first=st.lists(st.integers(0, 10_000), min_size=5, max_size=80, unique=True),
    more=st.lists(st.integers(0, 10_000), max_size=80, unique=True),
    seed=st.integers(0, 1000),
    by_content=st.booleans(),
)
def test_what_stood_on_a_side_stays_there_when_more_comes(
    first: list[int], more: list[int], seed: int, by_content: bool
) -> None:
    shares = [70, 30]
    sides = divide(pictures(first, [at % 3 for at in first]), shares, seed, by_content=by_content).sides.tolist()
    both = first + [one for one in more if one not in first]
    fixed = [True] * len(first) + [False] * (len(both) - len(first))
    given_ = pictures(both, [at % 3 for at in both], sides + [NONE] * (len(both) - len(first)), fixed)
    found = divide(given_, shares, seed + 1, by_content=by_content)
    held: dict[int, set[int]] = defaultdict(set)
    for picture, side in zip(first, sides, strict=True):
        held[picture // 2].add(side)
    for picture, side in zip(first, found.sides.tolist(), strict=False):
        assert side in held[picture // 2]
    assert found.moved == 0


def test_shares_of_a_class_are_met_though_some_of_it_stood_on_one_side_before() -> None:
    content = [10 * at for at in range(100)]
    sides = [0] * 40 + [NONE] * 60
    found = divide(pictures(content, [0] * 100, sides, [True] * 40 + [False] * 60), [50, 50], 3)
    assert Counter(found.sides.tolist()) == {0: 50, 1: 50}
    other = divide(pictures(content, [0] * 100, sides, [True] * 40 + [False] * 60), [50, 50], 4)
    assert other.sides.tolist() != found.sides.tolist(), "the seed decides nothing"
    assert other.ranks.tolist() != found.ranks.tolist()
