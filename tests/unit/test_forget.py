"""A person's right: an item, or all of a partner, is gone from everywhere; over stores in memory."""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import pipeline.operations.forget as forget_room
from pipeline.app.forgetting import go_on, request
from pipeline.cli.forget import _NEXT, _lines
from pipeline.codec.packs import read_index
from pipeline.codec.reuse_pages import url_digest
from pipeline.errors import PermanentError, PipelineError, Unknown
from pipeline.extraction.packing import Pack
from pipeline.ledger import forgetting
from pipeline.ledger.archive import Archived
from pipeline.ledger.bodies import body_of
from pipeline.ledger.deliveries import Index, PartnerManifest
from pipeline.ledger.forgetting import Forgotten, Request, finish, open_requests
from pipeline.ledger.layout import ArchivedBatch, Keys, Root
from pipeline.ledger.made import note_made
from pipeline.ledger.manifest import End, Plan
from pipeline.ledger.protocol import Context
from pipeline.operations.forget import Outcome, _forget, bucket, folders, forget, packs
from pipeline.operations.forget import tables as tables_room
from pipeline.operations.forget.whose import Pass
from pipeline.operations.verify import verify
from pipeline.records import item_id_of, signed
from pipeline.stages import archiving, operator_requests, remembering, whole_folder
from pipeline.stages.compact import compacting
from pipeline.stages.compact.running import run as compact
from pipeline.stores.store import Entry, Lake
from tests.faults.gate import CHANGES
from tests.simulation.memory import MemoryStore
from tests.simulation.world import World, feature
from tests.unit.test_archive import ON, back_fill, findings, in_archive, manifests
from tests.unit.test_rounds import held_name, held_world
from tests.unit.test_stages import tables, url, world_of

KEYS = Keys("shop")
DAY = 86400.0
REUSE = {"sets": {"demo": {"net": "n", "blob": "b", "root": "features"}}}
"""Features are used again, as is the default."""
SECRET = "secret-item"
"""The external id of whom is to be forgotten."""


def lines_of(partner: int = 7) -> tuple[str, ...]:
    return (
        f"{partner},a,{url('ok', 1)}",
        f"{partner},{SECRET},{url('ok', 99)}",
        f"8,b,{url('ok', 2)}",
        f"8,{SECRET},{url('ok', 3)}",
        f"{partner},c,{url('gone', 4)}",
    )


def world_with(tmp_path: Path, *lines: str, **changes: object) -> World:
    world = world_of(tmp_path, *(lines or lines_of()), **{**ON, **REUSE, **changes})
    world.run()
    return world


def told(world: World) -> Iterator[tuple[str, str]]:
    """Each file of bucket and lake as text, packed or not: (where, what it holds)."""
    for disk, where in ((world.bucket, "bucket"), (world.lake, "lake")):
        for key, (content, _, _) in disk.files.items():
            if key.startswith("refs/"):
                continue  # the source is not Hathi's
            text = content.decode("latin-1")
            if content.startswith(b"PAR1"):
                text += repr(pq.read_table(io.BytesIO(content)).to_pylist())
            elif content.startswith(b"\x1f\x8b"):
                text += gzip.decompress(content).decode()
            yield f"{where} {key}", f"{key}\n{text}"


def left_of(world: World, partner: int = 7, item: str = SECRET, image: str = url("ok", 99)) -> list[str]:
    """Where something of it still is: its image (whose bytes are its URL here), its id as number, its feature."""
    number = item_id_of(item)
    values = " ".join(str(round(1e6 * float(v))) for v in feature(image.encode()))
    wanted = [image, f"{number}", f"{signed(number)}", number.to_bytes(8, "little").decode("latin-1"), values]
    partners = {f"{partner} {number}", f"'partner_id': {partner}, 'item_id': {signed(number)}"}
    return [
        where
        for where, text in told(world)
        if image in text
        or url_digest(image).decode("latin-1") in text
        or feature(image.encode()).astype("<f4").tobytes().decode("latin-1") in text
        or values in text
        or any(one in text for one in partners)
        or (item != SECRET and any(one in text for one in wanted))
    ]


