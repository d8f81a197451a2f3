"""`hathi status`: what waits, what goes on and how fast, who lags; over a world in folders and by count of requests."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.amounts import length_of_time
from pipeline.app import estop
from pipeline.app.forgetting import request
from pipeline.app.status import Status, as_tree
from pipeline.app.status import status as look_at
from pipeline.cli import main as command_line
from pipeline.cli import status
from pipeline.cli.output.columns import columns, when
from pipeline.errors import TemporaryError
from pipeline.ledger.layout import FIRST_DUE, Task, version_of
from pipeline.ledger.manifest import Attempt
from pipeline.ledger.protocol import Context, beat
from pipeline.operations.forget import forget
from pipeline.operations.health.look import Look
from pipeline.operations.health.this_host import ran_here
from pipeline.operations.report.standing import Standing
from pipeline.process.lock import ESTOP, holder, locked
from pipeline.process.troubles import Troubles
from pipeline.stage_names import STAGES
from tests.environment import environ
from tests.simulation.folders import Folders, hold, url, world_of
from tests.unit.test_health import look_of, settled
from tests.unit.test_polls import END, Host, name_of, opened, plan_of, world_with

HOUR = 3600.0
ROOT = Path(__file__).parents[2]


def status_of(world: Folders, tmp_path: Path, **options: Any) -> Status:
    look = look_of(world, tmp_path, folders=0, forms=False, **options)
    programs = {stage: holder(tmp_path / "state", stage) for stage in STAGES}
    return look_at([world.context("gate.status")], look, lambda key: 0.0, programs, ran_here(tmp_path / "state"))


def stands(world: Folders, tmp_path: Path) -> Standing:
    (lake,) = status_of(world, tmp_path).lakes
    return lake


def lines(world: Folders, tmp_path: Path, rows: int | None = 20) -> list[str]:
    return list(status.as_lines(status_of(world, tmp_path), rows))


def test_what_waits_is_told_by_stage_with_the_rate_of_the_last_hour_and_the_time_that_is_left(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,i{n},{url('ok', n)}" for n in range(6)))
    turns = world.turns()
    turns.take("ship")
    turns.take("compute")
    world.put_refs("b.csv", "partner_id,external_id,url\n" + "".join(f"8,j{n},{url('ok', n)}\n" for n in range(3)))
    world.hand.at += 600
    turns.take("ship")
    world.hand.at += 1200
    stages = {one.stage: one for one in stands(world, tmp_path).stages}
    assert (stages["compute"].batches, stages["compute"].refs, stages["compute"].last_hour) == (1, 3, 6)
    assert stages["compute"].seconds_left == pytest.approx(1800), "3 refs at 6 an hour"
    assert (stages["aggregate"].refs, stages["aggregate"].last_hour, stages["aggregate"].seconds_left) == (6, 0, None)
    world.hand.at += 2 * HOUR
    assert {one.stage: one.last_hour for one in stands(world, tmp_path).stages}["compute"] == 0


def test_a_request_to_forget_is_told_until_it_is_done(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok')}")
    world.turns().take("ship")
    request([world.context()], 7, "a")
    list(forget(world.context()))
    assert [line for line in lines(world, tmp_path) if line.startswith("to be forgotten: 1 request open")] != []
    (one,) = as_tree(status_of(world, tmp_path))["forget"]
    assert (one["lake"], one["number"]) == ("shop", 1)
    world.run()
    list(forget(world.context()))
    assert [line for line in lines(world, tmp_path) if line.startswith("to be forgotten")] == []
    assert as_tree(status_of(world, tmp_path))["forget"] == []


def test_what_was_closed_in_the_last_hour_counts_for_the_rates(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,i{n},{url('ok', n)}" for n in range(4)), f"7,x,{url('gone')}")
    world.run()
    found = stands(world, tmp_path)
    assert found.open == ()
    assert {one.stage: one.last_hour for one in found.stages} == dict.fromkeys(
        ("ship", "compute", "aggregate", "deliver"), 5
    )


def test_running_attempts_are_told_with_their_hosts_and_lost_ones_are_not(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,i{n},{url('ok', n)}" for n in range(6)))
    world.turns().take("ship")
    process = "box-7.0a1b2c3d.77.123456.abcdef"
    box, gone = world.context(process), world.context("box-8.0a1b2c3d.78.123456.abcdef")
    name = sorted(one.shipment for one in stands(world, tmp_path).open)[0]
    shipment = replace(name_of(0), **_fields(name))
    for number, context in enumerate([box, gone]):
        body = Attempt(process=context.process.name, at=version_of(world.hand.at))
        context.bucket.put(context.keys.attempt(shipment, Task.batch("ab" * 32, number), 1), body.encode())
    beat(box)
    world.hand.at += 180
    (one,) = stands(world, tmp_path).running
    assert (one.host, one.process, one.stage, one.batch, one.attempt) == ("box-7", process, "compute", 0, 1)
    assert any("box-7" in line and "compute" in line and "3 min" in line for line in lines(world, tmp_path))


def _fields(name: str) -> dict[str, Any]:
    from pipeline.ledger.layout import ShipmentName

    found = ShipmentName.parse(name)
    return {one: getattr(found, one) for one in ("version", "round", "part", "generation", "hash")}


def test_retries_are_told_with_the_moment_when_they_are_due(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('down')}")
    world.run()
    (due,) = stands(world, tmp_path).retries
    assert (due.shipments, due.at) == (1, version_of(world.hand.at + HOUR))
    assert f"retries: 1 shipment due {when(due.at)}" in lines(world, tmp_path)


def test_what_is_held_and_estop_and_locks_are_told(tmp_path: Path) -> None:
    limits = {"strikes": 1, "lost": 1, "strikes_alone": 1, "lost_alone": 1}
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}", compute=limits)
    hold(world)
    state = tmp_path / "state"
    settled(world, tmp_path)
    (state / ESTOP).touch()
    told = lines(world, tmp_path)
    assert told[0].startswith("ESTOP is engaged")
    assert not any("in the bucket" in line for line in told)
    estop.engage_remote(estop.of_lakes([world.context()]))
    told = lines(world, tmp_path)
    assert told[told.index("lake shop") + 1].startswith("ESTOP is engaged in the bucket")
    estop.lift_remote(estop.of_lakes([world.context()]))
    with locked(state, "ship"):
        told = lines(world, tmp_path)
    assert any(line.startswith("ship       runs: pid ") for line in told)
    assert not any(line.startswith("deliver") for line in told), "it has never run on this host"
    with locked(state, "deliver"):
        pass
    assert "deliver    does not run" in lines(world, tmp_path)
    with pytest.raises(KeyboardInterrupt), locked(state, "deliver"):
        raise KeyboardInterrupt
    assert any(line.startswith("deliver    does not run: it ended unexpectedly") for line in lines(world, tmp_path))
    (name,) = stands(world, tmp_path).facts.held
    assert f"held: {name}" in told


def test_what_a_stage_tries_in_vain_is_told_once_a_cause_and_only_while_it_lasts(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    troubles = Troubles(tmp_path / "state", world.hand.clock())
    full = TemporaryError("the space quota of /lake is exceeded", "x | y", "raise the quota")
    tried = {"deliver S": full, "deliver T": full, "": None}
    troubles.turned("shop", "deliver", tried)
    assert not any("fails" in line for line in lines(world, tmp_path)), "it may pass"
    troubles.turned("shop", "deliver", tried)
    (told,) = [line for line in lines(world, tmp_path) if "fails" in line]
    assert told.startswith("deliver    fails: the space quota of /lake is exceeded (x | y)")
    assert "hathi health" in told
    assert list(as_tree(status_of(world, tmp_path))["in_vain"]) == ["deliver"]
    troubles.turned("shop", "deliver", dict.fromkeys(tried))
    assert not any("fails" in line for line in lines(world, tmp_path))


def test_the_most_lagging_partners_come_first_twenty_of_them_unless_all_are_asked_for(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"{partner},a,{url('ok', partner)}" for partner in range(1, 31)))
    world.run()
    rows = [line for line in lines(world, tmp_path) if line.split()[1:2] == ["demo"]]
    assert len(rows) == 20
    assert "and 10 more partners (show them with --all)" in lines(world, tmp_path)
    assert len([line for line in lines(world, tmp_path, None) if line.split()[1:2] == ["demo"]]) == 30


def test_of_a_source_that_does_not_say_whose_it_is_nothing_is_said_by_partner(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.run()
    (line,) = [line for line in lines(world, tmp_path) if line.split()[1:2] == ["demo"]]
    assert line.split()[:3] == ["7", "demo", "-"]


def test_it_reads_well_at_eighty_columns(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,i{n},{url('ok', n)}" for n in range(6)), f"8,a,{url('down')}")
    world.turns().take("ship")
    told = lines(world, tmp_path)
    assert max(map(len, told)) <= 80, max(told, key=len)
    assert any(line.split()[:4] == ["compute", "2", "3", "7"] for line in told), told


def test_times_and_tables_are_short() -> None:
    assert [length_of_time(one) for one in (0, 59, 60, 3600 * 5 + 600, 86400 * 3 + 3600 * 4)] == [
        "0 s", "59 s", "1 min", "5 h 10 min", "3 d 4 h",
    ]  # fmt: skip
    assert (when("20261120T185900Z"), when(FIRST_DUE)) == ("2026-11-20 18:59", "now")
    assert list(columns([("a", "n"), ("b\x1b[2J", "10")], right={1})) == ["a          n", "b\\x1b[2J  10"]


def test_what_it_asks_of_the_bucket_grows_with_open_work_and_not_with_history(tmp_path: Path) -> None:
    def asks(folder: str, closed_shipments: int, open_shipments: int) -> dict[str, int]:
        (tmp_path / folder).mkdir()
        world = world_with(tmp_path / folder, closed_shipments)
        for number in range(open_shipments):
            opened(world, name_of(10_000 + number), plan_of(10_000 + number), end=END)
        host = Host(world, "box.status")
        context: Context = replace(host.context, lake=None)
        settings = world.settings.model_copy(update={"state": str(tmp_path)})
        look = Look(settings, [context], world.hand.clock(), expects_lakes=False, folders=0, forms=False)
        host.counting.credentials_end = lambda: None  # type: ignore[attr-defined]
        host.counting.forgets = lambda prefix: ""  # type: ignore[attr-defined]
        host.counting.asked.clear()
        look_at([context], look, lambda key: 0.0, {})
        return dict(host.counting.asked)

    some, history, work = asks("some", 0, 3), asks("history", 300, 3), asks("work", 0, 13)
    assert history == some
    assert sum(work.values()) - sum(some.values()) == 10 * 3, "one listing, plan and end of each"


def test_as_json_the_keys_of_old_stay(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}", f"7,b,{url('down')}")
    world.run()
    found = json.loads(json.dumps(as_tree(status_of(world, tmp_path))))
    assert {"estop", "programs", "open", "waiting", "next_due", "held"} <= found.keys()
    assert (found["waiting"], found["held"], found["open"]) == (1, [], [])
    assert [(one["partner"], one["lake"]) for one in found["partners"]] == [("7", "shop")]
    assert {one["stage"] for one in found["stages"]} == {"ship", "compute", "aggregate", "deliver"}


def local(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "lake").mkdir()
    (tmp_path / "bucket").mkdir()
    (tmp_path / "here.toml").write_text('bucket.url = "bucket"\nlakes.shop.url = "lake"\nstate = "state"\n')
    return environ(HATHI_CONFIG=str(tmp_path / "here.toml"))


def test_it_is_watched_until_somebody_interrupts(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pipeline.cli.main", "status", "--watch", "0.05", "--json"]
    with subprocess.Popen(words, cwd=ROOT, env=local(tmp_path), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        looks = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert looks[0]["at"] < looks[1]["at"] < looks[2]["at"]


@pytest.mark.parametrize("pause", ["0", "-1", "inf", "nan"])
def test_a_pause_that_is_none_is_refused(pause: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["status", f"--watch={pause}"]) == 2
    assert "--watch takes seconds" in capsys.readouterr().err
