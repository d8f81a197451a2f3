"""`compact` gives each item the feature of its greatest shipment, whoever runs it and wherever it dies."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pipeline.cli import main as command_line
from pipeline.cli.wiring.daily import compact_daily
from pipeline.errors import FormatError, Unknown
from pipeline.ledger.layout import SUCCESS, ShipmentName
from pipeline.ledger.protocol import Context
from pipeline.operations import prune
from pipeline.operations.prune.lake import plan_lake
from pipeline.stages import index
from pipeline.stages.compact import merging, running
from pipeline.stages.compact.compacting import Compacted, perform, plan, point
from pipeline.stages.compact.running import Trouble
from pipeline.stages.compact.standing import newest, numbers
from pipeline.stages.index import read_index
from tests.simulation.folders import Folders, url, world_of
from tests.unit import deltas as folders
from tests.unit.deltas import ROOT, name_of

PAGE = Path(__file__).parents[2] / "docs" / "consuming.md"
MOST = 2**64 - 1


def deliver(lake: Path, name: ShipmentName, partner: int, items: dict[int, float], dim: int = 3) -> None:
    """A delivered folder, with a vector of one value for each item."""
    folders.deliver(lake, name, {item: np.full(dim, value) for item, value in items.items()}, partner)


def world_in(folder: Path) -> Folders:
    folder.mkdir(parents=True, exist_ok=True)
    return world_of(folder)


def compacted(context: Context) -> list[Compacted]:
    found = list(running.run(context))
    assert not [one for one in found if isinstance(one, Trouble)], found
    return [one for one in found if isinstance(one, Compacted)]


def table_of(context: Context, partner: int) -> dict[int, tuple[float, str]]:
    """What stands: item -> (value, shipment)."""
    assert context.lake is not None
    current = newest(context.lake, ROOT, partner)
    assert current is not None
    found: dict[int, tuple[float, str]] = {}
    before = -1
    for file in current.body.files:
        if not file.name.endswith(".parquet"):
            continue
        with context.lake.open(f"{current.folder}/{file.name}") as stream:
            table = pq.read_table(stream)
        items = table.column("item_id").to_numpy().view(np.uint64).tolist()
        for item, vector, shipment in zip(
            items, table["features"].to_pylist(), table["shipment"].to_pylist(), strict=True
        ):
            assert item > before, "sorted, each once"
            before = item
            found[item] = (vector[0], shipment)
    assert len(found) == current.body.features
    return found


def winners(deltas: dict[ShipmentName, dict[int, float]]) -> dict[int, tuple[float, str]]:
    """The rule, said plainly."""
    found: dict[int, tuple[float, str]] = {}
    for name in sorted(deltas):
        found |= {item: (float(np.float32(value)), str(name)) for item, value in deltas[name].items()}
    return found


ITEMS = st.one_of(st.integers(0, 12), st.integers(2**63 - 3, 2**63 + 3), st.just(MOST))
DELTAS = st.dictionaries(
    st.tuples(st.integers(1, 28), st.integers(0, 3)),
    st.dictionaries(ITEMS, st.integers(0, 1000).map(float), max_size=20),
    min_size=1, max_size=7,
)  # fmt: skip


@given(deltas=DELTAS, order=st.randoms(use_true_random=False), fan=st.sampled_from([2, 3, 64]))
@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_any_deltas_in_any_order_give_what_duckdb_says(
    tmp_path_factory: pytest.TempPathFactory, deltas: dict[tuple[int, int], dict[int, float]], order: Any, fan: int
) -> None:
    folder = tmp_path_factory.mktemp("deltas")
    world = world_in(folder)
    named = {name_of(*when): items for when, items in deltas.items()}
    arriving = list(named)
    order.shuffle(arriving)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "_MOST_INPUTS", fan)
        patch.setattr(merging, "BLOCK_ROWS", 5)
        for at, name in enumerate(arriving):
            deliver(world.top / "lake", name, 12, named[name])
            if at % 2:
                compacted(world.context())
        compacted(world.context())
    if not any(named.values()):
        return
    assert table_of(world.context(), 12) == winners(named)
    glob = f"{world.top}/lake/features/*/*/features/*.parquet"
    rows = duckdb.sql(
        f"SELECT item_id::BIT::UBIGINT, features[1], split(filename, '/')[-4] FROM read_parquet('{glob}', "
        "filename = true) QUALIFY row_number() OVER (PARTITION BY partner_id, item_id "
        "ORDER BY split(filename, '/')[-4] DESC) = 1"
    ).fetchall()
    assert {item: (value, shipment) for item, value, shipment in rows} == table_of(world.context(), 12)


def filled(folder: Path) -> tuple[Folders, dict[int, dict[int, tuple[float, str]]]]:
    """Two partners, the newer of three shipments delivered before the older; what their tables must hold."""
    world = world_in(folder)
    deltas: dict[int, dict[ShipmentName, dict[int, float]]] = {7: {}, 8: {}}
    for day, generation, partner, items in (
        (3, 0, 7, range(0, 30)), (4, 0, 7, range(20, 50)), (3, 1, 7, range(25, 60)), (4, 0, 8, range(5)),
    ):  # fmt: skip
        values = {item: float(100 * day + 10 * generation + item) for item in items}
        deltas[partner][name_of(day, generation)] = values
        deliver(world.top / "lake", name_of(day, generation), partner, values)
    return world, {partner: winners(mine) for partner, mine in deltas.items()}


def test_the_table_is_hidden_from_globs_named_by_the_index_and_not_written_twice(tmp_path: Path) -> None:
    world, wanted = filled(tmp_path)
    before = sorted((world.top / "lake").glob("features/*/*/features/*.parquet"))
    assert len(compacted(world.context())) == 2
    assert sorted((world.top / "lake").glob("features/*/*/features/*.parquet")) == before
    assert not list((world.top / "lake/features/_tmp").glob("*"))
    context = world.context()
    assert context.lake is not None
    index = read_index(context.lake, ROOT)
    assert {partner: one.folder for partner, one in index.current.items()} == {
        "7": "_current/7/0000000001", "8": "_current/8/0000000001",
    }  # fmt: skip
    assert index.current["7"].newest == str(name_of(4))
    for partner, rows in wanted.items():
        assert table_of(context, partner) == rows
    assert compacted(context) == []
    assert read_index(context.lake, ROOT).version == index.version


def test_a_late_retry_is_merged_behind_what_is_newer(tmp_path: Path) -> None:
    world, wanted = filled(tmp_path)
    compacted(world.context())
    deliver(world.top / "lake", name_of(3, 2), 7, {0: 1.0, 49: 1.0, 99: 1.0})
    (done,) = compacted(world.context())
    assert done.current.body.number == 2
    assert done.rows_read == len(wanted[7]) + 3
    retried = (1.0, str(name_of(3, 2)))
    assert table_of(world.context(), 7) == {**wanted[7], 0: retried, 99: retried}


class Killed(BaseException):
    """As kill -9: nothing of the process goes on."""


class Mortal:
    """A lake whose n-th call kills: before its effect, or after it (`late`)."""

    def __init__(self, lake: Any, calls: int, late: bool) -> None:
        self._lake, self._left, self._late = lake, calls, late
        self.dead = False

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        called = getattr(self._lake, verb)

        def call(*args: Any, **named: Any) -> Any:
            if self.dead:
                raise Killed  # what `finally` still wants to do is not done
            self._left -= 1
            if self._left > 0:
                return called(*args, **named)
            self.dead = True
            if self._late:
                called(*args, **named)
            raise Killed

        return call


def kills(folder: Path) -> Iterator[tuple[Folders, dict[int, dict[int, tuple[float, str]]], bool]]:
    """The same run, killed at each call of the lake in turn."""
    for late in (False, True):
        calls = 0
        while True:
            calls += 1
            world, wanted = filled(folder / f"{late}-{calls}")
            context = world.context("box.killed")
            mortal = Mortal(context.lake, calls, late)
            try:
                list(running.run(replace(context, lake=mortal)))  # type: ignore[arg-type]
            except Killed:
                yield world, wanted, True
            else:
                assert calls > 20
                yield world, wanted, False
                break


def test_killed_at_any_call_the_next_run_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    died = 0
    for world, wanted, killed in kills(tmp_path):
        died += killed
        context = world.context("box.next")
        assert context.lake is not None
        for partner, table in read_index(context.lake, ROOT).current.items():
            assert (world.top / "lake/features" / table.folder / SUCCESS).exists(), f"named before it stood: {partner}"
        compacted(context)
        index = read_index(context.lake, ROOT)
        for one, rows in wanted.items():
            assert table_of(context, one) == rows
            assert numbers(context.lake, ROOT, one) == [1]
            assert index.current[str(one)].number == 1
    assert died > 60


def test_two_gateways_at_once_leave_one_table_that_both_name(tmp_path: Path) -> None:
    world, wanted = filled(tmp_path)
    together = threading.Barrier(2)
    found: list[Compacted] = []

    def gateway(name: str) -> None:
        context = world.context(name)
        tasks = list(plan(context))
        together.wait()
        found.extend(done for task in tasks if (done := perform(context, task)) is not None)  # type: ignore[arg-type]
        compacted(context)

    threads = [threading.Thread(target=gateway, args=(name,)) for name in ("gate.one", "gate.two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    context = world.context()
    assert context.lake is not None
    assert sorted((one.current.body.partner_id, one.won) for one in found) == [
        (7, False), (7, True), (8, False), (8, True),
    ]  # fmt: skip
    for partner, rows in wanted.items():
        assert numbers(context.lake, ROOT, partner) == [1]
        assert table_of(context, partner) == rows
    assert not list((world.top / "lake/features/_tmp").glob("*"))


def test_who_saw_less_and_was_first_is_followed_by_a_table_with_all(tmp_path: Path) -> None:
    world, wanted = filled(tmp_path)
    slow = world.context("gate.slow")
    (early, *_) = list(plan(slow, 7))
    deliver(world.top / "lake", name_of(9), 7, {1: 5.0})
    ahead = world.context("gate.ahead")
    seen_all = next(plan(ahead, 7))
    assert perform(slow, early) is not None  # type: ignore[arg-type]
    found = list(running._one(ahead, seen_all))  # type: ignore[arg-type]
    numbered = [(one.won, one.current.body.number) for one in found if isinstance(one, Compacted)]
    assert numbered == [(False, 1), (True, 2)]
    assert table_of(ahead, 7) == {**wanted[7], 1: (5.0, str(name_of(9)))}


def test_an_answer_that_was_lost_is_looked_up(tmp_path: Path) -> None:
    world, wanted = filled(tmp_path)
    context = world.context()

    class Mute:
        def __getattr__(self, verb: str) -> Any:
            return getattr(context.lake, verb)

        def rename_new(self, source: str, target: str) -> None:
            assert context.lake is not None
            context.lake.rename_new(source, target)
            raise Unknown("no answer")

    done = compacted(replace(context, lake=Mute()))  # type: ignore[arg-type]
    assert [one.won for one in done] == [True, True]
    assert table_of(context, 7) == wanted[7]


def test_a_damaged_delta_is_left_out_and_told_and_the_others_are_merged(tmp_path: Path) -> None:
    world, wanted = filled(tmp_path)
    torn = world.on_lake(f"features/{name_of(3)}/7/features/part-00000.parquet")
    torn.write_bytes(torn.read_bytes()[:-50])
    found = list(running.run(world.context()))
    (trouble,) = [one for one in found if isinstance(one, Trouble)]
    assert isinstance(trouble.error, FormatError)
    assert "part-00000.parquet" in str(trouble.error)
    assert table_of(world.context(), 8) == wanted[8]
    left = table_of(world.context(), 7)
    assert left
    assert str(name_of(3)) not in {shipment for _, shipment in left.values()}
    current = newest(world.context().lake, ROOT, 7)  # type: ignore[arg-type]
    assert current is not None
    assert str(name_of(3)) not in current.body.covers, "it is fresh again once it is whole"
    again = list(running.run(world.context()))
    assert [type(one) for one in again] == [Trouble], "told in each run, and nothing is written for it"


def test_after_a_change_of_formats_what_has_parquet_is_merged_and_the_rest_is_counted(tmp_path: Path) -> None:
    world, wanted = filled(tmp_path)
    for day in (9, 10, 11):
        folders.deliver(world.top / "lake", name_of(day), {1: np.full(3, 5.0)}, 7, text=True)
    deliver(world.top / "lake", name_of(12), 7, {1: 6.0})
    found = list(running.run(world.context()))
    (trouble,) = [one for one in found if isinstance(one, Trouble)]
    assert "lacks 3 shipments" in trouble.what
    assert f"features/{name_of(11)}/7 has no Parquet files" in trouble.error.message
    assert table_of(world.context(), 7) == {**wanted[7], 1: (6.0, str(name_of(12)))}
    assert [type(one) for one in running.run(world.context())] == [Trouble], "counted in each run, nothing is written"


def test_float16_stays_in_the_table_until_a_float32_is_merged_and_loses_nothing_then(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    lake = world.top / "lake"
    for day in (1, 2):
        folders.deliver(lake, name_of(day), {day: np.full(3, 0.1), 9: np.full(3, day / 8)}, numbers="float16")
    (first,) = compacted(world.context())
    half = float(np.float16(0.1))
    assert first.current.body.numbers == "float16"
    assert table_of(world.context(), 7) == {
        1: (half, str(name_of(1))), 2: (half, str(name_of(2))), 9: (0.25, str(name_of(2)))
    }  # fmt: skip
    folders.deliver(lake, name_of(3), {3: np.full(3, 1e5)})
    (second,) = compacted(world.context())
    assert second.current.body.numbers == "float32"
    assert table_of(world.context(), 7) == {
        1: (half, str(name_of(1))), 2: (half, str(name_of(2))), 3: (1e5, str(name_of(3))), 9: (0.25, str(name_of(2)))
    }  # fmt: skip


def test_a_file_of_other_numbers_than_its_manifest_says_is_left_out(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    folders.deliver(world.top / "lake", name_of(1), {1: np.ones(3)}, numbers="float16")
    path = world.top / "lake" / ROOT.partner(name_of(1), 7) / "_manifest.json"
    path.write_text(path.read_text().replace("float16", "float32"))
    (trouble,) = running.run(world.context())
    assert isinstance(trouble, Trouble)
    assert "halffloat" in trouble.error.detail


def test_a_folder_whose_manifest_or_file_is_lost_or_of_another_is_left_out(tmp_path: Path) -> None:
    world, wanted = filled(tmp_path)
    compacted(world.context())
    for day in (9, 10, 11, 12):
        deliver(world.top / "lake", name_of(day), 7, {1: float(day)})
    lake = world.top / "lake/features"
    (lake / str(name_of(9)) / "7/_manifest.json").unlink()
    (lake / str(name_of(10)) / "7/features/part-00000.parquet").unlink()
    manifest_of = lake / str(name_of(11)) / "7/_manifest.json"
    manifest_of.write_bytes((lake / str(name_of(12)) / "7/_manifest.json").read_bytes())
    found = list(running.run(world.context()))
    assert len([one for one in found if isinstance(one, Trouble)]) == 3
    assert table_of(world.context(), 7) == {**wanted[7], 1: (12.0, str(name_of(12)))}


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 99}', b"[1]"])
def test_a_table_that_cannot_be_read_stops_its_partner_and_no_other(tmp_path: Path, content: bytes) -> None:
    world, _ = filled(tmp_path)
    compacted(world.context())
    (world.top / "lake/features/_current/7/0000000001/_manifest.json").write_bytes(content)
    for partner in (7, 8):
        deliver(world.top / "lake", name_of(9), partner, {1: 5.0})
    found = list(running.run(world.context()))
    assert {one.what for one in found if isinstance(one, Trouble)} == {"partner 7 of demo"}
    assert table_of(world.context(), 8)[1] == (5.0, str(name_of(9)))


def test_a_net_of_another_length_is_refused_and_the_old_table_stays(tmp_path: Path) -> None:
    world, wanted = filled(tmp_path)
    compacted(world.context())
    deliver(world.top / "lake", name_of(9), 7, {1: 5.0}, dim=4)
    (trouble,) = [one for one in running.run(world.context()) if isinstance(one, Trouble)]
    assert "root of its own" in trouble.error.hint
    assert table_of(world.context(), 7) == wanted[7]


def forget(world: Folders) -> list[str]:
    context = world.context("box.prune")
    found = list(plan_lake(context, context.settings.sets["demo"], world.hand.at))
    for one in found:
        prune.perform(context, one)
    return [f"{one.key}: {one.why}" for one in found]


def run_world(tmp_path: Path, **changes: object) -> Folders:
    """The stages themselves, with one version after another; a failure of the first day succeeds later."""
    world = world_of(tmp_path, *(f"7,i{n},{url('ok', n)}" for n in range(5)), **changes)
    world.run()
    return world


def next_day(world: Folders, number: int) -> None:
    world.hand.at += 86400
    world.put_refs("b.csv", "partner_id,external_id,url\n" + f"7,i{number},{url('ok', 100 + number)}\n")
    world.hand.at += 10
    world.run()


def values(world: Folders) -> dict[int, str]:
    """Consumers' view of deltas."""
    parts = [
        pd.read_parquet(path).assign(shipment=path.parts[-4])
        for path in sorted((world.top / "lake").glob("features/*/*/features/*.parquet"))
    ]
    rows = pd.concat(parts).sort_values("shipment").drop_duplicates(["item_id"], keep="last")
    return dict(zip(rows["item_id"].tolist(), rows["shipment"].tolist(), strict=True))


