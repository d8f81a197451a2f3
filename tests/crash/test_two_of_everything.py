"""Two of everything, as real processes: one result each, and the other's work is dropped and counted."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.points import FIRST, SHIPMENT, F
from tests.crash.site import NOW, Site, down, inline, picture
from tests.crash.stories import LATER, ship_some
from tests.crash.test_faults import lives, until
from tests.crash.zygote import Zygote
from tests.faults.faults import Fault

LIVELY = {"HATHI_DAEMON__BEAT_SECONDS": "0.2", "HATHI_DAEMON__ALIVE_SECONDS": "1.5"}
"""A process that has been still for so long counts as dead."""
REAL = ""
"""The clock: beats are compared with the files' own times."""
ALL = ("ship", "compute", "aggregate", "deliver")


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()


def host(site: Site, name: str) -> Site:
    """Another host over the same bucket and lake."""
    return Site(site.folder, site.zygote, name)


def ship_many(site: Site) -> None:
    """Twelve files of two partners."""
    for number in range(12):
        lines = [inline(f"i{number}-{place}", picture(10 * number + place), 7 + place % 2) for place in range(5)]
        site.refs(f"{number:02d}.jsonl", [*lines, down(f"down-{number}")])


@pytest.fixture(scope="module")
def many(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """What one of everything delivers."""
    site = Site(tmp_path_factory.mktemp("many"), zygote)
    ship_many(site)
    assert site.hathi("run", journal=False) == 0, site.said
    return site


@pytest.fixture(scope="module")
def some(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = Site(tmp_path_factory.mktemp("some"), zygote)
    ship_some(site)
    assert site.hathi("run", journal=False) == 0, site.said
    return site


def end(site: Site, pid: int) -> None:
    """Ask a daemon to stop; it does."""
    os.kill(pid, signal.SIGTERM)
    assert site.zygote.wait(pid) == 0, site.said
    assert site.left() == []


def is_sound(site: Site, clock: float | str, item: str = "a") -> None:
    """`verify --deep` and `why` find nothing wrong."""
    code = site.zygote.wait(site.start(["verify", "--deep"], ["why", "7", item], clock=clock, journal=False))
    assert code == 0, site.said


@pytest.mark.parametrize(
    "hosts",
    [
        {"gateway": ("ship", "deliver"), "box-a": ("compute", "aggregate"), "box-b": ("compute", "aggregate")},
        {"gateway-a": ("ship", "deliver"), "gateway-b": ("ship", "deliver"), "box": ("compute", "aggregate")},
        {"all-a": ALL, "all-b": ALL},
    ],
    ids=["two-boxes", "two-gateways", "two-of-all"],
)
def test_two_hosts_at_one_work_deliver_what_one_does(
    hosts: dict[str, tuple[str, ...]], tmp_path: Path, zygote: Zygote, many: Site
) -> None:
    site = Site(tmp_path, zygote)
    ship_many(site)
    running = {name: host(site, name).start(["serve", *stages]) for name, stages in hosts.items()}
    until(
        lambda: (site.done(many) and site.nothing_open()) or not all(map(lives, running.values())),
        lambda: str(sorted(site.ledger())),
    )
    assert site.done(many)
    for name, pid in running.items():
        end(host(site, name), pid)
    assert site.ledger() == many.ledger()
    is_sound(site, NOW, "i0-0")


def frozen(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def test_cron_that_starts_while_the_last_run_goes_on_ends_at_once_and_quietly(
    tmp_path: Path, zygote: Zygote, some: Site
) -> None:
    site = Site(tmp_path, zygote)
    ship_some(site)
    pid = site.start(["run"], faults={"bucket": [Fault("frozen before", "put_new", "/r/")]})
    until(lambda: frozen(pid), lambda: site.said)
    (tmp_path / "err-one").rename(tmp_path / "err-first")
    (tmp_path / "out-one").rename(tmp_path / "out-first")
    before = site.ledger()
    assert site.hathi("run", "--once", journal=False) == 0
    assert site.said == ""
    assert site.hathi("run", journal=False) == 1
    assert f"pid {pid} since" in site.said
    assert site.ledger() == before
    os.kill(pid, signal.SIGCONT)
    assert zygote.wait(pid) == 0
    assert site.done(some)
    is_sound(site, NOW)


ASLEEP = {
    "ship": ("bucket", Fault("frozen before", "put_new", f"/{FIRST}/b/00000")),
    "compute": ("bucket", Fault("frozen before", "put_new", f"/{FIRST}/{F}/r/00000")),
    "aggregate": ("bucket", Fault("frozen before", "put_new", f"/{FIRST}/out$")),
    "deliver": ("lake", Fault("frozen before", "rename_new", f"/{FIRST}/7$")),
    "the index": ("lake", Fault("frozen before", "rename_over", "outputByPartner")),
    "done": ("bucket", Fault("frozen before", "put_new", f"/{SHIPMENT}/done$")),
}
DROPS = {"compute", "aggregate"}
"""Where work was done twice."""


@pytest.mark.parametrize("pruned", [False, True], ids=["before-prune", "after-prune"])
@pytest.mark.parametrize("where", ASLEEP)
def test_who_wakes_after_another_has_taken_over_changes_nothing(
    where: str, pruned: bool, tmp_path: Path, zygote: Zygote, some: Site
) -> None:
    one = Site(tmp_path, zygote)
    ship_some(one)
    two = host(one, "two")
    place, fault = ASLEEP[where]
    sleeper = one.start(["run", "--json"], faults={place: [fault]}, clock=REAL, **LIVELY)  # type: ignore[arg-type]
    until(lambda: frozen(sleeper) or not lives(sleeper), lambda: one.said)
    assert frozen(sleeper), one.said
    taker = two.start(["serve", *ALL], clock=REAL, **LIVELY)  # type: ignore[arg-type]
    until(lambda: (one.rows() == some.rows() and one.nothing_open()) or not lives(taker), lambda: two.said)
    assert lives(taker), two.said
    end(two, taker)
    if pruned:
        assert two.hathi("prune", "--yes", clock=LATER, journal=False) == 0, two.said
        assert not any((one.bucket / "shop" / "d").glob(f"*.00000.0-*/{'[0-9a-f]' * 16}/*.features.parquet"))
    before = one.index(), one.ledger(), one.rows()
    os.kill(sleeper, signal.SIGCONT)
    assert zygote.wait(sleeper) == 0, one.said
    assert (one.index(), one.ledger(), one.rows()) == before
    assert one.rows() == some.rows()
    log = "".join(path.read_text() for path in one.logs.glob("*.log"))
    dropped = [int(number) for number in re.findall(r"our result for ([\d,]+) refs? was discarded", log)]
    assert bool(dropped) == (where in DROPS), log
    assert json.loads((one.folder / "out-one").read_text())["dropped"] == sum(dropped)
    assert one.left() == []
    is_sound(one, LATER if pruned else REAL)


def test_who_wakes_after_even_the_ledger_is_forgotten_leaves_nothing_that_prune_does_not_take(
    tmp_path: Path, zygote: Zygote, some: Site
) -> None:
    one = Site(tmp_path, zygote)
    ship_some(one)
    two = host(one, "two")
    place, fault = ASLEEP["compute"]
    sleeper = one.start(["run", "ship", "compute"], faults={place: [fault]}, clock=REAL, **LIVELY)  # type: ignore[arg-type]
    until(lambda: frozen(sleeper) or not lives(sleeper), lambda: one.said)
    taker = two.start(["serve", *ALL], clock=REAL, **LIVELY)  # type: ignore[arg-type]
    until(lambda: (one.rows() == some.rows() and one.nothing_open()) or not lives(taker), lambda: two.said)
    end(two, taker)
    (one.lake / "refs" / "a.jsonl").unlink()
    for _ in range(2):
        assert two.hathi("prune", "--yes", clock=LATER, journal=False) == 0, two.said
    index, rows = one.index(), one.rows()
    os.kill(sleeper, signal.SIGCONT)
    assert zygote.wait(sleeper) in (0, 1), one.said
    for _ in range(2):
        assert two.hathi("prune", "--yes", clock=LATER, journal=False) == 0, two.said
    assert (one.index(), one.rows()) == (index, rows)
    left = {path.relative_to(one.bucket).parts[2] for path in one.bucket.glob("shop/[cd]/*/**/*") if path.is_file()}
    assert {name for name in left if ".00000.0-" in name} == set()