def test_a_back_fill_whose_refs_went_reads_the_source_again(tmp_path: Path) -> None:
    """Also for the partners of whom nothing was forgotten."""
    world = world_with(tmp_path)
    world.fingerprints = {**world.fingerprints, "demo": "99" * 32}
    context = world.context()
    ((name, plan),) = operator_requests.newest(context, "", ["demo"])
    first = operator_requests.again(context, name, plan, backfill=True)
    assert body_of(Plan, world.bucket.files[KEYS.plan(first)][0], "").kind == "backfill"
    ask(world)
    (asked,) = do(world)
    assert asked.waiting == (f"{first} is being read: nobody knows all of its refs yet",)
    world.run()
    void = body_of(End, world.bucket.files[KEYS.end(first)][0], "").void or ""
    later = replace(first, round=2)
    ((second, again),) = operator_requests.newest(world.context(), "", ["demo"])
    assert (second.version, second.round, second.part) == (later.version, later.round, 0)
    assert void.endswith(f"its source is read again: {second}")
    assert (again.kind, again.from_archive) == ("again", True)
    prints = {body.partner_id: body.fingerprint for body in manifests_of(world).values() if body.round == 2}
    assert prints == {7: "99" * 32, 8: "99" * 32}
    (done,) = do(world)
    assert not done.waiting
    world.run()
    assert [one for one in world.bucket.files if "/h/open" in one] == []


def ask(world: World, item: str = SECRET, partner: int = 7) -> None:
    request([world.context()], partner, item, "a person asked")


def do(world: World) -> list[Outcome]:
    return list(forget(world.context()))


def manifests_of(world: World) -> dict[str, PartnerManifest]:
    files = world.delivered()
    return {
        key: body_of(PartnerManifest, files[key], key)
        for key in files
        if key.endswith("/_manifest.json") and "_current" not in key
    }


def index_of(world: World) -> Index:
    return body_of(Index, world.lake.files["features/outputByPartner"][0], "index")


