"""Health: facts from a world in folders, judged by a pure function, told on change by real mail and a real webhook."""

from __future__ import annotations

import gzip
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.app import estop
from pipeline.clock import Clock
from pipeline.errors import PermanentError, TemporaryError
from pipeline.ledger.deliveries import Index, IndexPartner
from pipeline.ledger.layout import FIRST_DUE, Root, seconds_of, version_of
from pipeline.operations.health.backlog import PARTNERS, freshness, most_lagging
from pipeline.operations.health.facts import Disk, Facts, Freshness, LakeFacts, StoreFacts
from pipeline.operations.health.folders import Folders as DeliveredFolders
from pipeline.operations.health.judge import Finding, Level, judge, level_of
from pipeline.operations.health.look import Look
from pipeline.operations.health.memory import Memory, read_memory, write_memory
from pipeline.operations.health.notify import Mail, News, Webhook, channels
from pipeline.operations.health.step import Step
from pipeline.process.lock import ESTOP, locked
from pipeline.settings import Bucket, Health, Notify, Settings
from pipeline.stages.index import read_index
from pipeline.stores.local import LocalStore
from tests.simulation.folders import Folders, hold, url, world_of
from tests.unit.listeners import Hook, MailServer, hook_server, mail_server, self_signed

HOUR = 3600.0
DAY = 86400.0
NOW = 1_700_000_000.0
LIMITS = Health()


def lake(**more: Any) -> LakeFacts:
    values: dict[str, Any] = {"lake": "shop", "now": NOW, "sees_lake": True}
    return LakeFacts(**{**values, **more})


def facts(*lakes: LakeFacts, **more: Any) -> Facts:
    return Facts(**{"at": NOW, "host": "gate", "lakes": lakes, **more})


def judged(*lakes: LakeFacts, **more: Any) -> list[tuple[str, str]]:
    return [(one.level.word, one.key) for one in judge(facts(*lakes, **more), LIMITS)]


def test_a_request_to_forget_that_waits_longer_than_retries_take_is_a_warning() -> None:
    assert judged(lake(forgets={4: NOW - 5 * DAY + 1})) == []
    assert judged(lake(forgets={4: NOW - 5 * DAY})) == [("Warning", "forget shop")]
    (found,) = judge(facts(lake(forgets={4: NOW - 6 * DAY, 9: NOW - DAY})), LIMITS)
    assert "1 request to forget not done" in found.text
    assert found.since == NOW - 6 * DAY


def test_where_nothing_is_wrong_there_is_no_finding_and_the_level_is_ok() -> None:
    assert judged(lake(), stores=(StoreFacts("bucket", skew=299.0),), disks=(Disk("/state", 90.0, 1),)) == []
    assert level_of([]) is Level.OK
    assert [int(one) for one in Level] == [0, 1, 2]


@pytest.mark.parametrize(
    ("waited", "sent", "level"),
    [
        (5.9, None, None),
        (6.0, None, "Warning"),
        (11.9, None, "Warning"),
        (12.0, None, "Alert"),
        (100.0, 5.0, None),
        (100.0, 7.0, "Warning"),
        (1.0, 100.0, None),
    ],
)
def test_nothing_sent_while_refs_wait_is_a_warning_then_an_alert(
    waited: float, sent: float | None, level: str | None
) -> None:
    one = lake(waiting_since=NOW - waited * HOUR, waiting_for="compute", sent=sent and NOW - sent * HOUR)
    assert judged(one) == ([(level, "sent shop")] if level else [])


def test_nothing_sent_for_days_is_fine_while_nothing_waits() -> None:
    assert judged(lake(sent=NOW - 30 * DAY)) == []


