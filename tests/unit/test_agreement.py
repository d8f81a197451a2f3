"""A gateway and a box that mean different features by one set's name: refused by name, mended from either side."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.app.status import status as look_at
from pipeline.cli.status import as_lines
from pipeline.ledger.bodies import body_of
from pipeline.ledger.expectation import Refused, differing
from pipeline.ledger.layout import Keys
from pipeline.ledger.manifest import Expected, Plan
from pipeline.operations.health.disagreement import REPEATED_SECONDS, SILENT_SECONDS
from pipeline.operations.health.judge import judge
from pipeline.operations.health.look import Look
from pipeline.settings import Health, Settings
from pipeline.stage_names import STAGES
from pipeline.stages import operator_requests
from pipeline.stages.agreement import AGAIN_SECONDS
from pipeline.stages.expectations import Expectations, expectation
from pipeline.stages.following import Following
from pipeline.stages.loop import LakeStages
from tests.simulation.folders import world_of
from tests.simulation.world import World, settings_of

KEYS = Keys("shop")
GATE, BOX = "gate.one", "box.one"
ONE = "7,a,http://shop.example/1"


def settings(**changes: Any) -> Settings:
    """Two sets; changes: of the set demo."""
    return settings_of(
        sets={
            "demo": {"net": "n", "blob": "b", "root": "features", **changes},
            "other": {"net": "n", "blob": "b", "root": "others"},
        }
    )


RGB = {"preprocess": {"channel_order": "rgb"}}


class Hosts:
    """A gateway and a box over one bucket, each with its own settings and processes that can be started anew."""

    def __init__(self, spill: Path, gateway: Settings, box: Settings) -> None:
        self.world = World(spill)
        self.world.put_refs("a.csv", f"partner_id,sku,url\n{ONE}\n7,b,http://shop.example/2\n")
        self.start(gateway, box)

    def start(self, gateway: Settings, box: Settings) -> None:
        """New processes; time passes between them."""
        self.world.hand.at += 10.0
        self.world.settings = gateway
        self.gate = self.world.turns(GATE)
        self.world.settings = box
        self.box = self.world.turns(BOX)

    def ship(self) -> None:
        self.world.run(self.gate, ("ship",))

    def compute(self) -> int:
        return self.world.run(self.box, ("compute", "aggregate"))

    def outs(self) -> dict[str, str]:
        """Sets that were aggregated, with the fingerprint."""
        found = {}
        for key, (content, _, _) in self.world.bucket.files.items():
            if key.endswith("/out"):
                plan = body_of(Plan, self.world.bucket.files[key[:-3] + "plan"][0], key)
                found[plan.set] = json.loads(content)["fingerprint"]
        return found

    def refusals(self) -> list[Refused]:
        found = sorted(self.world.bucket.under(KEYS.refused_hints))
        return [body_of(Refused, self.world.bucket.files[key][0], key) for key in found]


def test_a_box_with_another_channel_order_refuses_by_name_and_computes_everything_else(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, settings(**RGB), settings())
    hosts.ship()
    assert hosts.compute() > 0
    assert set(hosts.outs()) == {"other"}, "the other set goes on"
    said = list({text for text in hosts.world.said if "is not computed here" in text})
    assert len(said) == 1
    assert 'preprocess.channel_order is "rgb" at the gateway and "bgr" on the box' in said[0]
    (refused,) = hosts.refusals()
    assert (refused.set, refused.host, refused.shipments) == ("demo", "box", 1)
    assert [str(one) for one in refused.differs] == [
        'preprocess.channel_order is "rgb" at the gateway and "bgr" on the box'
    ]
    tally = hosts.box.take("compute")
    assert tally.problems == 1, "a run from cron ends with 1, and its mail has the line"


def test_once_the_box_is_mended_the_shipment_goes_on_and_nothing_is_lost(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, settings(**RGB), settings())
    hosts.ship()
    hosts.compute()
    hosts.start(settings(**RGB), settings(**RGB))
    hosts.compute()
    hosts.world.run(hosts.gate, ("deliver",))
    assert set(hosts.outs()) == {"demo", "other"}
    assert len([key for key in hosts.world.delivered() if key.endswith("_SUCCESS")]) == 1
    assert not [key for key in hosts.world.bucket.files if key.startswith(KEYS.open_hints)]


def test_once_the_gateway_is_mended_what_it_has_planned_goes_on_as_well(tmp_path: Path) -> None:
    """Its plans stand for ever; a newer word of it counts, and one that is older than a plan does not."""
    hosts = Hosts(tmp_path, settings(**RGB), settings())
    hosts.ship()
    hosts.compute()
    hosts.start(settings(), settings())
    hosts.compute()
    assert set(hosts.outs()) == {"other"}, "the gateway has not said anything yet"
    hosts.ship()
    hosts.compute()
    assert set(hosts.outs()) == {"demo", "other"}

    hosts.start(settings(**RGB), settings())
    hosts.world.put_refs("b.csv", f"partner_id,sku,url\n{ONE}\n")
    hosts.ship()
    before = len(hosts.outs())
    hosts.compute()
    assert any(one.shipments == 1 for one in hosts.refusals()), "its old word does not count for a newer plan"
    assert len(hosts.outs()) == before


def test_a_box_that_agrees_again_takes_its_hint_back_and_one_that_stays_repeats_it(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, settings(**RGB), settings())
    hosts.ship()
    hosts.compute()
    (key,) = hosts.world.bucket.under(KEYS.refused_hints)
    first = hosts.world.bucket.files[key][1]
    hosts.box.take("compute")
    assert hosts.world.bucket.files[key][1] == first
    hosts.world.hand.at += AGAIN_SECONDS + 1
    hosts.box.take("compute")
    assert hosts.world.bucket.files[key][1] > first
    gate = hosts.gate
    hosts.world.settings = settings()
    hosts.gate = hosts.world.turns(GATE)
    hosts.ship()
    hosts.compute()
    assert not hosts.refusals()
    assert gate is not hosts.gate


def test_a_plan_of_an_older_version_is_computed_whatever_the_settings_are(tmp_path: Path) -> None:
    hosts = Hosts(tmp_path, settings(**RGB), settings())
    hosts.ship()
    for key in list(hosts.world.bucket.files):
        if key.endswith("/plan"):
            content, *rest = hosts.world.bucket.files[key]
            fields = json.loads(content)
            assert fields["format"] == 1, "older readers take it"
            del fields["expects"]
            hosts.world.bucket.files[key] = (json.dumps(fields).encode(), *rest)  # type: ignore[assignment]
    hosts.compute()
    assert set(hosts.outs()) == {"demo", "other"}


def test_retries_and_releases_expect_what_their_parent_expects_and_a_new_round_what_is_configured_now(
    tmp_path: Path,
) -> None:
    hosts = Hosts(tmp_path, settings(**RGB), settings(**RGB))
    hosts.world.put_refs("a.csv", "partner_id,sku,url\n7,a,http://shop.example/down-1\n")
    hosts.ship()
    hosts.compute()
    plans = {
        key: body_of(Plan, content, key)
        for key, (content, _, _) in hosts.world.bucket.files.items()
        if key.endswith("/plan")
    }
    retries = [plan for plan in plans.values() if plan.kind == "retry" and plan.set == "demo"]
    assert retries
    assert all(plan.expects == expectation(settings(**RGB).sets["demo"]) for plan in retries)
    hosts.world.settings = settings()
    context = hosts.world.context("person.one")
    ((name, plan),) = operator_requests.newest(context, "", ["demo"])
    child = operator_requests.again(context, name, plan)
    stands = body_of(Plan, hosts.world.bucket.files[KEYS.plan(child)][0], "")
    assert stands.expects == expectation(settings().sets["demo"])


def test_health_on_both_sides_names_the_box_the_set_and_the_setting_until_it_is_mended(tmp_path: Path) -> None:
    world = world_of(tmp_path, ONE)
    world.settings = settings(**RGB)
    gate = world.turns(GATE)
    world.run(gate, ("ship",))

    def told(name: str) -> list[tuple[str, str, str]]:
        look = Look(world.settings, [world.context(name)], world.hand.clock(), expects_lakes=True)
        found = judge(look(lambda key: 0.0), Health())
        return [(one.level.word, one.key, one.text) for one in found if one.key.startswith("disagrees")]

    assert told(GATE) == []
    world.settings = settings()
    world.run(world.turns(BOX), ("compute", "aggregate"))
    world.settings = settings(**RGB)
    for name in (GATE, BOX):
        ((level, key, text),) = told(name)
        assert (level, key) == ("Alert", "disagrees shop demo box")
        assert "1 shipment of set demo waits, since host box" in text
        assert 'preprocess.channel_order is "rgb" at the gateway and "bgr" on the box' in text
    look = Look(world.settings, [world.context(GATE)], world.hand.clock(), expects_lakes=True)
    shown = as_lines(look_at([world.context(GATE)], look, lambda key: 0.0, dict.fromkeys(STAGES)), None)
    assert any(line.startswith("1 shipment of set demo waits, since host box") for line in shown), "status says it too"
    hint = world.in_bucket("shop/h/refused/demo/*")
    os.utime(hint, (world.hand.at - SILENT_SECONDS - 1,) * 2)
    assert told(GATE) == [], "of a host that is gone nothing is told"
    os.utime(hint, (world.hand.at, world.hand.at))
    assert len(told(GATE)) == 1
    world.turns(BOX).take("compute")
    assert len(told(GATE)) == 1, "the result may be another box's"
    os.utime(hint, (world.hand.at - REPEATED_SECONDS - 1,) * 2)
    assert told(GATE) == [], "the mended box is at work: its old hint tells nothing"
    assert hint.exists()


def expected(fingerprint: str = "", decode: str = "3", files: dict[str, str] | None = None, **more: str) -> Expected:
    return Expected(fingerprint=fingerprint, decode=decode, settings=more, files=files or {})


@pytest.mark.parametrize(
    ("gateway", "here", "named"),
    [
        (expected(blob="1"), expected(blob="1"), []),
        (expected(blob="1", unknown="x"), expected("ab" * 32, blob="1"), []),
        (expected(blob="1"), expected("ab" * 32, blob="2"), ["blob"]),
        (expected("ab" * 32, blob="1"), expected("ab" * 32, blob="2"), []),
        (expected("ab" * 32, blob="1"), expected("cd" * 32, blob="2"), ["blob"]),
        (expected("ab" * 32, "2", blob="1"), expected("cd" * 32, "3", blob="1"), []),
        (
            expected("ab" * 32, files={"net": "n, 5 bytes", "weights": "w, 7 bytes"}),
            expected("cd" * 32, files={"net": "n, 5 bytes", "weights": "w, 8 bytes"}),
            ["weights"],
        ),
        (expected("ab" * 32, files={"net": "n, 5 bytes"}), expected("cd" * 32, files={"net": "n, 5 bytes"}), ["net"]),
    ],
)
def test_the_fingerprint_decides_where_both_know_one_and_the_settings_say_why(
    gateway: Expected, here: Expected, named: list[str]
) -> None:
    assert [one.setting for one in differing(gateway, here)] == named


def test_a_net_that_is_exchanged_under_a_daemon_is_read_again(tmp_path: Path) -> None:
    net = tmp_path / "n.prototxt"
    text = 'layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 dim: 3 dim: 9 dim: 9 } } }\n'
    net.write_text(text + 'layer { name: "a" type: "TanH" bottom: "d" top: "a" }\n')
    world = World(tmp_path, settings_of(sets={"demo": {"net": str(net), "blob": "a", "root": "features"}}))
    expectations = Expectations(Following(world.context()))
    first = expectations["demo"]
    assert len(first.fingerprint) == 64
    assert expectations["demo"] is first, "not read again while it stays as it is"
    net.write_text(text + 'layer { name: "a" type: "Sigmoid" bottom: "d" top: "a" }\n')
    assert expectations["demo"].fingerprint not in ("", first.fingerprint)
    net.unlink()
    assert expectations["demo"].fingerprint == ""


def test_turns_of_one_process_never_refuse_what_they_planned(tmp_path: Path) -> None:
    world = World(tmp_path, settings(**RGB))
    world.put_refs("a.csv", f"partner_id,sku,url\n{ONE}\n")
    world.run(LakeStages(world.context(), world.serve, strict=True))
    assert not list(world.bucket.under(KEYS.refused_hints))
    assert not list(world.bucket.under(KEYS.expects_hints))
    assert len([key for key in world.delivered() if key.startswith(("features/", "others/"))]) > 0
