"""What an installation lives through: runs and commands in order, and how each is taken up again after it was cut."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ledger.layout import Keys, Root, ShipmentName, Task, seconds_of
from pipeline.ledger.made import note_made
from pipeline.ledger.manifest import Attempt
from pipeline.nets.features import FeatureNet
from pipeline.records import item_id_of
from pipeline.settings import load
from pipeline.stores.local import LocalStore
from tests.crash.site import DAY, NOW, SHIPPED, Site, data_url, down, inline, picture
from tests.faults.faults import Fault

KEYS = Keys("shop")
TRIES = 4
RUN = ("run",)


def nothing(site: Site) -> None:
    """The world stays as it is."""


@dataclass(frozen=True)
class Step:
    """A command as cron, a supervisor or a person starts it.

    before: what changes in the world first.  done: of a person's command, whether it need not be typed again.
    faults: at its first start, besides those of the case.
    """

    words: tuple[str, ...] = RUN
    before: Callable[[Site], None] = nothing
    done: Callable[[Site], bool] = lambda site: False
    codes: tuple[int, ...] = (0,)
    clock: float = NOW
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Story:
    """prepare: what was before, without faults.  steps: what faults are for."""

    name: str
    prepare: Callable[[Site], None]
    steps: tuple[Step, ...]


LOOKS = (["verify", "--deep"], ["why", "7", "a"])
"""What is asked of what stands at the end of each story."""


def tell(site: Site, story: Story, place: str = "", fault: Fault | None = None) -> bool:
    """Live through a story whose processes meet the fault once; whoever was cut is started again.

    Whether the fault struck.  At the end `verify --deep` finds nothing, and `why` has its answer.
    """
    for number, step in enumerate(story.steps, start=1):
        step.before(site)
        for attempt in range(TRIES):
            struck = bool(_strikes(site, fault))
            faults = {name: list(some) for name, some in step.faults.items()} if attempt == 0 else {}
            strange = bool(faults)
            if fault is not None and not struck:
                faults[place] = [fault, *faults.get(place, [])]
            # Who is not to be cut is also asked how it stands: one process less for each life.
            looks = LOOKS if number == len(story.steps) and not faults else ()
            pid = site.start(list(step.words), *looks, faults=faults, clock=step.clock, **step.environ)  # type: ignore[arg-type]
            code = site.zygote.wait(pid)
            if bool(_strikes(site, fault)) > struck:
                if step.done(site):
                    break
            elif not strange:
                assert code in step.codes, f"{step.words}: exit {code}\n{site.said}"
                break
        else:
            raise AssertionError(f"{step.words} did not come to its end in {TRIES} starts\n{site.said}")
    return bool(_strikes(site, fault))


def _strikes(site: Site, fault: Fault | None) -> list[tuple[str, str, str, str]]:
    return [row for row in site.noted() if fault is not None and row[1] == fault.how]


# --- what there was before ---


def ship_some(site: Site) -> None:
    """Two parts of two batches and one; two partners; one image that is none, one host that is down."""
    lines = [inline("a", picture(1)), inline("b", picture(2), 8), inline("c", b"junk"), inline("d", picture(3))]
    site.refs("a.jsonl", [*lines, down("e")])


def deliver_some(site: Site) -> None:
    ship_some(site)
    assert site.hathi("run", journal=False) == 0, site.said


def ship_files(site: Site) -> None:
    """As above, with images that are fetched."""
    found = sorted(path for path in PICTURES.rglob("*") if path.suffix in (".jpg", ".png"))
    urls = [
        {"partner_id": 7, "external_id": item, "url": f"file://{path}"}
        for item, path in zip("abc", found, strict=False)
    ]
    site.refs("a.jsonl", [*(json.dumps(one) for one in urls), inline("d", b"junk"), down("e")])


def deliver_kept(site: Site) -> None:
    ship_files(site)
    assert site.hathi("run", journal=False, **KEEPS) == 0, site.said
    lake, root = LocalStore(site.lake), Root("features")
    note_made(lake, root, "dataset", PICTURES)  # a folder that is there, and no data set
    note_made(lake, root, "dataset", PICTURES / "gone")
    lake.put(f"{root.own}/keep-left/list.0", b"")
    columns = {"partner_id": [7, 7], "item_id": pa.array([item_id_of(one) for one in "ab"], pa.uint64())}
    shipment = next(site.lake.glob("features/2*")).name
    with pa.BufferOutputStream() as made:
        pq.write_table(pa.table({**columns, "shipment": [shipment] * 2, "caption": ["x", "y"]}), made)
        lake.put(root.kept, made.getvalue().to_pybytes())


def forgotten(site: Site) -> bool:
    """Whether a request is done."""
    return any((site.bucket / "shop" / "f").glob("*.done"))


def give_up_a_batch(site: Site) -> None:
    """The first batch's last attempt alone ended without a result: the next run holds the batch."""
    ship_some(site)
    assert site.hathi("run", "ship", journal=False) == 0, site.said
    (plan,) = (site.bucket / "shop" / "c").glob("*.00000.0-*/plan")
    fingerprint = FeatureNet(load(site.config, {}).sets["demo"]).fingerprint
    key = KEYS.attempt(ShipmentName.parse(plan.parent.name), Task.batch(fingerprint, 0), 1)
    path = site.bucket / key
    path.parent.mkdir(parents=True)
    path.write_bytes(Attempt(process="dead", at="20231114T222000Z", alone=True).encode())


