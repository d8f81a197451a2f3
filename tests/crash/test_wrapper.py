"""The one wrapper: the same faults do the same to folders and to the simulation's memory.

Those that kill and freeze are proved on processes (test_commit_points, test_two_of_everything).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from pipeline.errors import PermanentError, PipelineError, TemporaryError, Unknown
from pipeline.stores.local import LocalStore
from pipeline.stores.store import Lake
from tests.faults.faults import Fault, Faults, decoded, encoded
from tests.faults.gate import Gated
from tests.simulation.memory import Disk, MemoryStore

Make = Callable[[Fault], Lake]


@pytest.fixture(params=["folders", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """A store with `a` and `b` in it, behind one fault."""
    disk = Disk(time.time)
    plain = MemoryStore(disk) if request.param == "memory" else LocalStore(tmp_path / "store", fsync=False)
    for key in ("a", "b"):
        plain.put(key, b"content")

    def behind(fault: Fault) -> Lake:
        if request.param == "memory":
            return cast(Lake, MemoryStore(disk, Faults([fault])))
        return cast(Lake, Gated(plain, Faults([fault])))

    return behind


def keys(store: Lake) -> list[str]:
    return [entry.key for entry in store.list("")]


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("refused", TemporaryError), ("slow down", TemporaryError), ("expired", PermanentError),
        ("full", TemporaryError), ("read only", PermanentError), ("too many files", TemporaryError),
    ],
)  # fmt: skip
def test_an_error_before_the_effect_leaves_everything_and_has_a_remedy(
    make: Make, how: str, kind: type[PipelineError]
) -> None:
    store = make(Fault(how, verbs="put_new"))
    with pytest.raises(kind) as caught:
        store.put_new("c", b"new")
    assert caught.value.hint
    assert keys(store) == ["a", "b"]
    store.put_new("c", b"new")
    assert keys(store) == ["a", "b", "c"]


def test_a_lost_answer_leaves_the_effect_and_is_unknown_where_it_is_judged(make: Make) -> None:
    store = make(Fault("answer lost", times=0, verbs="put|put_new|rename_new"))
    with pytest.raises(Unknown):
        store.put_new("c", b"new")
    with pytest.raises(Unknown):
        store.put_new("c", b"other")
    with pytest.raises(Unknown):
        store.rename_new("a", "d")
    with pytest.raises(TemporaryError) as caught:
        store.put("b", b"changed")
    assert not isinstance(caught.value, Unknown)
    assert keys(store) == ["b", "c", "d"]
    assert (store.get("b"), store.get("c")) == (b"changed", b"new")


def test_what_is_read_comes_out_shorter_or_with_one_bit_changed(make: Make) -> None:
    store = make(Fault("truncated", verbs="get|open", times=2))
    assert store.get("a") == b"con"
    with store.open("a") as stream:
        assert stream.read() == b"con"
    assert store.get("a") == b"content"
    flipped = make(Fault("flipped", verbs="get")).get("a")
    assert sum((x ^ y).bit_count() for x, y in zip(flipped, b"content", strict=True)) == 1


def test_lists_lag_and_break_off(make: Make) -> None:
    assert keys(make(Fault("lagging", verbs="list", seconds=3600.0))) == []
    assert keys(make(Fault("lagging", verbs="list", seconds=-3600.0))) == ["a", "b"]
    found = []
    with pytest.raises(TemporaryError):
        found.extend(entry.key for entry in make(Fault("broken off", verbs="list")).list(""))


def test_slow_answers_take_the_time_of_the_clock_that_is_handed_in(make: Make) -> None:
    slept: list[float] = []
    faults = Faults([Fault("slow", seconds=30.0, every=2, times=0)], sleep=slept.append)
    store = Gated(make(Fault("slow", verbs="none")), faults)
    assert [store.get("a") for _ in range(4)] == [b"content"] * 4
    assert slept == [30.0, 30.0]


def test_a_fault_strikes_the_calls_that_it_names(tmp_path: Path) -> None:
    fault = Fault("refused", "get", "^x/", first=2, times=2, every=3)
    assert [number for number in range(1, 12) if fault.strikes(number)] == [2, 5]
    assert (fault.matches("get", "x/1"), fault.matches("get", "y/x/1"), fault.matches("get_all", "x/1")) == (
        True, False, False,
    )  # fmt: skip
    assert decoded(encoded([fault])) == [fault]
    there = Faults([Fault("refused", times=0, while_there=str(tmp_path / "flag"))])
    assert there("get", "a", lambda: 1) == 1
    (tmp_path / "flag").touch()
    with pytest.raises(TemporaryError):
        there("get", "a", lambda: 1)
