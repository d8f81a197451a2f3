"""What stands of a shipment and cannot be read here: it is open, left alone, told of, and in nobody's way."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pipeline.cli import main as command_line
from pipeline.errors import FormatError
from pipeline.ledger.bodies import body_of
from pipeline.ledger.deliveries import Index, Proposal
from pipeline.ledger.layout import FIRST_DUE, ShipmentName
from pipeline.ledger.manifest import Out, Plan, Result
from pipeline.ledger.protocol import is_closed, open_hints, planned, state_of
from pipeline.ledger.state import REPAIR, waits_for
from pipeline.ledger.values import MAX_VERSION
from pipeline.operations.health.judge import Level, judge
from tests.simulation.folders import Folders, url
from tests.simulation.folders import world_of as folders_of
from tests.simulation.world import STAGES
from tests.unit.test_bad_input import HEADER, KEYS, delivered_partners, keep_going, shipment_of, world_of
from tests.unit.test_health import look_of

DAY = 86400.0
NEWER, TORN = b'{"format": 2, "what": "ever"}', b"{torn"
STRAY = ShipmentName("20200101T000000Z", 0, 0, 0, "0123456789ab")


@pytest.mark.parametrize("content", [NEWER, TORN, b""])
@pytest.mark.parametrize("body", ["plan", "end", "out", "done"])
def test_prune_deletes_nothing_of_a_shipment_that_cannot_be_read(tmp_path: Path, body: str, content: bytes) -> None:
    world = world_of(tmp_path)
    turns = world.turns()
    for stage in STAGES:
        turns.take(stage)
    name = shipment_of(world, "refs/a.csv")
    key = KEYS.shipment(name) + body
    world.bucket.write(key, content)
    before = {key for key in world.bucket.files if str(name) in key}
    for _ in range(3):
        world.hand.at += 30 * DAY
        world.pruner("box.two").prune()
    assert before <= set(world.bucket.files)
    assert not [key for key in world.bucket.files if "/d/" in key and str(name) not in key], "the others' data goes"
    assert [text for text in world.said if key in text] == [world.once[key]]


def test_a_plan_that_somebody_deleted_takes_no_data_with_it(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    world.turns().take("ship")
    name = shipment_of(world, "refs/a.csv")
    del world.bucket.files[KEYS.plan(name)]
    before = {key for key in world.bucket.files if "/d/" in key}
    world.hand.at += 500 * DAY
    world.pruner("box.two").prune()
    assert before <= set(world.bucket.files)
    assert any("no plan, though more of it stands" in text for text in world.said)


@pytest.mark.parametrize("content", [NEWER, TORN])
@pytest.mark.parametrize("body", ["out", "done", "F/r/00000"])
def test_nothing_is_claimed_merged_or_put_again_for_it_in_later_polls(
    tmp_path: Path, body: str, content: bytes
) -> None:
    world = world_of(tmp_path)
    turns = world.turns()
    for stage in STAGES[: {"out": 3, "done": 4, "F/r/00000": 2}[body]]:
        turns.take(stage)
    name = shipment_of(world, "refs/a.csv")
    world.bucket.write(KEYS.shipment(name) + body.replace("F", world.fingerprints["demo"][:12]), content)
    world.bucket.write(KEYS.open_hint(FIRST_DUE, name), b"")
    keep_going(world.turns("box.two"), 1)
    before = {key: content for key, content in world.bucket.files.items() if str(name) in key}
    for number in range(5):
        world.hand.at += 300
        keep_going(world.turns(f"cron.{number}"), 1)
    assert {key: content for key, content in world.bucket.files.items() if str(name) in key} == before


def test_a_done_that_cannot_be_read_keeps_no_other_shipment_open(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    turns = world.turns()
    for stage in STAGES[:3]:
        turns.take(stage)
    world.bucket.write(KEYS.done(shipment_of(world, "refs/a.csv")), TORN)
    for number in range(6):
        world.put_refs(f"more{number}.csv", f"{HEADER}{20 + number},x,{url('ok', number)}\n")
    world.hand.at += 10
    keep_going(world.turns("box.two"))
    assert delivered_partners(world) == {"8", *map(str, range(20, 26))}
    assert list(open_hints(world.context()).due) == [shipment_of(world, "refs/a.csv")]


def test_what_fails_for_good_rests_ever_longer_and_is_tried_again(tmp_path: Path) -> None:
    """A folder of somebody else's where a delivery belongs: tries after 1, 2, 4 ... seconds, then each 15 minutes."""
    world = world_of(tmp_path)
    turns = world.turns()
    for stage in STAGES[:3]:
        turns.take(stage)
    name = shipment_of(world, "refs/a.csv")
    stranger = f"features/{name}/7/theirs"
    world.lake.write(stranger, b"junk")
    fresh = world.turns("box.two")
    for seconds, polls in ((1, 60), (60, 24 * 60)):
        for _ in range(polls):
            fresh.take("deliver")
            world.hand.at += seconds
    attempts = [key for key in world.bucket.files if f"{name}/t/done/" in key and not key.endswith(".x")]
    assert 24 * 4 <= len(attempts) <= 24 * 4 + 12, "not one each poll"
    world.lake.remove(stranger)
    world.hand.at += 900
    fresh.take("deliver")
    assert KEYS.done(name) in world.bucket.files


