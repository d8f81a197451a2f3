"""An image that did not change is computed once: what is found again, when it is used, and what is never used."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.codec.reuse_pages import PageIndex, Remembered, decode, digests_of, encode, url_digest
from pipeline.errors import FormatError, PermanentError
from pipeline.ledger.bodies import body_of
from pipeline.ledger.deliveries import PartnerManifest
from pipeline.ledger.manifest import Out
from pipeline.operations.health.facts import LakeFacts
from pipeline.operations.open_shipments import open_shipments
from pipeline.operations.report.gather import gather
from pipeline.operations.report.page import page
from pipeline.operations.report.scope import scope_of
from pipeline.operations.report.standing import standing
from pipeline.operations.why import story
from pipeline.operations.why.story import question_of
from pipeline.settings import Settings
from pipeline.stages import operator_requests, remembering
from pipeline.times import DAY
from tests.simulation.memory import MemoryStore
from tests.simulation.world import World, feature, settings_of
from tests.unit.test_archive import back_fill

HEADER = "partner_id,external_id,url\n"
SETS = {"demo": {"net": "n", "blob": "b", "root": "features"}}
PAGES, INDEXES = "shop/u/", "shop/u/i/"


class Days(World):
    """A source that comes again each day."""

    def day(self, urls: list[str], partner: int = 7) -> None:
        """The source as of the next day, through all stages."""
        self.hand.at += DAY
        lines = (f"{partner},item{at},{url}\n" for at, url in enumerate(urls))
        self.put_refs("a.csv", HEADER + "".join(lines))
        self.hand.at += 10
        self.hosts.sent.clear()
        self.computed.clear()
        self.run()

    def rows(self) -> dict[str, dict[str, Any]]:
        """The features of the newest version, by URL."""
        tables = [path for path in sorted(self.delivered()) if "/features/part-" in path]
        newest = max(path.split("/")[1][:16] for path in tables)
        content = (self.delivered()[path] for path in tables if path.split("/")[1].startswith(newest))
        return {row["url"]: row for one in content for row in pq.read_table(io.BytesIO(one)).to_pylist()}

    def outs(self) -> list[Out]:
        """Of the newest version."""
        keys = sorted(key for key in self.bucket.files if key.startswith("shop/c/") and key.endswith("/out"))
        newest = max(key.split("/")[2][:16] for key in keys)
        return [body_of(Out, self.bucket.files[key][0], key) for key in keys if key.split("/")[2].startswith(newest)]

    def reused(self) -> tuple[int, int]:
        """Of the newest version: not modified, and of equal bytes."""
        return sum(one.not_modified for one in self.outs()), sum(one.equal_bytes for one in self.outs())

    def pages(self, top: str = PAGES) -> list[str]:
        return sorted(key for key in self.bucket.files if key.startswith(top))


def ok(*numbers: int) -> list[str]:
    """URLs of a host that names tags."""
    return [f"http://shop.example/ok-{number}" for number in numbers]


def plain(*numbers: int) -> list[str]:
    """URLs of a host that does not."""
    return [f"http://shop.example/plain-{number}" for number in numbers]


@pytest.fixture
def days(tmp_path: Path) -> Days:
    return Days(tmp_path, settings_of(sets=SETS, ship={"batch_refs": 4, "batches_per_shipment": 100}))


def test_on_the_second_day_nothing_is_sent_or_computed_that_did_not_change(days: Days) -> None:
    urls = ok(*range(20))
    days.day(urls)
    assert len(days.computed) == 20
    assert days.reused() == (0, 0)
    first = {url: row["features"] for url, row in days.rows().items()}
    days.hosts.revisions[urls[3]] = 1
    days.day(urls)
    assert days.hosts.sent == [urls[3]]
    assert days.computed == [days.hosts.image(urls[3])]
    rows = days.rows()
    assert {url: row["features"] for url, row in rows.items() if url != urls[3]} == {
        url: values for url, values in first.items() if url != urls[3]
    }
    assert rows[urls[3]]["features"] == pytest.approx(feature(days.hosts.image(urls[3])))
    assert days.reused() == (19, 0)
    assert sum(one.features for one in days.outs()) == 20
    days.day(urls)
    assert days.computed == []
    assert days.reused() == (20, 0)
    assert days.rows()[urls[3]]["features"] == rows[urls[3]]["features"], "the newest of two memories"


def test_equal_bytes_of_a_host_without_tags_are_computed_once(days: Days) -> None:
    urls = plain(*range(8))
    days.day(urls)
    days.hosts.revisions[urls[0]] = 1
    days.day(urls)
    assert sorted(days.hosts.sent) == urls
    assert days.computed == [days.hosts.image(urls[0])]
    assert days.reused() == (0, 7)


def test_a_row_says_when_its_bytes_were_fetched_and_its_shard_how_it_was_used_again(days: Days) -> None:
    days.day([*ok(1), *plain(1)])
    before = days.rows()
    days.day([*ok(1), *plain(1), *ok(2)])
    rows = days.rows()
    assert rows[ok(1)[0]]["fetched_at"] == before[ok(1)[0]]["fetched_at"]
    assert rows[plain(1)[0]]["fetched_at"] > before[plain(1)[0]]["fetched_at"]
    assert rows[ok(1)[0]]["etag"] == '"0"'
    shards = [key for key in days.bucket.files if key.endswith("features.parquet")]
    tables = [pq.read_table(io.BytesIO(days.bucket.files[key][0])).to_pylist() for key in sorted(shards)]
    assert [{row["url"].rpartition("/")[2]: row.get("reused") for row in table} for table in tables] == [
        {"ok-1": None, "plain-1": None},
        {"ok-1": "not_modified", "plain-1": "equal_bytes", "ok-2": None},
    ]
    assert "reused" not in tables[0][0], "a shard without it is what it was"
    told = {at: rows[at]["reused"] for at in (ok(1)[0], plain(1)[0], ok(2)[0])}
    assert told == {ok(1)[0]: "not_modified", plain(1)[0]: "equal_bytes", ok(2)[0]: None}, "it is delivered as well"


def test_another_fingerprint_finds_nothing(days: Days) -> None:
    days.day(ok(1, 2))
    days.fingerprints["demo"] = "ef" * 32
    days.day(ok(1, 2))
    assert len(days.computed) == 2
    assert days.reused() == (0, 0)
    assert len({key.split("/")[3] for key in days.pages()}) == 2


def test_another_fingerprint_with_the_same_beginning_finds_nothing(days: Days) -> None:
    """Keys carry 12 digits of 64."""
    days.day(ok(1, 2))
    days.fingerprints["demo"] = "ab" * 6 + "cd" * 26
    days.day(ok(1, 2))
    assert len(days.computed) == 2


def test_another_engine_finds_nothing(days: Days) -> None:
    """Its bits are others, and `out` says which engine made them."""
    days.day(ok(1, 2))
    for key in days.pages(INDEXES):
        content, modified, serial = days.bucket.files[key]
        index = replace(PageIndex.decode(content, key), engine="another")
        days.bucket.files[key] = (index.encode(), modified, serial)
    days.day(ok(1, 2))
    assert len(days.computed) == 2


def test_a_set_that_does_not_want_it_asks_and_keeps_nothing(tmp_path: Path) -> None:
    days = Days(tmp_path, settings_of(sets={"demo": {**SETS["demo"], "reuse": False}}))
    days.day(ok(1, 2))
    days.day(ok(1, 2))
    assert len(days.computed) == 2
    assert days.pages() == []


def test_what_a_person_ships_again_is_computed_again_and_found_from_then_on(days: Days) -> None:
    days.day(ok(1, 2))
    context = days.context()
    (found,) = operator_requests.newest(context, "", ["demo"])
    days.computed.clear()
    operator_requests.again(context, *found)
    days.run()
    assert len(days.computed) == 2
    days.day(ok(1, 2))
    assert days.computed == []


def test_failures_are_never_used_again(days: Days) -> None:
    urls = [f"http://shop.example/{kind}-1" for kind in ("junk", "nan", "gone", "down")]
    days.day(urls)
    first = sorted(days.computed)
    days.day(urls)
    assert sorted(days.computed) == first
    assert len(first) == 2
    assert sum(days.reused()) == 0
    assert days.pages() == []


def test_a_new_item_with_a_known_picture_is_not_computed(days: Days) -> None:
    days.day(ok(1, 2))
    days.hosts.image = lambda url, revision=None: ok(1)[0].encode()  # type: ignore[method-assign]
    days.day([*ok(1), *plain(9)])
    assert days.computed == []
    assert days.reused() == (1, 1)


@pytest.mark.parametrize("damage", ["no data", "no index", "torn data", "torn index", "short data", "another format"])
def test_a_memory_that_is_lost_or_damaged_costs_a_fetch(days: Days, damage: str) -> None:
    days.day(ok(*range(6)))
    for key in days.pages():
        is_index = key.startswith(INDEXES)
        content, modified, serial = days.bucket.files[key]
        if damage == ("no index" if is_index else "no data"):
            del days.bucket.files[key]
        elif damage == "short data" and not is_index:
            days.bucket.files[key] = (content[:100], modified, serial)
        elif damage == ("torn index" if is_index else "torn data"):
            torn = bytes(255 - byte if at % 7 == 0 else byte for at, byte in enumerate(content))
            days.bucket.files[key] = (torn, modified, serial)
        elif damage == "another format" and is_index:
            days.bucket.files[key] = (content.replace(b'"format": 1', b'"format": 2'), modified, serial)
    days.said.clear()
    days.day(ok(*range(6)))
    assert len(days.computed) == 6
    assert len(days.rows()) == 6
    assert any("not all found again" in text for text in days.said) == (not damage.startswith("no "))


def test_a_store_that_refuses_the_memory_stops_nothing(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    real = MemoryStore.put

    def put(store: MemoryStore, key: str, body: bytes | Path) -> None:
        if key.startswith(PAGES):
            raise PermanentError("no room", "", "")
        real(store, key, body)

    monkeypatch.setattr(MemoryStore, "put", put)
    days.day(ok(1, 2))
    assert len(days.rows()) == 2
    assert days.pages() == []
    assert any("no room" in text for text in days.said)


def test_a_batch_reads_its_refs_and_not_all_that_is_remembered(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembering, "PAGE_ROWS", 10)
    monkeypatch.setattr(remembering, "_GAP", 0)
    days.day(ok(*range(100)))
    read: list[tuple[str, int]] = []
    real = MemoryStore.open

    def opened(store: MemoryStore, key: str) -> Any:
        stream = real(store, key)
        reading = stream.read

        def counted(size: int = -1) -> bytes:
            content: bytes = reading(size)
            read.append((key, len(content)))
            return content

        class Counted(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                stream.seek(self.tell())
                self.seek(self.tell() + max(0, size or 0))
                return counted(-1 if size is None else size)

        return Counted(store.disk.files[key][0]) if key.startswith(PAGES) else stream

    monkeypatch.setattr(MemoryStore, "open", opened)
    total = sum(len(days.bucket.files[key][0]) for key in days.pages("shop/u/d/"))
    days.day(ok(3, 50, 51))
    assert days.computed == []
    assert len({key for key, _ in read}) == 2
    assert sum(size for _, size in read) == pytest.approx(total * 3 / 100, rel=0.05)


def test_partners_of_many_refs_have_a_scope_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembering, "OWN_SCOPE", 3)
    days = Days(tmp_path, settings_of(sets=SETS, ship={"batch_refs": 6, "batches_per_shipment": 2}))
    days.day(ok(*range(6)), partner=7)
    days.day(ok(10, 11), partner=8)
    assert {key.split("/")[4] for key in days.pages()} == {"p7", "mixed"}
    days.day(ok(*range(6)), partner=7)
    assert days.computed == []
    days.day(ok(*range(6)), partner=9)
    assert len(days.computed) == 6, "what is of one partner is not looked for by another"


def test_what_is_used_again_is_kept_anew_at_half_of_its_time(days: Days) -> None:
    days.day(ok(1, 2))
    first = days.pages()
    for _ in range(10):
        days.day(ok(1, 2))
    assert days.pages() == first, "a day on which nothing changed writes nothing"
    days.hand.at += 10 * DAY
    days.day(ok(1, 2))
    assert days.computed == []
    assert len(days.pages()) == 4
    days.hand.at += 10 * DAY
    days.pruner().prune()
    assert len(days.pages()) == 2
    assert not set(days.pages()) & set(first)
    days.day(ok(1, 2))
    assert days.computed == []


def test_prune_keeps_what_is_remembered_within_its_bytes(days: Days) -> None:
    days.day(ok(1, 2))
    first = days.pages()
    days.day(ok(3, 4))
    size = sum(len(days.bucket.files[key][0]) for key in days.pages())
    days.settings = days.settings.model_copy(
        update={"prune": days.settings.prune.model_copy(update={"reuse_bytes": size - 1})}
    )
    days.pruner().prune()
    left = days.pages()
    assert not set(first) & set(left), "what was kept the longest went first"
    assert len(left) == 2


def test_a_process_holds_no_more_of_what_is_remembered_than_it_may(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    days.day(ok(1, 2))
    days.day(ok(3, 4))
    newest = max(days.pages(INDEXES))
    monkeypatch.setattr(remembering, "MOST_INDEX", len(days.bucket.files[newest][0]))
    days.day(ok(1, 2, 3, 4))
    assert sorted(days.computed) == [url.encode() for url in ok(1, 2)]


def test_the_scopes_of_many_partners_take_no_more_than_those_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembering, "OWN_SCOPE", 2)
    days = Days(tmp_path, settings_of(sets=SETS, ship={"batch_refs": 2, "batches_per_shipment": 9}))
    lines = [f"{partner},item{at},{ok(10 * partner + at)[0]}" for partner in (7, 8, 9, 7) for at in range(2)]
    turns = days.turns("box.daemon")
    for computed in (6, 0):
        days.hand.at += DAY
        days.put_refs("a.csv", HEADER + "".join(f"{line}\n" for line in lines))
        days.hand.at += 10
        days.computed.clear()
        days.run(turns)
        assert len(set(days.computed)) == computed, "the first partner comes twice, and is found both times"
        monkeypatch.setattr(remembering, "MOST_INDEX", len(days.bucket.files[days.pages(INDEXES)[0]][0]))
    scopes = [one for one in turns.context.kept.values() if isinstance(one, remembering.Scope)]
    assert len(scopes) == 1


def test_a_daemon_finds_what_was_remembered_since_it_began(days: Days) -> None:
    turns = days.turns("box.daemon")
    for urls, computed in ((ok(1, 2), 2), (ok(1, 2, 3), 1), (ok(1, 2, 3), 0)):
        days.hand.at += DAY
        days.put_refs("a.csv", HEADER + "".join(f"7,item{at},{url}\n" for at, url in enumerate(urls)))
        days.hand.at += 10
        days.computed.clear()
        days.run(turns)
        assert len(days.computed) == computed


def test_a_record_is_kept_to_the_bit() -> None:
    values = np.array([1.0, -0.0, 1e-42, np.pi], np.float32)
    noon = datetime(2026, 2, 3, 12, 0, 0, 7, tzinfo=UTC)
    for one in (
        Remembered(url_digest("a"), url_digest("b"), bytes(32), noon, '"x"', None, "torn", values),
        Remembered(url_digest("\udc80"), url_digest("b"), bytes(32), noon, None, "", None, b"an image"),
    ):
        record = encode(one)
        found = decode(record, "page")
        assert encode(found) == record
        assert (found.etag, found.last_modified, found.damage) == (one.etag, one.last_modified, one.damage)
        assert found.fetched_at == noon
        assert bytes(found.values) == bytes(one.values)
        for at in range(len(record)):
            with pytest.raises(FormatError):
                decode(record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :], "page")


def test_an_index_that_was_changed_is_not_believed() -> None:
    index = PageIndex("ab" * 32, "e", ("k",), digests_of([url_digest("a")]), np.array([200], np.uint64))
    content = index.encode()
    assert PageIndex.decode(content, "i").engine == "e"
    for damaged in (content[:-1], content + b"x", b"", b"[]\n", content[:-1] + bytes([content[-1] ^ 1])):
        with pytest.raises(FormatError, match="i cannot be read"):
            PageIndex.decode(damaged, "i")


@pytest.mark.parametrize("ends", [[200, 100], [1, 200], [200, 2**40], [2**63, 2**63 + 200]])
def test_an_index_whose_records_end_where_none_can_is_refused(ends: list[int]) -> None:
    """Whoever can write to the bucket makes nobody read more than a record."""
    digests = digests_of([url_digest("a"), url_digest("b")])
    content = PageIndex("ab" * 32, "e", (), digests, np.array(ends, np.uint64)).encode()
    with pytest.raises(FormatError, match="ends where none can"):
        PageIndex.decode(content, "i")


def test_people_are_told_how_many_features_were_used_again(days: Days) -> None:
    days.day([*ok(1, 2, 3), *plain(1)])
    days.hosts.revisions[ok(3)[0]] = 1
    days.day([*ok(1, 2, 3), *plain(1)])
    newest = max(path.split("/")[1] for path in days.delivered() if path.endswith("_manifest.json"))[:16]
    manifests = [
        body_of(PartnerManifest, content, path)
        for path, content in sorted(days.delivered().items())
        if path.endswith("_manifest.json") and path.split("/")[1].startswith(newest)
    ]
    assert [(one.features, one.not_modified, one.equal_bytes) for one in manifests] == [(4, 2, 1)]

    context = days.context()
    report = gather([context], scope_of("today", days.hand.at), True)
    assert (report.first.not_modified, report.first.equal_bytes, report.first.features) == (2, 1, 4)
    shown = page(report)
    assert "used again: the host said that the image did not change" in shown
    assert "used again: the host sent the same bytes" in shown

    hour = standing(context, LakeFacts(context.lake_name, days.hand.at), open_shipments(context)).last_hour
    assert (hour.features, hour.not_modified, hour.equal_bytes) == (4, 2, 1)

    told = [story(context, question_of(7, f"item{at}")).chapters[-1] for at in (0, 2, 3)]
    assert [one.refs[0].outcome.reused for one in told] == ["not_modified", "", "equal_bytes"]


def keeping(**archive: bool) -> Settings:
    """Settings of a box that keeps images, and of two sets over one source."""
    sets = {name: {"net": "n", "blob": "b", "root": f"features-{name}"} for name in ("demo", "other")}
    ship = {"batch_refs": 4, "batches_per_shipment": 100}
    return settings_of(sets=sets, ship=ship, archive=archive, compute={"free_bytes": 0})


def test_a_box_that_keeps_images_fetches_them_whole_and_computes_none_twice(tmp_path: Path) -> None:
    """The archive has all of each snapshot, so that a back-fill asks no host."""
    days = Days(tmp_path, keeping(enabled=True))
    urls = ok(*range(6))
    days.day(urls)
    days.day(urls)
    assert sorted(days.hosts.sent) == sorted(2 * urls), "by two sets"
    assert days.computed == []
    assert days.reused() == (0, 12)
    days.hosts.sent.clear()
    back_fill(days)
    assert days.hosts.sent == []
    assert len(days.computed) == 6


def test_an_image_of_the_archive_is_remembered_like_a_fetched_one(tmp_path: Path) -> None:
    days = Days(tmp_path, keeping(enabled=True, read=True))
    urls = ok(*range(6))
    days.day(urls)
    assert sorted(days.hosts.sent) == urls, "the second set takes them from the archive"
    days.settings = keeping()
    days.day(urls)
    assert days.hosts.sent == []
    assert days.computed == []
    assert days.reused() == (12, 0)


def test_an_image_of_the_archive_whose_feature_is_known_is_not_computed(tmp_path: Path) -> None:
    days = Days(tmp_path, keeping(enabled=True, read=True))
    urls = ok(*range(6))
    days.day(urls)
    days.day(urls)
    assert sorted(days.hosts.sent) == urls, "once for two sets"
    assert days.computed == []
    assert days.reused() == (0, 12)