def table_values(world: Folders) -> dict[int, str]:
    rows = table_of(world.context(), 7)
    return {int(np.uint64(item).astype(np.int64)): shipment for item, (_, shipment) in rows.items()}


def test_verify_is_clean_beside_tables_finds_their_damage_and_repair_names_them_again(tmp_path: Path) -> None:
    world = run_world(tmp_path)
    compacted(world.context())
    next_day(world, 3)
    compacted(world.context())
    assert values(world) == table_values(world)
    assert world.look(deep=True) == []
    index = world.top / "lake/features/outputByPartner"
    body = json.loads(index.read_bytes())
    assert body["current"]["7"]["number"] == 2
    index.write_bytes(json.dumps({**body, "current": {}}).encode())
    assert world.mend()
    assert json.loads(index.read_bytes())["current"] == body["current"]
    path = world.on_lake("features/_current/7/0000000002/features/*.parquet")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    assert [one.kind for one in world.look(deep=True)] == ["file_hash"]
    path.write_bytes(content + b"x")
    assert [one.kind for one in world.look()] == ["file_length"]
    path.unlink()
    assert [one.kind for one in world.look()] == ["file_missing"]


def test_tables_that_were_lost_are_told_of_and_made_again_behind_what_the_index_names(tmp_path: Path) -> None:
    world = run_world(tmp_path)
    compacted(world.context())
    next_day(world, 3)
    compacted(world.context())
    wanted = table_values(world)
    shutil.rmtree(world.top / "lake/features/_current")
    assert [one.kind for one in world.look()] == ["index_lacks"]
    (done,) = compacted(world.context())
    assert done.current.body.number == 3
    assert world.look(deep=True) == []
    assert table_values(world) == wanted