@pytest.mark.parametrize("content", [b"junk", NEWER])
def test_while_the_index_or_its_proposal_cannot_be_read_nothing_is_copied_for_it(
    tmp_path: Path, content: bytes
) -> None:
    world = world_of(tmp_path)
    world.lake.write("features/_index/0000000001", content)
    for number in range(4):
        keep_going(world.turns(f"cron.{number}"), 2)
        world.hand.at += 600
    assert not [key for key in world.bucket.files if "/t/done/" in key]
    assert not [key for key in world.lake.files if key.startswith("features/2")]
    world.lake.remove("features/_index/0000000001")
    keep_going(world.turns("box.two"))
    assert delivered_partners(world) == {"7", "8"}


def test_the_junk_of_one_kind_stops_no_other_part_of_a_prune(tmp_path: Path) -> None:
    world = world_of(tmp_path, prune={"lake_days": 0.0})
    world.run()
    world.lake.write("features/_index/0000000099", b"junk")
    world.lake.write("features/_index/\u00b2", b"junk")
    world.lake.write("features/_index/" + "9" * 5000, b"junk")
    world.lake.write("features/_current/7/0000000001/x", b"junk")
    world.lake.write("features/_tmp/file", b"junk")
    world.lake.write("features/_index/tokens/old", b"{}")
    for junk in ("shop/c/junk", "shop/d/junk/x", "shop/c/99999999T999999Z.000.00000.0-0123456789ab/plan"):
        world.bucket.write(junk, b"junk")
    world.bucket.write("shop/h/alive/somebody", b"")
    world.hand.at += 20 * DAY
    world.pruner().prune()
    assert "shop/h/alive/somebody" not in world.bucket.files
    assert not [key for key in world.bucket.files if key.startswith("shop/d/2")]
    assert "features/_index/0000000001" not in world.lake.files
    assert "features/_index/tokens/old" in world.lake.files, "the proposal that cannot be read may name it"
    assert any("0000000099" in text for text in world.said)


def test_it_is_open_and_every_teller_says_so(tmp_path: Path) -> None:
    world = folders_of(tmp_path, f"7,a,{url('ok')}")
    world.run()
    done = world.in_bucket("shop/c/*/done")
    name = ShipmentName.parse(done.parent.name)
    for content, level in ((TORN, Level.ALERT), (NEWER, Level.WARNING)):
        done.write_bytes(content)
        world.context().bucket.put(KEYS.open_hint(FIRST_DUE, name), b"")
        state = state_of(world.context(), name)
        assert (waits_for(state), is_closed(world.context(), state)) == (REPAIR, False)
        facts = look_of(world, tmp_path)(lambda key: 0.0)
        found = [one for one in judge(facts, world.settings.health) if "of open shipments" in one.text]
        assert [(one.level, str(done.relative_to(tmp_path / "bucket")) in one.text) for one in found] == [(level, True)]
        assert world.turns("box.two").take("deliver").problems == 1


def run_idle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, list[object]]:
    """`hathi run` over a lake with nothing to do: its exit code and words; what `status` calls open."""
    config = tmp_path / "c.toml"
    config.write_text(
        f'state = "{tmp_path}/state"\nbucket.url = "{tmp_path}/bucket"\nlogs.folder = "{tmp_path}/logs"\n'
        f'[lakes.shop]\nurl = "{tmp_path}/lake"\n[[lakes.shop.sources]]\npath = "refs"\n'
        f'[sets.demo]\nnet = "n"\nblob = "b"\nroot = "features"\n[fetch]\ncontact = "x"\n'
    )
    (tmp_path / "lake/refs").mkdir(parents=True, exist_ok=True)
    code = command_line.main(["run", "--config", str(config)])
    said = capsys.readouterr().out
    assert command_line.main(["status", "--json", "--config", str(config)]) == 0
    return code, said, json.loads(capsys.readouterr().out)["open"]