def test_a_host_that_cannot_see_the_lake_judges_by_what_moves_in_the_bucket() -> None:
    one = lake(sees_lake=False, waiting_since=NOW - 30 * HOUR, moved=NOW - HOUR)
    assert judged(one) == []
    (found,) = judge(facts(replace(one, moved=NOW - 13 * HOUR)), LIMITS)
    assert found.level is Level.ALERT
    assert "no progress for 13 h 0 min" in found.text


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"disks": (Disk("/state", 90.1, 10**9),)}, ("Alert", "disk /state")),
        ({"stores": (StoreFacts("bucket", trouble="no answer"),)}, ("Alert", "store bucket")),
        ({"stores": (StoreFacts("bucket", skew=-301.0),)}, ("Alert", "clock bucket")),
        ({"stores": (StoreFacts("lake shop", credentials_end=NOW + 3.9 * HOUR),)}, ("Alert", "ticket lake shop")),
        ({"stores": (StoreFacts("lake shop", credentials_end=NOW - 60),)}, ("Alert", "ticket lake shop")),
        ({"stores": (StoreFacts("bucket", forgets={"shop": "expires after 3 days"}),)}, ("Alert", "rule shop")),
        ({"estop": NOW - 60, "died": {"ship": "pid 7"}}, ("Warning", "estop")),
        ({"died": {"deliver": "pid 7 since then"}}, ("Warning", "program deliver")),
        ({"died": {"ship": "pid 7 since 1", "compute": "pid 7 since 2"}}, ("Warning", "program ship, compute")),
    ],
)
def test_each_trouble_of_a_host_or_a_store_is_one_finding(more: dict[str, Any], expected: tuple[str, str]) -> None:
    assert judged(**more) == [expected]
    assert all(one.hint for one in judge(facts(**more), LIMITS)), "each says what to do"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"missing": ("features/S/7/x",)}, ("Alert", "missing shop")),
        ({"held": ("S.0",)}, ("Alert", "held shop")),
        ({"estop": NOW - 60}, ("Warning", "estop shop")),
        ({"unknown_sets": ("old",)}, ("Alert", "set shop old")),
        ({"troubles": {"refs": "it cannot be read"}}, ("Alert", "source shop refs")),
        ({"refused": {"refs/a.csv": "its version went back"}}, ("Warning", "refused shop refs/a.csv")),
    ],
)
def test_each_trouble_of_a_lake_is_one_finding(more: dict[str, Any], expected: tuple[str, str]) -> None:
    assert judged(lake(**more)) == [expected]


def test_of_a_store_that_does_not_answer_nothing_else_is_judged() -> None:
    broken = StoreFacts("bucket", trouble="no answer", skew=999.0, credentials_end=0.0)
    assert judged(stores=(broken,)) == [("Alert", "store bucket")]


def test_the_worst_comes_first_and_many_files_are_counted() -> None:
    found = judge(facts(lake(missing=tuple(f"f{n}" for n in range(9))), estop=NOW), LIMITS)
    assert [one.level for one in found] == [Level.ALERT, Level.WARNING]
    assert "9 delivered files missing" in found[0].text
    assert "f4 and 4 more" in found[0].text
    assert "f5" not in found[0].text


def test_the_thresholds_are_settings() -> None:
    limits = Health(warning_hours=1, alert_hours=2, disk_percent=50, ticket_hours=0, clock_seconds=1)
    one = facts(
        lake(waiting_since=NOW - 1.5 * HOUR),
        disks=(Disk("/state", 51, 1),),
        stores=(StoreFacts("bucket", skew=2.0, credentials_end=NOW + 1),),
    )
    assert [(f.level.word, f.key) for f in judge(one, limits)] == [
        ("Alert", "clock bucket"), ("Alert", "disk /state"), ("Warning", "sent shop"),
    ]  # fmt: skip


def index_of(**partners: str) -> Index:
    known = {
        name.removeprefix("p"): IndexPartner(jobTimeStamp=version, outputFolder="f", files=(), outputSize=0)
        for name, version in partners.items()
    }
    return Index(partners=known)


def test_freshness_is_the_distance_from_source_to_delivery_the_most_lagging_partner_first() -> None:
    day, next_day = "20231113T000000Z", "20231114T000000Z"
    now = seconds_of(next_day) + HOUR
    found = freshness("demo", index_of(p7=day, p8=next_day, p9=day), {"7": next_day, "8": next_day, "10": day}, now)
    assert [(one.partner, one.lag) for one in found] == [("10", DAY + HOUR), ("7", DAY), ("9", 0.0), ("8", 0.0)]
    assert (found[0].source, found[0].delivered) == (day, "")


def test_of_very_many_partners_the_most_lagging_are_known() -> None:
    many = [Freshness(str(n), "demo", lag=float(n)) for n in range(PARTNERS + 5)]
    kept = most_lagging(many)
    assert len(kept) == PARTNERS
    assert kept[0].partner == str(PARTNERS + 4)


# ---- looks at a world in folders


