"""Where the arrays of a barista's memory lie: none over another, and none beyond what a customer maps."""

from __future__ import annotations

import itertools
import json
import mmap
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from pipeline.barista import layout, memory
from pipeline.barista.layout import Array, Layout, Net
from pipeline.errors import FormatError

names = some.text("ab/1 é", max_size=3)
shapes = some.dictionaries(names, some.lists(some.integers(0, 40), max_size=3).map(tuple), max_size=5)
nets = some.builds(Net, parameters=shapes, histories=some.integers(0, 2), data=shapes, blobs=shapes)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(nets, some.integers(1, 20))
def test_no_array_lies_over_another_and_each_slot_begins_a_page(net: Net, slots: int) -> None:
    plan = layout.plan(net, slots)
    taken = [(0, len(plan.as_json()))]
    taken += [(one.offset, one.offset + one.size) for one in (*plan.parameters, *plan.history)]
    taken += [
        (plan.begin(slot) + one.offset, plan.begin(slot) + one.offset + one.size)
        for slot in range(slots)
        for arrays in plan.slot.values()
        for one in arrays
    ]
    taken = sorted(one for one in taken if one[0] < one[1])
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(taken))
    assert taken[-1][1] <= plan.size
    assert all(plan.begin(slot) % mmap.PAGESIZE == 0 for slot in range(slots))
    assert all(one.offset % 64 == 0 for one in (*plan.parameters, *plan.history))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(nets, some.integers(1, 20))
def test_a_customer_reads_the_layout_that_was_planned(net: Net, slots: int) -> None:
    plan = layout.plan(net, slots)
    assert layout.read(plan.as_json(), plan.size) == plan
    with pytest.raises(FormatError, match="smaller than its layout"):
        layout.read(plan.as_json(), plan.size - 1)


def _damaged(change: Callable[[dict[str, Any]], object]) -> bytes:
    body = json.loads(PLAN.as_json())
    change(body)
    return json.dumps(body).encode()


PLAN = layout.plan(Net({"ip/0": (2, 4)}, 1, {"data": (6, 4)}, {"ip": (6, 2)}), 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "cannot be read"),
        (b"[]", "cannot be read"),
        (_damaged(lambda body: body.pop("slot")), "cannot be read"),
        (_damaged(lambda body: body["parameters"][0].__setitem__(1, "0")), "cannot be read"),
        (_damaged(lambda body: body["parameters"][0].__setitem__(2, [2, 4.5])), "cannot be read"),
        (_damaged(lambda body: body.update(stride=-4096)), "cannot be read"),
        (_damaged(lambda body: body["parameters"][0].__setitem__(1, -64)), "damaged"),
        (_damaged(lambda body: body["parameters"][0].__setitem__(1, PLAN.first)), "damaged"),
        (_damaged(lambda body: body["slot"]["data"][0].__setitem__(2, [6, 1 << 40])), "damaged"),
        (_damaged(lambda body: body.update(slots=3)), "smaller than its layout"),
        (_damaged(lambda body: body.update(format=2)), "another version of Hathi"),
    ],
)
def test_a_layout_that_leads_beyond_the_memory_or_is_another_hathis_is_named(text: bytes, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        layout.read(text, PLAN.size)


def test_memory_keeps_its_size_whoever_has_it_and_has_no_name() -> None:
    before = set(os.listdir("/dev/shm"))
    handle = memory.made(1 << 20)
    try:
        assert memory.checked(handle) == 1 << 20
        for size in (0, 1 << 21):
            with pytest.raises(PermissionError):
                os.ftruncate(handle, size)
        assert os.readlink(f"/proc/self/fd/{handle}").startswith(f"/memfd:{memory.NAME}")
        assert not [name for name in set(os.listdir("/dev/shm")) - before if "barista" in name]
    finally:
        os.close(handle)


def test_memory_that_its_holder_could_take_away_is_refused() -> None:
    handle = os.memfd_create("theirs", os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(handle, 4096)
        with pytest.raises(FormatError, match="not sealed"):
            memory.checked(handle)
    finally:
        os.close(handle)
    hear, tell = os.pipe()
    try:
        with pytest.raises(FormatError, match="no memory"):
            memory.checked(hear)
    finally:
        os.close(hear)
        os.close(tell)


def test_what_a_slot_held_is_zeros_for_the_next_one_and_costs_nothing_meanwhile() -> None:
    plan: Layout = layout.plan(Net({"w": (4,)}, 1, {"data": (1 << 18,)}, {}), 2)
    handle = memory.made(plan.size)
    try:
        whole = memory.whole(handle, plan)
        (data,) = plan.slot["data"]
        mine, theirs = (whole.array(data, plan.begin(slot)) for slot in (0, 1))
        mine[...], theirs[...] = 1, 2
        filled = os.fstat(handle).st_blocks
        whole.forget(plan.begin(0), plan.stride)
        assert os.fstat(handle).st_blocks * 512 <= filled * 512 - data.size
        assert not mine.any()
        assert (theirs == 2).all()
    finally:
        os.close(handle)


def test_a_customer_cannot_write_what_it_shares() -> None:
    handle = memory.made(PLAN.size)
    try:
        memory.whole(handle, PLAN)
        shared = memory.Mapped(handle, 0, PLAN.first, write=False)
        array = shared.array(Array("ip/0", PLAN.parameters[0].offset, (2, 4)))
        with pytest.raises(ValueError, match="read-only"):
            array[...] = np.float32(1)
    finally:
        os.close(handle)