def test_a_hint_without_a_plan_is_no_shipment_for_run_status_and_health(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = Folders(tmp_path / "spill")
    for due in (FIRST_DUE, "20200102T000000Z"):
        world.context().bucket.put(KEYS.open_hint(due, STRAY), b"")
    world.context().bucket.put(KEYS.open_hint(FIRST_DUE, STRAY) + "-junk", b"")
    code, said, open_ = run_idle(tmp_path, capsys)
    assert (code, open_) == (0, [])
    assert "nothing to do" in said
    assert "open:" not in said
    assert not planned(world.context(), STRAY)
    world.hand.at = time.time()
    assert look_of(world, tmp_path)(lambda key: 0.0).lakes[0].waiting_since is None
    (tmp_path / "bucket/shop/c" / str(STRAY)).mkdir(parents=True)
    (tmp_path / "bucket/shop/c" / str(STRAY) / "plan").write_bytes(TORN)
    code, said, open_ = run_idle(tmp_path, capsys)
    assert code == 1
    assert "open: 1 shipment" in said
    assert [(one["shipment"], one["stage"]) for one in open_] == [(str(STRAY), REPAIR)]  # type: ignore[index]


@pytest.mark.parametrize("text", ["20260230T000000Z", "99999999T999999Z", "00000000T000000Z", "2026112\u0660T185900Z"])
def test_a_name_whose_time_is_none_is_no_shipment(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        ShipmentName.parse(f"{text}.000.00000.0-0123456789ab")


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Out, "refs", "1"), (Out, "refs", True), (Out, "refs", 1.0), (Out, "dim", 2**31), (Out, "features", 2),
        (Out, "fingerprint", "../x"), (Out, "at", ""), (Out, "reasons", {"x": -1}), (Index, "version", MAX_VERSION),
        (Index, "deliveries", [{}]), (Plan, "batch_bytes", 2**70), (Plan, "due", ""), (Plan, "retry_delays", [1, 2]),
    ],
)  # fmt: skip
def test_a_number_is_a_number_and_sums_are_sums(tmp_path: Path, kind: type, field: str, value: object) -> None:
    world = world_of(tmp_path)
    world.run()
    suffix = {Out: "/out", Index: "/outputByPartner", Plan: "/plan"}[kind]
    files = world.lake.files if kind is Index else world.bucket.files
    content = next(content for key, (content, _, _) in files.items() if key.endswith(suffix))
    assert body_of(kind, content, "x").encode() == content
    with pytest.raises(FormatError, match=r"^x is not a"):
        body_of(kind, json.dumps({**json.loads(content), field: value}).encode(), "x")


@pytest.mark.parametrize(
    ("kind", "path", "value", "words"),
    [
        (Out, ("fingerprint",), "../x", "it is not a fingerprint"),
        (Out, ("partners", "7", "files", 0, "sha256"), "0" * 64 + "\n", "it is not a SHA-256"),
        (Out, ("partners", "7", "files", 0, "name"), "a/b/c", "it is not a file of a delivered folder"),
        (Out, ("partners", "7", "files", 0, "name"), "features/../x", "the path leads out of its folder"),
        (Out, ("partners", "7", "files", 0, "key"), "/etc/x", "the path leads out of its folder"),
        (Result, ("fingerprint",), "0", "it is neither a fingerprint nor empty"),
        (Proposal, ("token",), "../../x", "it is not a token's name"),
    ],
)
def test_what_is_wrong_with_a_value_is_said_in_words_and_not_as_a_pattern(
    tmp_path: Path, kind: type, path: tuple[str | int, ...], value: str, words: str
) -> None:
    world = world_of(tmp_path)
    world.run()
    name = shipment_of(world, "refs/a.csv")
    result = KEYS.result(name, world.fingerprints["demo"][:12], 0)
    key = {Out: KEYS.out(name), Result: result, Proposal: "features/_index/0000000001"}[kind]
    body = json.loads({**world.lake.files, **world.bucket.files}[key][0])
    inner = body
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(FormatError) as caught:
        body_of(kind, json.dumps(body).encode(), "x")
    where = ".".join(map(str, path))
    assert caught.value.detail.startswith(f"{where}: {words}")
    assert caught.value.message == f"x is not {'an' if kind is Out else 'a'} {kind.__name__.lower()}"