def hold_a_batch(site: Site) -> None:
    give_up_a_batch(site)
    assert site.hathi("run", journal=False) == 3, site.said


def ship_as_another_gateway(site: Site) -> None:
    """Its settings say other features than the box would compute."""
    ship_some(site)
    other = {"HATHI_SETS__DEMO__PREPROCESS": '{"channel_order": "rgb"}'}
    assert site.hathi("run", "ship", journal=False, **other) == 0, site.said


def ship_half(site: Site) -> None:
    """A run whose cap ended it within the first part."""
    ship_some(site)
    assert site.hathi("run", "ship", "--once", journal=False, HATHI_SHIP__REFS_PER_RUN="2") == 0, site.said


def remember_some(site: Site) -> None:
    """A day on which images were fetched and computed; on the next one of them is another, and one is new."""
    site.refs("a.jsonl", [data_url(item, picture(at)) for at, item in enumerate("abcd")])
    assert site.hathi("run", journal=False) == 0, site.said
    assert list((site.bucket / KEYS.reuse / "i").rglob("2*")), "what was computed is remembered"
    lines = [data_url(item, picture(at)) for at, item in ((0, "a"), (1, "b"), (7, "c"), (3, "d"), (8, "e"))]
    site.refs("a.jsonl", lines, at=SHIPPED + DAY)


def deliver_two_versions(site: Site) -> None:
    """An old version whose days in the index are over, and a newer one."""
    site.refs("a.jsonl", [inline("a", picture(1)), inline("b", picture(2), 8)])
    assert site.hathi("run", journal=False) == 0, site.said
    site.refs("a.jsonl", [inline("a", picture(4)), inline("b", picture(5), 8)], at=SHIPPED + 10 * DAY)
    assert site.hathi("run", journal=False, clock=NOW + 10 * DAY) == 0, site.said


# --- what happens in the world ---


def forget_the_source(site: Site) -> None:
    (site.lake / "refs" / "a.jsonl").unlink(missing_ok=True)


def take_the_file_away(site: Site) -> None:
    os.rename(site.lake / "refs" / "a.jsonl", site.folder / "away")


def bring_the_file_back(site: Site) -> None:
    os.rename(site.folder / "away", site.lake / "refs" / "a.jsonl")


def change_the_file(site: Site) -> None:
    lines = [inline("a", picture(1)), inline("b", picture(2), 8), inline("f", picture(6))]
    site.refs("a.jsonl", lines, at=SHIPPED + 100)


