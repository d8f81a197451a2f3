"""Shipments are read in turn: a giant delays nobody for long, and whatever the caps, what is shipped is the same."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.codec.image_refs import decode
from pipeline.ledger.bodies import body_of
from pipeline.ledger.layout import Keys, ShipmentName
from pipeline.ledger.manifest import Batch, Plan
from pipeline.ledger.protocol import Context
from pipeline.stages.loop import LakeStages
from pipeline.stages.ship import Memory
from pipeline.stages.streams import SLICE
from pipeline.stages.tally import Tally
from tests.simulation.folders import Folders
from tests.simulation.world import World, settings_of
from tests.unit.sources import HEADER

KEYS = Keys("shop")


def settings_with(**ship: Any) -> Any:
    ship = {"batch_refs": 3, "batches_per_shipment": 128, **ship}
    sources = [{"path": "refs/*", "convention": "success"}]
    return settings_of(ship=ship, lakes={"shop": {"url": "/nowhere/lake", "sources": sources}})


def world_of(tmp_path: Path, refs: dict[int, int], **ship: Any) -> World:
    """So many refs of each partner, the first ones the oldest."""
    world = World(tmp_path, settings_with(**ship))
    for partner, number in refs.items():
        put(world, partner, number)
    return world


def put(world: World, partner: int, number: int) -> None:
    lines = "".join(f"i{n},http://shop.example/ok-{n}\n" for n in range(number))
    world.put_refs(f"partner={partner}/refs.csv", "external_id,url\n" + lines)
    world.lake.write(f"refs/partner={partner}/_SUCCESS", b"")
    world.hand.at += 60


def batches(world: World) -> list[int]:
    """Whose each batch is, in the order in which they were committed."""
    plans = {
        key.split("/")[2]: body_of(Plan, content, key)
        for key, (content, _, _) in world.bucket.files.items()
        if key.endswith("/plan")
    }
    made = [(serial, key) for key, (_, _, serial) in world.bucket.files.items() if "/b/" in key]
    return [plans[key.split("/")[2]].reading.partner_id or 0 for _, key in sorted(made)]


def shipped(world: World) -> list[tuple[int, str]]:
    """(partner, external id) of every ref in the bucket that a batch names."""
    found = []
    for key, (content, _, _) in world.bucket.files.items():
        if key.startswith("shop/c/") and "/b/" in key:
            data = world.bucket.files[body_of(Batch, content, key).data.key][0]
            found += [(ref.partner_id, ref.external_id) for ref in decode(data, 0)]
    return sorted(found)


def ship_all(turns: LakeStages) -> list[Tally]:
    tallies = []
    while (tally := turns.take("ship")).worked:
        tallies.append(tally)
    return tallies


def test_a_giant_delays_the_others_by_a_bounded_number_of_batches(tmp_path: Path) -> None:
    """90 % of the refs are of partner 1, and it lags most."""
    world = world_of(tmp_path, {1: 2700, **dict.fromkeys(range(2, 12), 30)})
    world.turns().take("ship")
    order = batches(world)
    assert len(order) == 900 + 10 * 10
    assert order[0] == 1, "the most lagging begins"
    for place, partner in enumerate(range(2, 12)):
        last = len(order) - order[::-1].index(partner)
        behind = order[:last].count(1)
        assert behind <= (place // 3 + 2) * 2 * SLICE, f"{behind} batches of the giant before the last of {partner}"
    assert order.index(11) < 150


def test_parts_of_a_giant_come_behind_those_who_wait(tmp_path: Path) -> None:
    world = world_of(tmp_path, {1: 300, **dict.fromkeys(range(2, 30), 9)}, batches_per_shipment=4)
    world.turns().take("ship")
    order = batches(world)
    assert order.count(1) == 100
    last_small = max(place for place, partner in enumerate(order) if partner != 1)
    assert order[:last_small].count(1) <= 4 * (28 // 3 + 2), "a part of the giant for every few of the others"


@pytest.mark.parametrize("cap", [{"refs_per_run": 6}, {"bytes_per_run": 300}])
def test_a_small_cap_starves_nobody(tmp_path: Path, cap: dict[str, int]) -> None:
    """Each run ends after some batches: the next one begins with those that had no turn."""
    world = world_of(tmp_path, {1: 3000, 2: 12, 3: 12, 4: 12}, **cap)
    turns = world.turns()
    for _ in range(40):
        turns.take("ship")
    order = batches(world)
    assert {partner: order.count(partner) for partner in (2, 3, 4)} == {2: 4, 3: 4, 4: 4}


def test_one_group_leaves_a_quarter_of_the_open_shipments_to_the_others(tmp_path: Path) -> None:
    giant = {"path": "giant", "partner_id": 1}
    small = {"path": "small", "partner_id": 2}
    lakes = {"shop": {"url": "/nowhere/lake", "sources": [giant, small]}}
    world = World(tmp_path, settings_of(lakes=lakes, ship={"open_shipments": 8}))
    for number in range(20):
        world.lake.write(f"giant/{number:02d}.csv", b"url\nhttp://shop.example/ok-1\n")
    world.lake.folders.add("small")
    world.hand.at += 60
    turns = world.turns()
    turns.take("ship")

    def plans() -> list[int]:
        found = [body_of(Plan, c, k) for k, (c, _, _) in world.bucket.files.items() if k.endswith("/plan")]
        return sorted(plan.reading.partner_id or 0 for plan in found)

    assert plans() == [1] * 6
    turns.take("ship")
    assert plans() == [1] * 6, "not in the next run either"
    world.lake.write("small/a.csv", b"url\nhttp://shop.example/ok-1\n")
    world.hand.at += 60
    turns.take("ship")
    assert plans() == [1] * 6 + [2]


@settings(max_examples=15, deadline=None)
@given(
    refs=st.dictionaries(st.integers(1, 4), st.integers(0, 15), min_size=1),
    caps=st.fixed_dictionaries(
        {
            "refs_per_run": st.integers(1, 30),
            "bytes_per_run": st.integers(1, 4000),
            "files_per_run": st.integers(1, 4),
            "batch_refs": st.integers(1, 7),
            "batches_per_shipment": st.integers(1, 5),
            "open_shipments": st.integers(1, 8),
        }
    ),
)
def test_whatever_the_caps_each_ref_is_shipped_once(
    tmp_path_factory: pytest.TempPathFactory, refs: dict[int, int], caps: dict[str, int]
) -> None:
    world = world_of(tmp_path_factory.mktemp("caps"), refs, **caps)
    world.run()
    assert shipped(world) == sorted((p, f"i{n}") for p, number in refs.items() for n in range(number))


# Several at the same time


@dataclass
class Threaded(Folders):
    """Real folders, with threads that read shipments; counts how many put data at the same moment."""

    together: int = 0
    most: int = 0

    def context(self, name: str = "box.one") -> Context:
        context = super().context(name)
        return replace(context, bucket=_Watched(context.bucket, self))  # type: ignore[arg-type]

    def nonce(self) -> str:
        with LOCK:
            return super().nonce()


LOCK = threading.Lock()


class _Watched:
    """Waits in each put until as many are at it as ever will be, or a moment has passed."""

    def __init__(self, store: Any, world: Threaded) -> None:
        self._store = store
        self._world = world
        self._barrier = threading.Barrier(4)

    def put(self, key: str, body: Any) -> None:
        with LOCK:
            self._world.together += 1
            self._world.most = max(self._world.most, self._world.together)
        if "/d/" in key and key.endswith("00000.pb"):
            self._barrier.wait(60)
        self._store.put(key, body)
        with LOCK:
            self._world.together -= 1

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        return getattr(self._store, verb)  # type: ignore[no-any-return]


def threaded(tmp_path: Path, partners: int, number: int, **ship: Any) -> Threaded:
    (tmp_path / "spill").mkdir()
    (tmp_path / "bucket").mkdir()
    world = Threaded(tmp_path / "spill", settings_with(**ship))
    for partner in range(1, partners + 1):
        rows = "".join(f"{partner},i{n},http://shop.example/ok-{n}\n" for n in range(number))
        world.put_refs(f"partner={partner}/refs.csv", HEADER + rows)
        world.put_refs(f"partner={partner}/_SUCCESS", "")
        world.hand.at += 60
    return world


def refs_in(folder: Path) -> list[tuple[int, str]]:
    found = []
    for path in folder.glob("shop/c/*/b/*"):
        data = body_of(Batch, path.read_bytes(), str(path)).data
        found += [(ref.partner_id, ref.external_id) for ref in decode((folder / data.key).read_bytes(), 0)]
    return sorted(found)


def test_as_many_shipments_as_streams_are_read_at_the_same_time(tmp_path: Path) -> None:
    """Each first batch waits until four of them are on their way at once."""
    world = threaded(tmp_path, 8, 60, streams=4)
    with ThreadPoolExecutor(4) as readers:
        turns = LakeStages(world.context(), world.serve, strict=True, readers=readers)
        tally = turns.take("ship")
    assert (tally.problems, tally.counts.refs, tally.files) == (0, 8 * 60, 8)
    assert world.most == 4
    assert refs_in(tmp_path / "bucket") == sorted((p, f"i{n}") for p in range(1, 9) for n in range(60))


def test_batches_together_take_no_more_memory_than_one_that_is_full() -> None:
    memory = Memory(100)
    held: list[int] = []
    most = 0
    ready = threading.Barrier(6)

    def carry(size: int) -> None:
        nonlocal most
        ready.wait(30)
        for _ in range(200):
            with memory.hold(size, lambda: None):
                with LOCK:
                    held.append(min(size, 100))
                    most = max(most, sum(held))
                with LOCK:
                    held.remove(min(size, 100))

    threads = [threading.Thread(target=carry, args=(size,)) for size in (1000, 100, 60, 50, 30, 1)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert not any(one.is_alive() for one in threads)
    assert 0 < most <= 100


def test_a_stop_ends_what_all_threads_do_at_their_next_batch(tmp_path: Path) -> None:
    world = threaded(tmp_path, 4, 600, streams=4)
    stopping = threading.Event()
    context = replace(world.context(), stopping=stopping.is_set)
    bucket: Any = context.bucket
    real = bucket.put

    def put(key: str, body: Any) -> None:
        real(key, body)
        if key.endswith("00002.pb"):
            stopping.set()

    bucket.put = put
    with ThreadPoolExecutor(4) as readers:
        turns = LakeStages(context, world.serve, strict=True, readers=readers)
        tally = turns.take("ship")
        assert tally.stopped
        made = {path.parent.parent.name for path in (tmp_path / "bucket").glob("shop/c/*/b/*")}
        assert len(made) == 4
        assert len(refs_in(tmp_path / "bucket")) < 4 * 600 / 2
        stopping.clear()
        bucket.put = lambda key, body: bucket._store.put(key, body)
        again = LakeStages(context, world.serve, strict=True, readers=readers)
        assert again.take("ship").problems == 0
    assert refs_in(tmp_path / "bucket") == sorted((p, f"i{n}") for p in range(1, 5) for n in range(600))


def test_trouble_with_one_shipment_ends_no_other(tmp_path: Path) -> None:
    world = world_of(tmp_path, {1: 30, 2: 30})
    turns = world.turns()
    broken = ShipmentName.of("shop", "other", "demo", "20200101T000000Z", 0, 0, 0)
    found = next(c for k, (c, _, _) in _planned(world).items())
    plan = body_of(Plan, found, "").model_copy(update={"lake": "shop"})
    world.bucket.write(KEYS.open_hint(plan.due, broken), b"")
    world.bucket.write(KEYS.plan(broken), plan.encode())
    world.bucket.write(KEYS.batch(broken, 0), b"no batch")
    tally = turns.take("ship")
    assert tally.problems == 1
    assert set(batches(world)) >= {1, 2}


def _planned(world: World) -> dict[str, tuple[bytes, float, int]]:
    """Plans as another lake's ship would write them."""
    other = World(world.spill, world.settings)
    other.lake.files.update(world.lake.files)
    other.turns().take("ship")
    return {key: value for key, value in other.bucket.files.items() if key.endswith("/plan")}