def test_the_reader_of_the_page_gets_each_item_once(tmp_path: Path) -> None:
    world = run_world(tmp_path)
    next_day(world, 3)
    compacted(world.context())
    (block,) = [
        text for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "def current" in text
    ]
    root = world.top / "lake/features"
    names: dict[str, Any] = {"pd": pd, "root": root, "index": json.loads((root / "outputByPartner").read_text())}
    exec(block, names)
    rows = names["current"](7)
    assert dict(zip(rows["item_id"].tolist(), rows["shipment"].tolist(), strict=True)) == values(world)
    assert names["current"](8) is None


def test_text_goes_with_the_table_where_the_set_has_it(tmp_path: Path) -> None:
    world, wanted = filled(tmp_path)
    compacted(world.context())
    (path,) = (world.top / "lake").glob("features/_current/7/*/cnn_features.txt.gz")
    rows = [line.split() for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert [int(row[1]) for row in rows] == sorted(wanted[7])
    assert [int(row[2]) for row in rows] == [round(1e6 * wanted[7][item][0]) for item in sorted(wanted[7])]


def test_the_command_tells_what_it_wrote_and_ends_in_1_for_trouble(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world, _ = filled(tmp_path)
    config = tmp_path / "hathi.toml"
    config.write_text(
        f'state = "state"\nbucket.url = "bucket"\nlogs.folder = "logs"\n[lakes.shop]\nurl = "{world.top}/lake"\n'
        '[sets.demo]\nnet = "n"\nblob = "b"\nroot = "features"\n'
    )
    words = ["compact", "--config", str(config)]
    assert command_line.main([*words, "--partner", "8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["partner"], told["features"], told["folder"]) == (8, 5, "features/_current/8/0000000001")
    assert command_line.main(words) == 0
    assert capsys.readouterr().out == "features/_current/7/0000000001: 60 features of 3 shipments\n"
    assert command_line.main(words) == 0
    assert capsys.readouterr().out == "nothing to compact\n"
    deliver(world.top / "lake", name_of(9), 7, {1: 5.0}, dim=4)
    assert command_line.main(words) == 1
    assert "a delivered table cannot be merged" in capsys.readouterr().err
    (tmp_path / "state" / "ESTOP").touch()
    assert command_line.main(words) == 4


def test_a_gateway_that_wakes_late_does_not_turn_the_index_back(tmp_path: Path) -> None:
    world, _ = filled(tmp_path)
    (early, *_) = compacted(world.context())
    deliver(world.top / "lake", name_of(9), 7, {1: 5.0})
    compacted(world.context())
    context = world.context("gate.late")
    body = index.point(context, ROOT, {"7": early.current.entry()})
    assert body.current["7"].number == 2
    point(context, ROOT)
    assert context.lake is not None
    assert read_index(context.lake, ROOT) == body


def test_deliveries_after_it_keep_the_table_in_the_index(tmp_path: Path) -> None:
    world = run_world(tmp_path)
    compacted(world.context())
    next_day(world, 9)
    context = world.context()
    assert context.lake is not None
    assert read_index(context.lake, ROOT).current["7"].number == 1


def test_a_passed_table_is_deleted_a_day_after_its_successor_and_the_current_one_never(tmp_path: Path) -> None:
    world, _ = filled(tmp_path)
    compacted(world.context())
    deliver(world.top / "lake", name_of(9), 7, {1: 5.0})
    compacted(world.context())
    assert forget(world) == []
    world.hand.at += 86400 + 60
    assert forget(world) == ["features/_current/7/0000000001: a later table stands"]
    assert forget(world) == []
    context = world.context()
    assert context.lake is not None
    assert (numbers(context.lake, ROOT, 7), numbers(context.lake, ROOT, 8)) == ([2], [1])


def test_compacted_days_delete_deltas_that_a_table_covers_and_no_others(tmp_path: Path) -> None:
    world = run_world(tmp_path, prune={"compacted_days": 3}, deliver={"index_days": 2})
    next_day(world, 3)
    compacted(world.context())
    before = values(world)
    for day in range(6):
        next_day(world, 20 + day)
    context = world.context()
    assert context.lake is not None
    current = newest(context.lake, ROOT, 7)
    assert current is not None
    told = [line.split(":")[0] for line in forget(world) if "compacted, and delivered more than 3 days ago" in line]
    gone = {line.removeprefix("features/") for line in told}
    assert gone, "what is old and compacted goes"
    assert gone <= set(current.body.covers), "and nothing that no table holds"
    assert gone.isdisjoint(path.name for path in (world.top / "lake/features").iterdir())
    assert table_values(world) == before
    assert not [one for one in world.look() if one.level == "damage"]
    compacted(world.context())
    assert set(before) <= set(table_values(world)), "deltas that are gone live on in the table"
    assert len(table_values(world)) == 5 + 6


def test_the_daily_step_compacts_where_it_is_asked_for(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for folder in ("off", "on", "state"):
        (tmp_path / folder).mkdir()
    world = run_world(tmp_path / "off")
    clock = world.context().process.clock
    compact_daily([world.turns()], ["deliver"], state, clock, lambda: False)
    assert not (world.top / "lake/features/_current").exists()
    world = run_world(tmp_path / "on", deliver={"compact": True})
    clock = world.context().process.clock
    compact_daily([world.turns()], ["compute"], state, clock, lambda: False)
    assert not (world.top / "lake/features/_current").exists()
    compact_daily([world.turns()], ["ship", "deliver"], state, clock, lambda: False)
    assert table_values(world) == values(world)