def leave_things(site: Site) -> None:
    """What processes leave that were killed long ago: half a delivery, a token, data, a beat, hints."""
    name = next(site.lake.glob("features/2*.00000.0-*")).name
    for path in (
        site.lake / "features" / "_tmp" / f"{name}.0123456789abcdef" / "7" / "_SUCCESS",
        site.lake / "features" / "_index" / "tokens" / "0123456789abcdef",
        site.bucket / KEYS.data / name / "0123456789abcdef" / "00000.pb",
        site.bucket / KEYS.alive_hint("nobody"),
        site.bucket / KEYS.model_file("0123456789abcdef", "net.prototxt"),
        site.bucket / KEYS.refused_hint("demo", "nobody"),
        site.bucket / KEYS.reuse_index("0123456789ab", "mixed", "0123456789abcdef"),
        site.bucket / KEYS.reuse_data("0123456789ab", "mixed", "0123456789abcdef"),
        site.bucket / KEYS.open_hints / "00000000T000000Z" / "20200101T000000Z.000.00000.0-0123456789ab",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        os.utime(path, (SHIPPED, SHIPPED))
    os.utime(site.lake / "features" / "_tmp" / f"{name}.0123456789abcdef", (SHIPPED, SHIPPED))
    for hint in (site.bucket / KEYS.open_hints).glob("2*/*"):
        hint.unlink()  # of an open shipment: put back


def planned(kind: str) -> Callable[[Site], bool]:
    """Whether a plan of this kind stands."""

    def look(site: Site) -> bool:
        plans = (site.bucket / "shop" / "c").glob("*/plan")
        return any(f'"kind":"{kind}"'.encode() in plan.read_bytes() for plan in plans)

    return look


def long_ago(path: Path) -> float:
    """The real time of what a run wrote, whatever its clock said."""
    return path.stat().st_mtime


NET = str(Path(__file__).with_name("promoted.prototxt"))
FOLLOWS = {"HATHI_SETS__DEMO": '{"net": "", "model": "shoes", "blob": "out"}'}
"""A set that names a net becomes one that follows a model."""
PICTURES = Path(__file__).parents[1] / "golden"
KEEPS = {"HATHI_ARCHIVE__ENABLED": "true", "HATHI_FETCH__ALLOW_FOLDERS": f'["{PICTURES}"]'}
"""Images are fetched from a folder, and kept."""
FLIPPED = {"bucket": [Fault("flipped", "get", r"/d/.*/0000\d\.pb$")]}
FULL_SHARD = {"bucket": [Fault("full", "put", r"\.features\.parquet$")]}
FULL_OUT = {"bucket": [Fault("full", "put", r"cnn_features")]}
FULL_LAKE = {"lake": [Fault("full", "put", r"_tmp/.*part-")]}
LATER = seconds_of("20300101T000000Z")
"""The files of the bucket have the real time: what happens to old ones happens in a year far from now."""

STORIES = {
    story.name: story
    for story in (
        Story("whole", ship_some, (Step(),)),
        Story("held", give_up_a_batch, (
            Step(codes=(3,)),
            Step(("quarantine", "release", "--all"), done=planned("release")),
            Step(),
        )),
        Story("dropped", hold_a_batch, (Step(("quarantine", "drop", "--all", "--yes"), done=planned("drop")), Step())),
        Story("used again", remember_some, (Step(clock=NOW + DAY),)),
        Story("again", deliver_some, (Step(("ship", "--again", "refs/a.jsonl"), done=planned("again")), Step())),
        Story("backfill", deliver_some, (Step(("backfill", "demo"), done=planned("backfill")), Step())),
        Story("promoted", ship_some, (
            Step(("promote", "demo", "--net", NET), environ=FOLLOWS), Step(environ=FOLLOWS),
        )),
        Story("archived", ship_files, (
            Step(environ=KEEPS),
            Step(("backfill", "demo"), done=planned("backfill"), environ=KEEPS),
            Step(environ=KEEPS),
        )),
        Story("forgotten item", deliver_kept, (
            Step(("forget", "7", "a", "--yes"), done=forgotten, environ=KEEPS, clock=LATER),
            Step(("forget",), environ=KEEPS, clock=LATER),
        )),
        Story("damaged refs", ship_some, (Step(faults=FLIPPED),)),
        Story("full at a shard", ship_some, (Step(faults=FULL_SHARD),)),
        Story("full at out", ship_some, (Step(faults=FULL_OUT),)),
        Story("full on the lake", ship_some, (Step(faults=FULL_LAKE),)),
        Story("gone and back", ship_half, (
            Step(("run", "ship"), before=take_the_file_away), Step(before=bring_the_file_back),
        )),
        Story("refused", ship_as_another_gateway, (
            Step(("run", "--once", "compute", "aggregate"), codes=(1,)), Step(),
        )),
        Story("changed", ship_half, (Step(before=change_the_file),)),
        Story("pruned", deliver_some, (Step(("prune", "--yes"), before=leave_things, clock=LATER),)),
        Story("forgotten", deliver_some, (
            Step(("prune", "--yes"), before=forget_the_source, clock=LATER),
            Step(clock=LATER + 2000 * DAY),
            Step(("prune", "--yes"), clock=LATER + 4000 * DAY),
            Step(("prune", "--yes"), clock=LATER + 4000 * DAY),
        )),
        Story("old folders", deliver_two_versions, (
            Step(("prune", "--yes"), clock=LATER, environ={"HATHI_PRUNE__LAKE_DAYS": "1"}),
        )),
    )
}  # fmt: skip