def settled(world: Folders, tmp_path: Path, **more: Any) -> Settings:
    """The world's settings with folders that are there."""
    health = Health(disk_percent=100.0)
    values = {"state": str(tmp_path / "state"), "bucket": Bucket(url=str(tmp_path / "bucket")), "health": health}
    (tmp_path / "state").mkdir(exist_ok=True)
    return world.settings.model_copy(update={**values, **more})


def look_of(world: Folders, tmp_path: Path, **more: Any) -> Look:
    options: dict[str, Any] = {"expects_lakes": True, "folders": None}
    context = world.context("gate.health")
    settings = more.pop("settings", None) or settled(world, tmp_path)
    return Look(settings, [context], world.hand.clock(), **{**options, **more})


def seen(world: Folders, tmp_path: Path, **more: Any) -> Facts:
    return look_of(world, tmp_path, **more)(lambda key: 0.0)


def findings(world: Folders, tmp_path: Path) -> list[str]:
    return [one.sign for one in judge(seen(world, tmp_path), settled(world, tmp_path).health)]


def test_a_delivered_world_is_ok_and_says_how_fresh_its_partners_are(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}", f"8,b,{url('ok', 2)}")
    world.run()
    found = seen(world, tmp_path)
    (one,) = found.lakes
    assert judge(found, Health(disk_percent=100)) == ()
    assert [(f.partner, f.set) for f in one.freshness] == [("7", "demo"), ("8", "demo")]
    assert one.sent == pytest.approx(world.hand.at, abs=1)
    assert one.folders_checked == 2
    assert [b.shipments for b in one.backlog] == [0, 0, 0, 0]
    assert one.waiting_since is None


def test_the_backlog_is_counted_where_it_waits(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"7,i{n},{url('ok', n)}" for n in range(7)))
    began = world.hand.at
    before = {one.stage: one for one in seen(world, tmp_path).lakes[0].backlog}
    assert before["ship"].shipments == 1, "what no shipment covers yet waits for ship"
    turns = world.turns()
    turns.take("ship")
    world.hand.at += 2 * HOUR
    (one,) = seen(world, tmp_path).lakes
    compute = {b.stage: b for b in one.backlog}["compute"]
    assert (compute.shipments, compute.batches, compute.refs) == (2, 3, 7)
    assert (one.waiting_for, one.waiting_since) == ("compute", pytest.approx(began, abs=60))
    turns.take("compute")
    assert {b.stage: b.shipments for b in seen(world, tmp_path).lakes[0].backlog} == {
        "ship": 0, "compute": 0, "aggregate": 2, "deliver": 0,
    }  # fmt: skip
    turns.take("aggregate")
    assert {b.stage: b.refs for b in seen(world, tmp_path).lakes[0].backlog}["deliver"] == 7