def test_an_item_is_gone_from_everywhere_and_all_others_stay(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    assert len(left_of(world)) >= 5, "the test looks where it is"
    before = [row for row in tables(world, "features") if (row["partner_id"], row["external_id"]) != (7, SECRET)]
    ask(world)
    (outcome,) = do(world)
    assert outcome.waiting == ()
    assert outcome.removed["row"] == 1
    assert outcome.removed["image"] == 1
    assert left_of(world) == []
    assert tables(world, "features") == before
    assert {row["external_id"] for row in before} == {"a", "b", SECRET}, "another partner's item of that name stays"
    assert [row["external_id"] for row in tables(world, "failures")] == ["c"]
    assert findings(world, deep=True) == []
    assert do(world) == []
    (done,) = [key for key in world.bucket.files if key.startswith("shop/f/")]
    body = body_of(Forgotten, world.bucket.files[done][0], done)
    assert body.digest == Request(partner_id=7, items=(item_id_of(SECRET),), at=body.asked).digest


def test_the_index_says_what_is_left(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    version = index_of(world).version
    ask(world)
    do(world)
    index = index_of(world)
    assert index.version == version + 1
    for one in index.deliveries:
        body = manifests_of(world)[f"features/{one.folder}/_manifest.json"]
        assert one.files == body.files
        assert (one.features, one.failures) == (body.features, body.failures)
    for partner, entry in index.partners.items():
        assert entry.outputSize == sum(len(world.lake.files[f"features/{file}"][0]) for file in entry.files), partner
    assert sum(body.forgotten for body in manifests_of(world).values()) == 1


def test_all_of_a_partner_goes_and_its_folder_says_so(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    ask(world, item="", partner=8)
    (outcome,) = do(world)
    assert outcome.waiting == ()
    assert {row["partner_id"] for row in tables(world, "features") + tables(world, "failures")} == {7}
    for number, name in ((2, "b"), (3, SECRET)):
        assert left_of(world, 8, name, url("ok", number)) == []
    eight = [body for body in manifests_of(world).values() if body.partner_id == 8]
    assert [(body.features, body.failures, body.files) for body in eight] == [(0, 0, ())] * len(eight)
    assert sum(body.forgotten for body in eight) == 2
    assert findings(world, deep=True) == []
    assert index_of(world).partners["8"].files == ()


def test_an_image_that_another_item_has_as_well_stays_with_it(tmp_path: Path) -> None:
    world = world_with(tmp_path, f"7,{SECRET},{url('ok', 5)}", f"7,b,{url('ok', 5)}", f"7,c,{url('ok', 6)}")
    ask(world)
    do(world)
    (body,) = manifests(world)
    assert body.pack is not None
    assert body.index is not None
    assert (body.pack.rows, body.index.rows, body.forgotten) == (2, 2, 1)
    assert findings(world, deep=True) == []


def test_a_back_fill_afterwards_reads_the_other_images_of_the_pack(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    ask(world)
    do(world)
    back_fill(world)
    assert url("ok", 1) not in world.asked
    assert url("ok", 99) in world.asked, "the source still names the item: it is a new ref, and is fetched"


def test_what_is_open_is_delivered_first_and_then_goes(tmp_path: Path) -> None:
    """It is a retry twice: its URL answers at the third try."""
    world = world_of(tmp_path, f"7,a,{url('ok', 1)}", f"7,{SECRET},{url('later', 2)}", **ON)
    world.run(stages=("ship", "compute"))
    ask(world)
    for delay in (0, 3700, 86500):
        world.hand.at += delay
        assert any("is open" in why for why in do(world)[0].waiting)
        world.run()
    (outcome,) = do(world)
    assert outcome.waiting == ()
    assert open_requests(world.context()) == {}
    assert left_of(world, image=url("later", 2)) == []
    assert findings(world, deep=True) == []


def test_a_shipment_whose_plan_cannot_be_read_is_waited_for_and_left_alone(tmp_path: Path) -> None:
    """Whether it is new nobody can tell: a retry is planned after the request, and its snapshot before."""
    world = world_with(tmp_path)
    ask(world)
    plans = {key: world.bucket.files[key] for key in world.bucket.files if key.endswith("/plan")}
    for key in plans:
        world.bucket.write(key, b"?")
    rows = tables(world, "features")
    (outcome,) = do(world)
    assert any("cannot be read" in one for one in outcome.waiting)
    assert tables(world, "features") == rows
    world.bucket.files.update(plans)
    (outcome,) = do(world)
    assert outcome.waiting == ()
    assert left_of(world) == []


@pytest.mark.parametrize("part", [0, 1])
def test_what_is_still_being_read_is_waited_for(tmp_path: Path, part: int) -> None:
    """The snapshot was planned before the request; the ref of the item is read after it."""
    lines = [f"8,x{number},{url('ok', number)}" for number in range(7)]
    world = world_of(tmp_path, *lines, f"7,{SECRET},{url('ok', 99)}", **{**ON, **REUSE})
    world.turns().take("ship")
    for key in list(world.bucket.files):  # as if the gateway was killed after the plan, or before the next part
        planned = part == 0 and ".00000.0-" in key and key.endswith("/plan")
        if not planned and not key.startswith("shop/h/") and (part == 0 or ".00001.0-" in key):
            del world.bucket.files[key]
    assert left_of(world) == []
    ask(world)
    (outcome,) = do(world)
    assert len(outcome.waiting) == 1
    assert "is being read" in outcome.waiting[0]
    world.run()
    (outcome,) = do(world)
    assert outcome.waiting == ()
    assert outcome.removed["row"] == 1
    assert left_of(world) == []
    assert len(tables(world, "features")) == 7


def test_a_held_batch_is_named_and_goes_once_it_is_answered(tmp_path: Path) -> None:
    world = held_world(tmp_path)
    name = held_name(world)
    row = tables(world, "failures")[0]
    ask(world, str(row["external_id"]), int(str(row["partner_id"])))
    (outcome,) = do(world)
    assert any("is held" in why for why in outcome.waiting)
    operator_requests.answer(world.context(), name, 0, "drop")
    world.run()
    (outcome,) = do(world)
    assert outcome.waiting == ()
    assert str(row["external_id"]) not in {str(one["external_id"]) for one in tables(world, "failures")}


def test_a_current_table_is_written_anew_and_older_ones_go(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    assert [one.won for one in compact(world.context())] == [True, True]
    world.hand.at += DAY
    world.put_refs("a.csv", f"partner_id,external_id,url\n7,e,{url('ok', 7)}\n")
    world.hand.at += 10
    world.run()
    list(compact(world.context()))
    ask(world)
    (outcome,) = do(world)
    assert outcome.waiting == ()
    assert left_of(world) == []
    current = index_of(world).current["7"]
    kept = [key for key in world.delivered() if key.startswith("features/_current/7/")]
    assert {key.split("/")[3] for key in kept} == {current.folder.rpartition("/")[2]}
    rows = [
        row
        for key in kept
        if key.endswith(".parquet")
        for row in pq.read_table(io.BytesIO(world.delivered()[key])).to_pylist()
    ]
    assert sorted(row["external_id"] for row in rows) == ["a", "e"]
    assert current.features == 2
    assert findings(world, deep=True) == []
    list(compact(world.context()))
    assert left_of(world) == []


def test_refs_that_come_after_the_request_are_accepted(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    ask(world)
    world.hand.at += 100
    world.put_refs("a.csv", "partner_id,external_id,url\n" + f"7,{SECRET},{url('ok', 99)}\n")
    world.hand.at += 10
    world.run()
    (outcome,) = do(world)
    assert outcome.waiting == ()
    rows = [row for row in tables(world, "features") if row["external_id"] == SECRET and row["partner_id"] == 7]
    assert len(rows) == 1, "the older one went, and the newer one stays"
    assert findings(world, deep=True) == []


def pages(world: World) -> list[str]:
    return sorted(key for key in world.bucket.files if key.startswith(KEYS.reuse))


def test_a_pack_that_another_gateway_has_no_key_for_yet_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two gateways has a request of its own; files of the one have no key when the other looks."""
    world = world_with(tmp_path)
    before = images_of(world)
    ask(world)
    real, looked = archiving.store, iter([True])

    def store(context: Context, batch: ArchivedBatch, pack: Pack) -> Archived:
        made = real(context, batch, pack)
        if next(looked, False):
            packs.archive(Pass(world.context(), Request(partner_id=9, at="20991231T000000Z")))
        return made

    monkeypatch.setattr(packs, "store", store)
    (outcome,) = do(world)
    assert next(looked, None) is None
    assert outcome.waiting == ()
    assert images_of(world) == before - {(7, url("ok", 99))}
    assert left_of(world) == []
    assert findings(world, deep=True) == []


@pytest.mark.parametrize(("own_scope", "stay"), [(1, {"p8"}), (64, set())])
def test_a_feature_of_whom_is_forgotten_is_not_used_again(
    tmp_path: Path, own_scope: int, stay: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its partner's pages go, and those that partners share; what else they had is fetched once more."""
    monkeypatch.setattr(remembering, "OWN_SCOPE", own_scope)
    world = world_with(tmp_path)
    assert {key.split("/")[4] for key in pages(world)} == ({"p7", "p8"} if stay else {"mixed"})
    assert [where for where in left_of(world) if "/u/" in where] != []
    ask(world)
    (outcome,) = do(world)
    assert outcome.waiting == ()
    assert left_of(world) == []
    assert {key.split("/")[4] for key in pages(world)} == stay
    assert findings(world, deep=True) == []
    world.hosts.sent.clear()
    world.hand.at += DAY
    world.put_refs("a.csv", "partner_id,external_id,url\n" + "\n".join(lines_of()) + "\n")
    world.hand.at += 10
    world.run()
    assert url("ok", 99) in world.hosts.sent
    said = {row["url"]: row for row in tables(world, "features")}
    assert url("ok", 99) in said, "the source still names it: it is new, and was fetched"


def test_who_is_forgotten_while_a_box_still_has_the_feature_is_forgotten_there_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipment is delivered while the box goes on with others, and writes its page at the end."""
    world = world_of(tmp_path, *lines_of(), **{**ON, **REUSE})
    late: list[remembering.Reuse] = []
    write = remembering.Reuse.write
    monkeypatch.setattr(remembering.Reuse, "write", lambda self: late.append(self))
    world.run()
    assert pages(world) == []
    ask(world)
    (outcome,) = do(world)
    assert outcome.waiting == ()
    for one in late:
        write(one)
    assert pages(world) == []
    assert left_of(world) == []


def test_who_is_cut_before_the_pages_went_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key says that it is done, and a page was written since the pass looked for pages."""
    world = world_with(tmp_path)
    ask(world)
    kept = {key: world.bucket.files[key] for key in pages(world)}

    def cut(one: Pass) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(forget_room, "_look_again", cut)
        with pytest.raises(KeyboardInterrupt):
            do(world)
    world.bucket.files.update(kept)
    assert KEYS.forgotten(1) in world.bucket.files
    assert do(world) == []
    assert pages(world) == []
    assert left_of(world) == []


def test_a_box_that_cannot_ask_who_is_forgotten_remembers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it cannot ask: it computes, says so, and no page stays."""
    for number in (1, 2):  # before the first feature, and after the page was written
        world = world_of(tmp_path / str(number), *lines_of(), **{**ON, **REUSE})
        real, calls = forgetting.done_requests, iter(range(99))

        def done(
            context: Context, real: Any = real, calls: Iterator[int] = calls, number: int = number
        ) -> frozenset[int]:
            if next(calls) + 1 == number:
                raise PermanentError("the store refuses", "403", "")
            asked: frozenset[int] = real(context)
            return asked

        with monkeypatch.context() as patch:
            patch.setattr(remembering, "done_requests", done)
            world.run()
        assert len(tables(world, "features")) == 4
        assert pages(world) == [] or number == 1
        assert any("not all found again" in line for line in world.said)


def test_a_box_does_its_part_and_leaves_the_rest_to_a_gateway(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    ask(world)
    (outcome,) = forget(replace(world.context(), lake=None))
    assert any("does not see the lake" in why for why in outcome.waiting)
    assert all(where.startswith("lake") or "/f/" in where for where in left_of(world))
    (outcome,) = do(world)
    assert outcome.waiting == ()
    assert left_of(world) == []


def test_the_same_request_twice_is_one_and_what_is_none_is_left_alone(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    ask(world)
    ask(world)
    assert list(open_requests(world.context())) == [1]
    world.bucket.write("shop/f/x", b"")
    world.bucket.write(KEYS.forget_request(2), b"{}")
    assert list(open_requests(world.context())) == [1]
    assert any("shop/f/x" in text for text in world.said)
    do(world)
    ask(world)
    assert list(open_requests(world.context())) == [3], "whoever asks once more, asks anew"


def test_a_damaged_folder_is_named_and_the_request_waits(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    key = next(key for key in world.delivered() if "/7/features/" in key)
    content, *rest = world.lake.files[key]
    world.lake.files[key] = (content[:-8], *rest)  # type: ignore[assignment]
    ask(world)
    (outcome,) = do(world)
    assert any("cannot be read" in why for why in outcome.waiting)
    world.lake.files[key] = (content, *rest)  # type: ignore[assignment]
    (outcome,) = do(world)
    assert outcome.waiting == ()
    assert left_of(world) == []


@pytest.mark.parametrize("ending", [".pack", ".parquet"])
def test_a_pack_that_is_lost_is_no_reason_to_wait(tmp_path: Path, ending: str) -> None:
    world = world_with(tmp_path)
    for key in [key for key in in_archive(world) if key.endswith(ending)]:
        del world.bucket.files[key]
    ask(world)
    (outcome,) = do(world)
    assert outcome.waiting == ()
    assert left_of(world) == []
    assert [one for one in verify(world.context()) if one.level == "damage"] == []


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Cut:
    """A gate that ends the process at the n-th change, or loses the answer to it."""

    how: str
    left: int

    def __call__(self, verb: str, key: str, effect: Callable[[], object]) -> object:
        if verb not in CHANGES:
            return effect()
        self.left -= 1
        if self.left:
            return effect()
        if self.how == "killed before":
            raise Killed
        found = effect()
        if self.how == "killed after":
            raise Killed
        if verb in ("put_new", "rename_new", "rename_over"):
            raise Unknown("no answer", "", "")
        return found


def images_of(world: World) -> set[tuple[int, str]]:
    """Whose images the archive has: partner and URL."""
    files = in_archive(world)
    rows = (row for body in manifests(world) if body.index for row in read_index(files[body.index.key], ""))
    return {(row.partner_id, row.url) for row in rows}


HOWS = ("killed before", "killed after", "answer lost")


def cut_everywhere(tmp_path: Path, how: str) -> int:
    """A pass that is cut at its first change, at its second ...; how many there are.  Raises AssertionError."""
    world = world_with(tmp_path)
    list(compact(world.context()))
    ask(world)
    before = [row for row in tables(world, "features") if (row["partner_id"], row["external_id"]) != (7, SECRET)]
    disks = (world.bucket, world.lake)
    begun = [(disk.files.copy(), set(disk.folders)) for disk in disks]
    at = world.hand.at
    images = images_of(world) - {(7, url("ok", 99))}
    expected: list[str] = []
    number = 0
    while True:
        number += 1
        world.hand.at = at
        for disk, (files, stood) in zip(disks, begun, strict=True):
            disk.files, disk.folders = files.copy(), set(stood)
        cut = Cut(how, number)
        stores = [MemoryStore(disk, cut) for disk in disks]
        context = replace(world.context(), bucket=stores[0], lake=stores[1])  # type: ignore[arg-type]
        with contextlib.suppress(Killed):
            list(forget(context))
            if cut.left > 0:
                return number
        for _ in range(2):
            for outcome in do(world):
                assert all("is being written" in why for why in outcome.waiting), (number, outcome.waiting)
            world.hand.at += 2 * DAY
        assert open_requests(world.context()) == {}, number
        assert left_of(world) == [], number
        rows = [row for row in tables(world, "features") if not str(row["shipment"]).startswith("_tmp")]
        assert [row for row in rows if row["shipment"] != "_current"] == [
            row for row in before if row["shipment"] != "_current"
        ], number
        assert findings(world, deep=True) == [], number
        assert images_of(world) == images, number
        kept = sorted(key for key in world.delivered() if "/_tmp/" not in key and "/_index/" not in key)
        expected = expected or kept
        assert kept == expected, number


@pytest.mark.parametrize("how", HOWS)
def test_whoever_is_cut_at_any_change_is_taken_up_and_nothing_is_lost(tmp_path: Path, how: str) -> None:
    assert cut_everywhere(tmp_path, how) > 30


def refs_first(patch: pytest.MonkeyPatch) -> None:
    """What has the item goes first: it is what was asked for."""

    def delete(one: Pass, entries: Sequence[Entry], having: frozenset[str]) -> None:
        for entry in sorted(entries, key=lambda entry: entry.key not in having):
            one.context.bucket.delete(entry.key)

    patch.setattr(bucket, "_delete", delete)


def the_old_pack_first(patch: pytest.MonkeyPatch) -> None:
    """The image goes at once, and the pack without it comes after."""
    real = archiving.store

    def store(context: Context, batch: ArchivedBatch, pack: Pack) -> Archived:
        key = context.keys.archived(replace(batch, number=batch.number - 1))
        for file in body_of(Archived, context.bucket.get(key), key).files:
            context.bucket.delete(file.key)
        return real(context, batch, pack)

    patch.setattr(packs, "store", store)


def nobody_looks_for_a_folder_that_waits(patch: pytest.MonkeyPatch) -> None:
    """Two renames follow each other at once: what should come in between?"""
    patch.setattr(folders, "take_up", lambda lake, root: None)


def what_was_renamed_away_is_gone(patch: pytest.MonkeyPatch) -> None:
    """Whoever renames it away deletes it: nobody else has to look."""
    patch.setattr(folders, "leftovers", lambda one, lake, root: None)


def the_index_follows_with_the_next_delivery(patch: pytest.MonkeyPatch) -> None:
    """It is written anew with each delivery anyway."""
    patch.setattr(folders, "_index", lambda lake, root, body, folders: None)


def done_is_said_before_it_is_done(patch: pytest.MonkeyPatch) -> None:
    """The request goes first: so nothing names the item for longer than it must."""

    def shipments(one: Pass) -> None:
        for number in open_requests(one.context):
            finish(one.context, number, one.request, one.request.at, lambda: None)
        real(one)

    real = bucket.shipments
    patch.setattr(bucket, "shipments", shipments)


def the_old_folder_goes_before_the_new_one_is_whole(patch: pytest.MonkeyPatch) -> None:
    """Manifest and _SUCCESS are small: they follow once the folder is in its place."""
    waiting: list[tuple[str, PartnerManifest]] = []
    real, move = whole_folder.complete, folders._exchange

    def exchange(context: Context, lake: Lake, places: tuple[str, str], root: Root, body: PartnerManifest) -> None:
        move(context, lake, places, root, body)
        real(lake, places[1], waiting.pop()[1])

    patch.setattr(folders, "complete", lambda lake, source, body: waiting.append((source, body)))
    patch.setattr(folders, "_exchange", exchange)


MISTAKES = [
    refs_first,
    the_old_pack_first,
    nobody_looks_for_a_folder_that_waits,
    what_was_renamed_away_is_gone,
    the_index_follows_with_the_next_delivery,
    done_is_said_before_it_is_done,
    the_old_folder_goes_before_the_new_one_is_whole,
]


@pytest.mark.parametrize("plant", MISTAKES, ids=lambda plant: plant.__name__)
def test_a_planted_mistake_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)

    def everywhere() -> None:
        for number, how in enumerate(HOWS):
            (tmp_path / str(number)).mkdir()
            cut_everywhere(tmp_path / str(number), how)

    with pytest.raises((AssertionError, PipelineError)):
        everywhere()


def two_gateways(tmp_path: Path, verb: str, number: int) -> World:
    """The first one is at the n-th of its calls when a second one does what another person asked for."""
    world = world_with(tmp_path)
    ask(world)
    left = [number]

    def gate(called: str, key: str, effect: Callable[[], object]) -> object:
        left[0] -= called == verb and "/_tmp/" not in key.replace("/_tmp/_gone", "")
        if left[0] == 0:
            left[0] = -1
            ask(world, "a")
            second = [one for one in open_requests(world.context()).items() if item_id_of("a") in one[1].items]
            outcome = _forget(world.context(), *second[0])
            assert all("is being written" in why for why in outcome.waiting)
        return effect()

    context = replace(world.context(), lake=MemoryStore(world.lake, gate))  # type: ignore[arg-type]
    list(forget(context))
    assert left[0] < 0, "the second one came"
    world.hand.at += 2 * DAY
    do(world)
    return world


RACES = [("open", 1), ("open", 3), ("open", 4), ("put", 1), ("rename_new", 1), ("rename_new", 2)]


@pytest.mark.parametrize(("verb", "number"), RACES)
def test_two_gateways_at_one_folder_bring_no_row_back_and_lose_none(tmp_path: Path, verb: str, number: int) -> None:
    world = two_gateways(tmp_path, verb, number)
    assert open_requests(world.context()) == {}
    assert left_of(world) == []
    assert left_of(world, 7, "a", url("ok", 1)) == []
    assert {(row["partner_id"], row["external_id"]) for row in tables(world, "features")} == {(8, "b"), (8, SECRET)}
    assert findings(world, deep=True) == []


def compact_meets_forget(tmp_path: Path, number: int, verb: str = "") -> bool:
    """A gateway compacts; at the n-th of its calls (of a verb) another one forgets.  Whether there was such a call."""
    world = world_with(tmp_path)
    ask(world)
    left = [number]

    def gate(called: str, key: str, effect: Callable[[], object]) -> object:
        left[0] -= verb in ("", called)
        if left[0] == 0:
            left[0] = -1
            do(world)
        return effect()

    disks = {name: MemoryStore(disk, gate) for name, disk in (("bucket", world.bucket), ("lake", world.lake))}
    list(compact(replace(world.context(), **disks)))  # type: ignore[arg-type]
    if left[0] > 0:
        return False
    for _ in range(2):
        world.hand.at += 2 * DAY
        do(world)
    assert open_requests(world.context()) == {}
    assert left_of(world) == [], number
    list(compact(world.context()))
    assert left_of(world) == [], number
    assert findings(world, deep=True) == [], number
    current = {row["external_id"] for row in tables(world, "features") if row["shipment"] == "_current"}
    assert current <= {"a", "b", SECRET}
    return True


def compact_beside_forget(tmp_path: Path) -> int:
    """At every fifth of its calls; how many it makes."""
    number = 1
    while compact_meets_forget(tmp_path / str(number), number):
        number += 5
    return number


def test_compact_beside_forget_brings_no_row_back(tmp_path: Path) -> None:
    assert compact_beside_forget(tmp_path) > 30
    assert compact_meets_forget(tmp_path / "put", 1, "put")


def test_a_compact_that_asks_nobody_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compacting, "done_requests", lambda context: frozenset())
    with pytest.raises(AssertionError):
        compact_meets_forget(tmp_path, 1, "put")


def late_table(tmp_path: Path, before: bool, patch: pytest.MonkeyPatch) -> list[str]:
    """A pass has looked at everything; then compact writes a table; the request is done as it puts it in its place.

    before: done before the rename, else behind it.  What is left.
    """
    world, real = world_with(tmp_path), forgetting.finish
    ask(world)
    delivered = {key: file for key, file in world.lake.files.items() if "/2" in key}

    def finish(*given: Any) -> None:
        patch.undo()
        now = {key: world.lake.files[key] for key in delivered if key in world.lake.files}
        world.lake.files.update(delivered)  # compact had read them before the pass came
        renamed: list[str] = []

        def gate(called: str, key: str, effect: Callable[[], object]) -> object:
            is_it = called == "rename_new" and "_current/7/" in key and not renamed
            if is_it:
                renamed.append(key)
                for one in delivered:
                    world.lake.files.pop(one, None)
                world.lake.files.update(now)
            if is_it and before:
                real(*given)
            try:
                return effect()
            finally:
                if is_it and not before:
                    real(*given)

        list(compact(replace(world.context(), lake=MemoryStore(world.lake, gate))))  # type: ignore[arg-type]
        assert renamed

    patch.setattr(forget_room, "finish", finish)
    do(world)
    assert open_requests(world.context()) == {}
    return left_of(world)


@pytest.mark.parametrize("before", [True, False])
def test_a_table_that_comes_late_goes(tmp_path: Path, before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    with monkeypatch.context() as patch:
        assert late_table(tmp_path / "good", before, patch) == []
    monkeypatch.setattr(tables_room, "table", lambda *given, late=False: None)
    with pytest.MonkeyPatch.context() as patch:
        assert late_table(tmp_path / "bad", before, patch) != [], "the test finds where nobody looks again"


def said_of(world: World, item: str) -> list[str]:
    context = world.context()
    new = request([context], 7, item, "a person asked")
    assert len(new) == 1
    assert request([context], 7, item, "once more") == frozenset(), "the same request is not a new one"
    return [line for told_ in go_on([context]) for line in _lines(told_, new=True)]


def test_an_item_that_nobody_knew_is_told_as_such(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    before = {key: content for key, (content, _, _) in world.lake.files.items()}
    first, *more = said_of(world, "NOPE")
    assert first == f"lake {world.context().lake_name}, request 1: no such item was known: nothing of it was there"
    assert "page" in more[0], "they go in any case"
    assert more[-1] == "  a source that still names it brings it back with its next snapshot: remove it there"
    assert open_requests(world.context()) == {}, "the request stands, and is done"
    assert {key: content for key, (content, _, _) in world.lake.files.items()} == before
    known, *rest = said_of(world, SECRET)
    assert "it is done: bucket and lake" in known
    assert "1 image, " in known
    assert rest == [f"  {one}" for one in _NEXT]
    (again, *_) = said_of(world, SECRET)
    assert "no such item was known" in again, "nothing of it is left"


def test_a_data_set_that_was_moved_away_is_named(tmp_path: Path) -> None:
    world = world_with(tmp_path)
    lake = world.context().lake
    assert lake is not None
    made_at = tmp_path / "made"
    note_made(lake, Root("features"), "dataset", made_at, anew=True)
    lines = said_of(world, SECRET)
    assert (
        f"  a data set was made at {made_at}, and nothing is there any more: what was moved is yours to clear" in lines
    )
    assert list(lake.list("features/_made/")) == []
