"""One order of sums: whoever computes which part, and whatever comes first, the bits are the same."""

from __future__ import annotations

import random
import weakref

import numpy as np
import pytest

from pipeline.training import tree


def _leaves(shards: int) -> list[list[np.ndarray]]:
    draws = np.random.default_rng(shards)
    scales = 10.0 ** draws.integers(-6, 7, shards)
    return [
        [np.array(draws.standard_normal(shape) * scale, np.float32) for shape in ((3, 5), (7,), ())] for scale in scales
    ]


def _given(leaves: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    return [[one.copy() for one in leaf] for leaf in leaves]


def test_eight_shards_are_summed_in_the_order_that_is_written_down() -> None:
    a = [leaf[0] for leaf in _leaves(8)]
    expected = ((a[0] + a[1]) + (a[2] + a[3])) + ((a[4] + a[5]) + (a[6] + a[7]))
    found = tree.total(range(8), _given([[one] for one in a]).__getitem__)
    assert found[0].tobytes() == expected.tobytes()
    in_a_row = sum(a[1:], start=a[0])
    assert in_a_row.tobytes() != expected.tobytes(), "these numbers do not show an order"


@pytest.mark.parametrize("shards", [1, 2, 3, 5, 8, 12, 13])
def test_any_number_of_workers_in_any_order_of_arrival_gives_the_same_bits(shards: int) -> None:
    leaves = _leaves(shards)
    whole = [one.tobytes() for one in tree.total(range(shards), _given(leaves).__getitem__)]
    for workers in range(1, shards + 1):
        cut = tree.blocks(shards, workers)
        assert len(cut) == workers
        assert [number for block in cut for number in block] == list(range(shards))
        for seed in range(5):
            arrived = {block: tree.total(block, _given(leaves).__getitem__) for block in cut}
            order = random.Random(seed).sample(cut, workers)
            parts: dict[range, tree.Arrays] = {}
            for block in order:
                parts[block] = arrived[block]
                tree.join(shards, parts)
            assert list(parts) == [range(shards)]
            assert [one.tobytes() for one in parts[range(shards)]] == whole


def test_what_is_not_there_yet_is_not_summed() -> None:
    leaves = _given(_leaves(8))
    parts: dict[range, tree.Arrays] = {range(0, 2): leaves[0], range(4, 8): leaves[4], range(3, 4): leaves[3]}
    tree.join(8, parts)
    assert set(parts) == {range(0, 2), range(4, 8), range(3, 4)}


def test_no_worker_has_more_than_twice_the_shards_of_another_where_the_shards_are_a_power_of_two() -> None:
    for shards in (2, 4, 8, 16, 32):
        for workers in range(1, shards + 1):
            sizes = [len(block) for block in tree.blocks(shards, workers)]
            assert max(sizes) <= 2 * min(sizes)
    assert [len(block) for block in tree.blocks(8, 3)] == [2, 2, 4]


def test_the_sum_lies_in_the_arrays_of_the_first_shard_and_few_are_kept() -> None:
    made: list[weakref.ref[np.ndarray]] = []
    asked, most = [], 0

    def value(number: int) -> list[np.ndarray]:
        nonlocal most
        values = np.full(4, number, np.float32)
        made.append(weakref.ref(values))
        asked.append(number)
        most = max(most, sum(one() is not None for one in made))
        return [values]

    found = tree.total(range(8), value)
    assert asked == list(range(8))
    assert [one() is not None for one in made] == [True] + [False] * 7
    assert made[0]() is found[0]
    assert found[0].tolist() == [28.0] * 4
    assert most == 4


@pytest.mark.parametrize(("shards", "workers"), [(4, 5), (4, 0), (0, 0)])
def test_more_workers_than_shards_are_no_cut(shards: int, workers: int) -> None:
    with pytest.raises(ValueError, match="workers for"):
        tree.blocks(shards, workers)


def test_arrays_of_other_numbers_are_not_summed() -> None:
    with pytest.raises(ValueError, match="shorter"):
        tree.total(range(2), lambda number: [np.zeros(2, np.float32)] * (2 - number))