def test_a_world_where_nothing_is_sent_becomes_a_warning_and_an_alert(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.turns().take("ship")
    world.hand.at += 6.1 * HOUR
    assert findings(world, tmp_path) == ["Warning sent shop"]
    world.hand.at += 6 * HOUR
    assert findings(world, tmp_path) == ["Alert sent shop"]
    world.run()
    assert findings(world, tmp_path) == []


def test_refs_that_nobody_ships_are_refs_that_wait(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.hand.at += 13 * HOUR
    assert findings(world, tmp_path) == ["Alert sent shop"]
    looked = look_of(world, tmp_path)(lambda key: world.hand.at - HOUR)
    assert judge(looked, Health(disk_percent=100)) == (), "an old file that came an hour ago waits for an hour"


def test_retries_wait_for_their_day_and_are_no_backlog_until_then(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('down')}")
    world.run()
    (one,) = seen(world, tmp_path).lakes
    assert (one.retries, sum(b.shipments for b in one.backlog)) == (1, 0)
    assert one.next_due == pytest.approx(world.hand.at + HOUR, abs=60)
    world.hand.at += 14 * HOUR
    assert findings(world, tmp_path) == ["Alert sent shop"]


def test_files_that_the_index_names_are_missed_when_they_are_gone_or_cut(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}", f"8,b,{url('ok', 2)}")
    world.run()
    world.on_lake("features/*/7/features/*.parquet").unlink()
    cut = world.on_lake("features/*/8/cnn_features.txt.gz")
    cut.write_bytes(cut.read_bytes()[:-1])
    (one,) = seen(world, tmp_path).lakes
    assert [path.split("/", 2)[2] for path in one.missing] == [
        "7/features/part-00000.parquet", "8/cnn_features.txt.gz",
    ]  # fmt: skip
    assert findings(world, tmp_path) == ["Alert missing shop"]


def test_a_daemon_looks_at_some_folders_at_a_time_and_forgets_no_missing_one(tmp_path: Path) -> None:
    world = world_of(tmp_path, *(f"{partner},a,{url('ok', partner)}" for partner in range(1, 6)))
    world.run()
    world.on_lake("features/*/1/cnn_features.txt.gz").unlink()
    lake_store = LocalStore(world.top / "lake")
    index = read_index(lake_store, Root("features"))
    folders = DeliveredFolders("features")
    for _ in range(3):
        folders.look(lake_store, index, 2)
        assert folders.checked == 2
        assert len(folders.all_missing) == 1
    folders.look(lake_store, index.model_copy(update={"partners": {}}), 2)
    assert folders.all_missing == (), "what the index does not name any more is not missed"


def test_a_held_batch_is_an_alert_until_somebody_answers(tmp_path: Path) -> None:
    from pipeline.stages import operator_requests

    limits = {"strikes": 1, "lost": 1, "strikes_alone": 1, "lost_alone": 1}
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}", compute=limits)
    hold(world)
    assert findings(world, tmp_path) == ["Alert held shop"]
    context = world.context()
    (one,) = operator_requests.held(context)
    operator_requests.answer(context, one.name, one.batch, "drop")
    assert findings(world, tmp_path) == []


def test_a_set_that_is_unknown_here_is_an_alert_and_not_a_stall(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.turns().take("ship")
    world.settings = world.settings.model_copy(update={"sets": {}})
    world.hand.at += 13 * HOUR
    assert findings(world, tmp_path) == ["Alert set shop demo"]


def test_a_source_that_is_gone_and_one_whose_form_changed_are_alerts(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.run()
    world.hand.at += HOUR
    (world.top / "lake" / "refs" / "b.csv").write_text("shop,picture\n1,2\n3,4\n")
    world.run()
    (one,) = seen(world, tmp_path).lakes
    assert list(one.troubles) == ["refs/b.csv"]
    assert "columns or format may have changed" in one.troubles["refs/b.csv"]
    (world.top / "lake" / "refs").rename(world.top / "elsewhere")
    assert "refs" in seen(world, tmp_path).lakes[0].troubles


def test_a_file_that_is_cut_off_is_an_alert_until_it_is_written_again(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.run()
    world.hand.at += HOUR
    rows = [f"8,{number},{url('ok', number)}" for number in range(20)]
    whole = gzip.compress("\n".join(["partner_id,external_id,url", *["no,ref,here"] * 30, *rows]).encode())
    cut = world.top / "lake" / "refs" / "cut.csv.gz"
    cut.write_bytes(whole[:-20])
    world.run()
    (one,) = seen(world, tmp_path).lakes
    assert "rows of refs/cut.csv.gz are missing: the gzip data is cut off" in one.troubles["refs/cut.csv.gz"], (
        "also behind many rows that are no refs"
    )
    assert one.remedies["refs/cut.csv.gz"].startswith("have that file written again")
    world.hand.at += HOUR
    cut.write_bytes(whole)
    os.utime(cut, (world.hand.at, world.hand.at))
    world.run()
    assert seen(world, tmp_path).lakes[0].troubles == {}


def test_an_index_that_is_not_ours_is_an_alert_and_hides_nothing_else(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.run()
    (world.top / "lake/features/outputByPartner").write_text("{not json")
    assert findings(world, tmp_path) == ["Alert source shop features/outputByPartner"]


def test_a_lake_that_is_gone_is_an_alert_on_a_gateway_and_just_not_seen_on_a_box(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.turns().take("ship")
    (world.top / "lake").rename(world.top / "away")
    assert findings(world, tmp_path) == ["Alert store lake shop"]
    far = seen(world, tmp_path, expects_lakes=False)
    assert judge(far, Health(disk_percent=100)) == ()
    assert list(far.unseen) == ["lake shop"]
    assert {b.stage: b.batches for b in far.lakes[0].backlog}["compute"] == 1, "the bucket still tells the backlog"
    refused = {"shop": PermanentError("no ticket", "", "kinit")}
    far = look_of(world, tmp_path, expects_lakes=False, unopened=refused)(lambda key: 0.0)
    assert "lake shop" in far.unseen


class Faulty(LocalStore):
    """A bucket with a clock, an end of its keys, a rule, and perhaps no answer."""

    wrong: tuple[float, float | None, str, bool] = (0.0, None, "", False)

    def list(self, prefix: str, **options: Any) -> Any:
        if self.wrong[3]:
            raise TemporaryError("the bucket does not answer", "timeout", "look at the network")
        listing = super().list(prefix, **options)
        return replace(listing, now=listing.now + self.wrong[0])

    def credentials_end(self) -> float | None:
        return self.wrong[1]

    def forgets(self, prefix: str) -> str:
        if self.wrong[2] == "denied":
            raise PermanentError("not allowed")
        return f"{prefix} {self.wrong[2]}" if self.wrong[2] else ""


def test_clock_keys_and_rules_of_a_store_are_asked_of_it(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.run()
    bucket = Faulty(world.top / "bucket", now=lambda: world.hand.at)
    look = Look(
        settled(world, tmp_path), [replace(world.context(), bucket=bucket)], world.hand.clock(), expects_lakes=True
    )
    bucket.wrong = (400.0, world.hand.at + HOUR, "expires after 3 days", False)
    found = judge(look(lambda key: 0.0), Health(disk_percent=100))
    assert [one.sign for one in found] == ["Alert clock bucket", "Alert rule shop", "Alert ticket bucket"]
    assert "400 s behind" in found[0].text
    bucket.wrong = (0.0, None, "denied", False)
    denied = look(lambda key: 0.0)
    assert judge(denied, Health(disk_percent=100)) == (), "a rule that may not be read hides nothing else"
    assert list(denied.unseen) == ["the bucket's own rules"]
    bucket.wrong = (0.0, None, "", True)
    (one,) = judge(look(lambda key: 0.0), Health(disk_percent=100))
    assert (one.sign, one.hint) == ("Alert store bucket", "look at the network")


def test_estop_and_a_program_that_was_killed_are_warnings(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.run()
    state = Path(settled(world, tmp_path).state)
    with locked(state, "ship"):
        running = seen(world, tmp_path)
        assert f"pid {os.getpid()}" in running.programs["ship"]
    assert seen(world, tmp_path).died == {}, "one that ended as it should is not missed"
    with pytest.raises(KeyboardInterrupt), locked(state, "deliver"):
        raise KeyboardInterrupt
    assert findings(world, tmp_path) == ["Warning program deliver"]
    (state / ESTOP).touch()
    assert findings(world, tmp_path) == ["Warning estop"]
    estop.engage_remote(estop.of_lakes([world.context()]))
    assert findings(world, tmp_path) == ["Warning estop", "Warning estop shop"]
    assert seen(world, tmp_path).lakes[0].alive == (), "it is no process"


# ---- told on change


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.getLogger("hathi")
    before = logger.propagate
    logger.propagate = True
    caplog.set_level(logging.INFO, logger="hathi")
    yield caplog
    logger.propagate = before


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


@pytest.fixture
def hook() -> Iterator[Hook]:
    with hook_server("/hook/token-4711") as server:
        yield server


def notify(mail: MailServer, hook: Hook, **more: Any) -> Notify:
    values = {"mail_to": ["a@shop.example", "b@shop.example"], "smtp_host": "127.0.0.1", "smtp_port": mail.port}
    return Notify.model_validate({**values, "webhook": hook.url, **more})


def step_of(world: Folders, tmp_path: Path, told: Notify, **more: Any) -> Step:
    settings = settled(world, tmp_path, notify=told)
    look = Look(settings, [world.context("gate.health")], world.hand.clock(), expects_lakes=True)
    return Step(settings, look, channels(told), world.hand.clock(), **more)


def test_a_change_is_told_once_by_mail_and_webhook_and_log_and_its_end_too(
    tmp_path: Path, mail: MailServer, hook: Hook, log: pytest.LogCaptureFixture
) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.turns().take("ship")
    step = step_of(world, tmp_path, notify(mail, hook))
    step.look()
    assert (mail.mails, hook.posts, log.messages) == ([], [], []), "OK at the start is no news"
    world.hand.at += 13 * HOUR
    for _ in range(3):
        step.look()
    assert len(mail.mails) == len(hook.posts) == 1
    to, letter = mail.mails[0]
    assert to == ["a@shop.example", "b@shop.example"]
    assert "Alert: lake shop: nothing was delivered for 13 h" in letter["Subject"]
    assert "to do: " in letter.get_content()
    assert hook.posts[0]["level"] == "Alert"
    assert [one["key"] for one in hook.posts[0]["findings"]] == ["sent shop"]
    assert len(log.messages) == 1
    step.close()
    again = step_of(world, tmp_path, notify(mail, hook))
    again.look()
    assert len(mail.mails) == 1, "a restart tells nothing twice"
    world.run()
    again.look()
    assert hook.posts[-1]["level"] == "OK"
    assert hook.posts[-1]["over"] == ["sent shop"]
    assert log.messages[-2:] == ["resolved: sent shop", "OK"]
    again.close()


def test_a_warning_that_becomes_an_alert_is_told_again_and_is_not_over(
    tmp_path: Path, mail: MailServer, hook: Hook
) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.turns().take("ship")
    step = step_of(world, tmp_path, notify(mail, hook))
    for hours in (6.5, 6.0):
        world.hand.at += hours * HOUR
        step.look()
    assert [post["level"] for post in hook.posts] == ["Warning", "Alert"]
    assert hook.posts[1]["over"] == []
    step.close()


def test_what_could_not_be_told_is_said_once_told_later_and_stops_nobody(
    tmp_path: Path, mail: MailServer, hook: Hook, log: pytest.LogCaptureFixture
) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.turns().take("ship")
    world.hand.at += 13 * HOUR
    hook.status, mail.down = 500, True
    step = step_of(world, tmp_path, notify(mail, hook))
    for _ in range(3):
        step.look()
    failed = [text for text in log.messages if "did not take" in text]
    assert len(failed) == 2
    assert "token-4711" not in log.text
    hook.status, mail.down = 204, False
    step.look()
    step.look()
    assert len(hook.posts) == len(mail.mails) == 1
    step.close()


def test_an_old_file_that_has_just_come_waits_since_it_was_first_seen_by_a_program_that_looks(
    tmp_path: Path, hook: Hook
) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    world.hand.at += 100 * HOUR
    told = Notify.model_validate({"webhook": hook.url})
    step = step_of(world, tmp_path, told)
    step.look()
    world.hand.at += 5 * HOUR
    step.look()
    step.close()
    assert hook.posts == []
    world.hand.at += 8 * HOUR
    again = step_of(world, tmp_path, told)
    again.look()
    again.close()
    assert [post["level"] for post in hook.posts] == ["Alert"], "a restart does not begin to count anew"


def test_the_step_is_taken_every_so_often_by_one_program_of_the_host(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    shown: list[float] = []
    first = step_of(world, tmp_path, Notify(), shown=lambda facts, findings: shown.append(facts.at))
    second = step_of(world, tmp_path, Notify(), shown=lambda facts, findings: shown.append(-facts.at))
    for _ in range(3):
        first()
        second()
    assert shown == [world.hand.at]
    world.hand.at += 301
    first.close()
    second()
    first()
    assert shown[1:] == [-world.hand.at], "when the one ends the other takes over"
    second.close()


def test_a_state_folder_that_cannot_be_written_is_said_and_stops_nobody(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    step = step_of(world, tmp_path, Notify())
    step.look()
    (tmp_path / "state" / "health.json").unlink()
    (tmp_path / "state" / "health.json").mkdir()
    step.look()
    assert "cannot be written" in log.text
    step.close()


def test_memory_survives_and_a_damaged_one_is_a_new_one(tmp_path: Path) -> None:
    found = Finding(Level.ALERT, "k", "t")
    memory = Memory().after([found], ["S"], NOW)
    write_memory(tmp_path, replace(memory, told={"mail": ("Alert k",)}))
    read = read_memory(tmp_path)
    assert read.told == {"mail": ("Alert k",)}
    assert read.after([found], ["S"], NOW + 9).since == {"k": NOW}
    assert read.after([found], ["S"], NOW + 9).unplanned == {"S": NOW}
    assert read.dated([found])[0].since == NOW
    assert [path.name for path in tmp_path.iterdir()] == ["health.json"]
    for damaged in ("", "[]", "{", '{"looked": 1}', '{"looked": {}, "since": 1, "unplanned": {}, "told": {}}'):
        (tmp_path / "health.json").write_text(damaged)
        assert read_memory(tmp_path) == Memory()


NEWS = News("gate", NOW, Level.ALERT, (Finding(Level.ALERT, "k", "a text\nwith a line\rmore", "do it", NOW),), ("old",))


def test_a_mail_has_one_line_of_subject_whatever_the_finding_says(mail: MailServer, hook: Hook) -> None:
    assert Mail(notify(mail, hook)).tell(NEWS) == ""
    ((_, letter),) = mail.mails
    assert letter["Subject"] == "Hathi on gate: Alert: a text\\nwith a line\\rmore"
    assert "resolved: old" in letter.get_content()


def test_a_mail_server_that_knows_us_by_a_password_gets_it_and_no_log_does(mail: MailServer, hook: Hook) -> None:
    mail.password = "right"
    secret = {"smtp_user": "hathi", "smtp_password": "right"}
    assert Mail(notify(mail, hook, **secret)).tell(NEWS) == ""
    assert mail.logins == [("hathi", "right")]
    with pytest.raises(TemporaryError) as caught:
        Mail(notify(mail, hook, **{**secret, "smtp_password": "hunter2"})).tell(NEWS)
    assert "535" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "********" in str(caught.value)


def test_who_was_refused_is_said_and_the_others_have_the_mail(mail: MailServer, hook: Hook) -> None:
    mail.refuse = {"b@shop.example"}
    assert "refused b@shop.example" in Mail(notify(mail, hook)).tell(NEWS)
    assert mail.mails[0][0] == ["a@shop.example"]
    mail.refuse |= {"a@shop.example"}
    with pytest.raises(TemporaryError):
        Mail(notify(mail, hook)).tell(NEWS)


def test_a_mail_server_without_tls_gets_nothing_where_tls_is_asked_for(mail: MailServer, hook: Hook) -> None:
    with pytest.raises(TemporaryError, match="STARTTLS"):
        Mail(notify(mail, hook, smtp_tls=True, smtp_user="hathi", smtp_password="right")).tell(NEWS)
    assert (mail.mails, mail.logins) == ([], [])


def test_the_password_goes_through_tls_and_only_to_the_server_of_that_name(
    tmp_path: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = self_signed(tmp_path, "localhost")
    with mail_server(tls=trusted) as mail:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        secret = {"smtp_tls": True, "smtp_user": "hathi", "smtp_password": "right", "smtp_host": "localhost"}
        assert Mail(notify(mail, hook, **secret)).tell(NEWS) == ""
        assert (mail.secured, mail.logins) == ([True], [("hathi", "right")])
        with pytest.raises(TemporaryError, match="certificate"):
            Mail(notify(mail, hook, **{**secret, "smtp_host": "127.0.0.1"})).tell(NEWS)
        assert len(mail.logins) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 404, 500])
def test_a_webhook_that_does_not_take_it_is_told_of_by_its_host_alone(hook: Hook, status: int) -> None:
    hook.status = status
    with pytest.raises(TemporaryError) as caught:
        Webhook(hook.url).tell(NEWS)
    assert f"status {status}" in str(caught.value)
    assert "token-4711" not in f"{caught.value} {Webhook(hook.url)!r}"


@pytest.mark.parametrize("broken", ["http://127.0.0.1:1/token-4711", "ftp://x/token-4711", "token-4711", "http://[/t"])
def test_a_webhook_that_cannot_be_reached_is_no_secret_in_the_log(broken: str) -> None:
    with pytest.raises(TemporaryError) as caught:
        Webhook(broken).tell(NEWS)
    assert "token-4711" not in str(caught.value)
    assert caught.value.__suppress_context__, "a trace would show it"


def test_nobody_is_told_where_nobody_is_configured() -> None:
    assert channels(Notify()) == []


def test_a_time_in_a_hint_is_what_a_shipment_waits_since() -> None:
    from pipeline.operations.health.backlog import waiting_since

    assert waiting_since(FIRST_DUE, 5.0) == 5.0
    assert waiting_since(version_of(NOW), NOW + 99) == NOW


def test_real_clocks_are_what_a_look_takes_by_default(tmp_path: Path) -> None:
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}")
    found = Look(settled(world, tmp_path), [world.context()], Clock(), expects_lakes=True)(lambda key: 0.0)
    assert [store.name for store in found.stores] == ["bucket", "lake shop"]
