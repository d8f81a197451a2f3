"""What the service decides without a database: states, names, cursors, turns, limits, times."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.service import cursors, eta, fairness, ids, quotas, states, words
from pipeline.service.fairness import Queued, Standing
from pipeline.service.ids import Kind, new_id
from pipeline.service.keys import TenantKeys
from pipeline.service.quotas import Quotas
from pipeline.service.words import Role, State

KEY = b"k" * 32


@pytest.mark.parametrize("happening", sorted(states.MOVES))
def test_nothing_leaves_a_last_state_and_nothing_comes_back_to_waiting(happening: str) -> None:
    for before, after in itertools.product(State, State):
        if states.may(happening, before, after):
            assert before not in states.TERMINAL
            assert after is not State.WAITING


def test_every_state_is_reached_and_every_open_one_can_be_left() -> None:
    moves = {move for found in states.MOVES.values() for move in found}
    assert {after for _, after in moves} | {State.WAITING} == set(State)
    assert {before for before, after in moves if before is not after} == set(State) - states.TERMINAL


def test_each_state_and_reason_in_the_tables_is_one_of_the_words() -> None:
    sql = Path(words.__file__).with_name("database").joinpath("migrations/0001.sql").read_text()
    states_of, roles = (", ".join(f"'{one}'" for one in kind) for kind in (State, Role))
    assert f"check (state in ({states_of}))" in sql
    assert sql.count(f"check (role in ({roles}))") == 2


def test_names_sort_by_age_and_are_never_the_same() -> None:
    made = [new_id(Kind.TRAINING_JOB, now) for now in (0.0, 1.0, 1.7e9, 1.7e9 + 0.001, 2**48 / 1000 - 1)]
    assert made == sorted(made)
    assert len({new_id(Kind.SOLVER, 1.0) for _ in range(1000)}) == 1000
    assert all(ids.is_id(one) and len(one) == 29 for one in made)
    for wrong in ("", "tj_", made[0].upper(), made[0] + "0", made[0].replace("_", "-"), "tj_" + "8" * 26, "../x"):
        assert not ids.is_id(wrong)


@given(place=st.lists(st.one_of(st.text(max_size=9), st.integers(0, 2**40)), max_size=3))
@settings(max_examples=50, deadline=None)
def test_a_cursor_comes_back_for_its_own_tenant_and_list_alone(place: list[str | int | float]) -> None:
    text = cursors.written(KEY, "te_a", "jobs", place)
    assert cursors.read(KEY, "te_a", "jobs", text) == place
    assert cursors.read(KEY, "te_b", "jobs", text) is None
    assert cursors.read(KEY, "te_a", "jobs?state=failed", text) is None
    assert cursors.read(b"x" * 32, "te_a", "jobs", text) is None
    for at in range(0, len(text), 7):
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        assert cursors.read(KEY, "te_a", "jobs", changed) in (None, place), "the last letter has bits that say nothing"


def test_a_place_that_no_cursor_holds_is_refused_before_somebody_gets_it() -> None:
    with pytest.raises(ValueError, match="512"):
        cursors.written(KEY, "te_a", "jobs", ["\x1f" * 20] * 3)


@pytest.mark.parametrize("text", ["", "x", "=", "ä", "A" * 22, "A" * 2000, "....", "e30"])
def test_what_is_no_cursor_is_none(text: str) -> None:
    assert cursors.read(KEY, "te_a", "jobs", text) is None


def test_turns_go_to_who_runs_least_for_its_weight_and_then_to_who_waited_longest() -> None:
    waits = [Queued("a", "a1", 0, 1), Queued("b", "b1", 0, 9), Queued("b", "b2", 5, 10)]
    rule = fairness.next_of
    assert rule(waits, [Standing("a", 1, 1, 9), Standing("b", 0, 1, 9)]) == waits[2], "the greater priority"
    assert rule(waits, [Standing("a", 0, 1, 9), Standing("b", 1, 1, 9)]) == waits[0], "no priority over tenants"
    assert rule(waits, [Standing("a", 1, 1, 9), Standing("b", 2, 3, 9)]) == waits[2], "two of weight 3 are less"
    assert rule(waits, [Standing("a", 1, 1, 9, 5.0), Standing("b", 1, 1, 9, 4.0)]) == waits[2]
    assert rule(waits, [Standing("a", 1, 1, 1), Standing("b", 1, 1, 1)]) is None, "both at their limit"
    assert rule([], [Standing("a", 0, 1, 9)]) is None


def test_one_job_beside_five_thousand_begins_within_a_turn() -> None:
    waits = [Queued("big", f"b{n}", 9, n) for n in range(500)] + [Queued("small", "s", 0, 9999)]
    order = fairness.order_of(waits, [Standing("big", 3, 1, 9, 50.0), Standing("small", 0, 1, 9)], 100.0)
    assert order[0].id == "s"
    assert len(order) == 501


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_shares_follow_the_weights_while_all_have_work(seed: int) -> None:
    chance = random.Random(seed)
    weights = {name: chance.choice([1, 2, 3]) for name in "abcd"}
    waits = [Queued(name, f"{name}{n}", 0, n) for name in weights for n in range(200)]
    order = fairness.order_of(waits, [Standing(name, 0, w, 1) for name, w in weights.items()], 0.0)
    first = [one.tenant for one in order[:100]]
    for name, weight in weights.items():
        assert abs(first.count(name) - 100 * weight / sum(weights.values())) <= 2


def test_a_limit_is_named_with_what_is_used_and_what_is_allowed() -> None:
    some = Quotas.of({"queued": 3})
    assert quotas.judge(some, "queued", 2) is None
    told = quotas.judge(some, "queued", 3, frees=4.0)
    assert told == quotas.Exceeded("queued", 3, 3, 4.0)
    for wrong in ({"nonsense": 1}, {"queued": -1}, {"queued": True}, {"queued": "3"}):
        with pytest.raises(ValueError, match=r"limit"):
            Quotas.of(wrong)  # type: ignore[arg-type]


def test_no_time_is_told_before_ten_iterations_and_a_resumed_training_is_measured_anew() -> None:
    pace = eta.Pace(0, 0.0)
    for iteration in range(1, 10):
        pace = eta.moved(pace, iteration, iteration * 2.0)
        assert eta.seconds_left(pace, 100) is None
    pace = eta.moved(pace, 10, 20.0)
    assert eta.seconds_left(pace, 100) == pytest.approx(180.0)
    assert eta.seconds_left(eta.moved(pace, 10, 25.0), 100) == pytest.approx(180.0), "no iteration, no news"
    assert eta.seconds_left(eta.moved(pace, 5, 30.0), 100) is None
    assert eta.seconds_left(pace, 5) == 0.0


def test_each_key_of_a_tenant_begins_with_its_own_name_and_nothing_else_is_a_tenant() -> None:
    tenant, job = new_id(Kind.TENANT, 1.0), new_id(Kind.TRAINING_JOB, 1.0)
    keys = TenantKeys(tenant)
    made = [
        keys.chunk_of_upload(new_id(Kind.DATAFILE, 1.0), 0, "n"),
        keys.attempt(job, 1),
        keys.chunk(job, 1, "log", 3),
        keys.snapshot(job, 2, 10, "net.caffemodel"),
    ]
    assert all(key.startswith(f"s/{tenant}/") for key in made)
    assert keys.snapshot(job, 1, 10, "x") != keys.snapshot(job, 2, 10, "x"), "another attempt, another key"
    for wrong in ("", "..", "te_x/../y", "te_"):
        with pytest.raises(ValueError, match="no name"):
            TenantKeys(wrong)
        with pytest.raises(ValueError, match="no name"):
            keys.attempt(wrong, 1)
    for wrong in ("a/b", "../x", ".x"):
        with pytest.raises(ValueError, match="no name"):
            keys.snapshot(job, 1, 1, wrong)


def test_a_role_covers_those_before_it() -> None:
    assert Role.ADMIN.covers(Role.VIEWER)
    assert Role.MEMBER.covers(Role.MEMBER)
    assert not Role.MEMBER.covers(Role.OPERATOR)
