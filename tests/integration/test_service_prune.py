"""What no row names is deleted after seven days, and nothing else: over both databases, with kills between any two."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from pipeline.process.lock import Held
from pipeline.service.checking import check
from pipeline.service.database import copying
from pipeline.service.pruning import Facts, Pruned, judge, prune
from pipeline.stores.local import LocalStore
from pipeline.stores.store import Entry, Listing
from pipeline.times import DAY
from tests.servers.databases import KINDS, empty, needs_the_extra, sites_of
from tests.servers.service import Stand, standing

needs_the_extra()


@pytest.fixture(scope="module", params=KINDS)
def stand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("service")
    for site in sites_of(request, folder):
        with standing(site, folder) as made:
            empty(site)
            yield made


class Killed(Exception):
    """The process is gone at this instant."""


class Later(LocalStore):
    """The bucket so many days later.  listed: called at the end of a listing; kills: after so many deletions."""

    def __init__(self, stand: Stand, days: float, listed: Callable[[], None] = lambda: None, kills: int = -1) -> None:
        super().__init__(stand.folder / "bucket", fsync=False, now=lambda: time.time() + days * DAY)
        self.listed, self.kills = listed, kills

    def list(self, prefix: str, *, after: str = "", until: str = "", folders: bool = False) -> Listing:
        found = super().list(prefix, after=after, until=until, folders=folders)

        def entries() -> Iterator[Entry]:
            yield from found.entries
            if prefix == "s/":
                self.listed()

        return Listing(found.now, entries())

    def delete(self, key: str) -> None:
        if self.kills == 0:
            raise Killed
        self.kills -= 1
        super().delete(key)


def pruned(stand: Stand, store: LocalStore, *, dry: bool = False) -> Pruned:
    return asyncio.run(prune(stand.site.url, store, dry=dry))


def keys(stand: Stand) -> set[str]:
    return {entry.key for entry in stand.store.list("s/") if not entry.key.startswith("s/unnamed/")}


def of(stand: Stand, thing: str) -> set[str]:
    return {key for key in keys(stand) if f"/{thing}/" in key}


def test_what_no_row_names_goes_after_seven_days_and_nothing_else_ever(stand: Stand) -> None:
    ann = stand.person("ayes", "ann")
    kept, gone = ann.datafile(b"kept" * 1000), ann.datafile(b"gone" * 1000)
    cut = ann.got("POST", "/v1/datafiles", {"name": "cut", "size": 100})["id"]
    ann.ask("PUT", f"/v1/datafiles/{cut}/content", b"half")
    job = ann.job(inputs={"train": kept})
    stand.trained(ann, job, "mark")
    strays = {f"s/{ann.tenant}/j/{job}/a000000/s-0000000001/fenced"}
    running = f"s/{ann.tenant}/j/{job}/a000001/s-0000000099/not-named-yet"
    stranger = "s/te_06fdw0b06s0e8v8yyp9b5jsy40/u/x"
    for key in (*strays, running, stranger):
        stand.store.put(key, b"x")
    assert ann.ask("DELETE", f"/v1/datafiles/{gone}", If_Match="*").status_code == 204
    doomed = strays | of(stand, gone)
    assert len(doomed) == 2
    before = keys(stand)

    assert pruned(stand, Later(stand, 30), dry=True).objects == 0, "nobody has noted yet that it is unnamed"
    assert not list(stand.store.list("s/unnamed/"))
    assert (pruned(stand, Later(stand, 0)).objects, keys(stand)) == (0, before)
    assert pruned(stand, Later(stand, 6.9)).objects == 0
    look = pruned(stand, Later(stand, 7.1), dry=True)
    assert (set(look.keys), keys(stand), look.strangers) == (doomed, before, 1)

    late: list[str] = []
    hooked = Later(stand, 7.1, listed=lambda: late.append(ann.datafile(b"between list and rows")))
    hooked.kills = 2
    with pytest.raises(Killed):
        pruned(stand, hooked)
    assert len(doomed - keys(stand)) == 1, "killed between two deletions; the old notes were the first"
    hooked.kills = -1
    done = pruned(stand, hooked)
    assert set(done.keys) == doomed & set(done.keys)
    assert done.rows["datafiles"] == 1
    assert keys(stand) & doomed == set()
    assert {running, stranger} <= keys(stand)
    assert len(late) == 2
    assert all(of(stand, one) for one in (*late, kept, job))
    assert cut not in {row["id"] for row in ann.got("GET", "/v1/datafiles")["items"]}, "nobody went on with it"
    assert asyncio.run(check(stand.site.url, stand.store, hashes=True)).missing == ()

    over = "state = 'succeeded', worker_id = null, lease_until = null, finished_at = 1.5"
    stand.site.run(stand.site.bare(f"update @work set {over} where id = '{job}' returning id"))
    assert pruned(stand, Later(stand, 8)).objects == 0
    assert running in set(pruned(stand, Later(stand, 15.1)).keys), "once the attempt is over it counts from there"
    assert not of(stand, cut)
    assert [entry.key.count("/") for entry in stand.store.list("s/unnamed/")] == [2], "one note is kept"


def test_rows_whose_time_is_over_go_and_a_key_that_still_holds_stays(stand: Stand) -> None:
    ann = stand.person("cees", "cid")
    for key in ("old", "new"):
        ann.got("POST", "/v1/datafiles", {"name": key, "size": 1}, Idempotency_Key=key)
    stand.site.run(stand.site.bare("update @answers set created_at = 5.0 where key = 'old' returning key"))
    token = f"insert into @tokens select tenant_id, 'tk_old', user_id, 'old', 'digest', role, 0, 1.0, 2.0, null from @tokens where tenant_id = '{ann.tenant}'"  # fmt: skip # noqa: E501
    stand.site.run(stand.site.bare(token))
    assert {"answers": 1, "tokens": 1}.items() <= pruned(stand, Later(stand, 0), dry=True).rows.items()
    assert {"answers": 1, "tokens": 1}.items() <= pruned(stand, Later(stand, 0)).rows.items()
    assert pruned(stand, Later(stand, 0)).rows == {}
    rows = stand.site.run(stand.site.bare(f"select key from @answers where tenant_id = '{ann.tenant}'"))
    assert [row["key"] for row in rows] == ["new"]
    assert ann.ask("GET", "/v1/me").ok


def test_a_prune_and_a_backup_wait_for_each_other(stand: Stand) -> None:
    async def both() -> None:
        async with copying.alone(stand.site.url):
            with pytest.raises(Held, match="backup"):
                await prune(stand.site.url, stand.store, dry=True)

    asyncio.run(both())


def test_each_mistake_in_the_judgement_is_seen() -> None:
    """The judge alone: each of what it looks at decides on its own."""
    key, other = "s/t/j/x/a000001/s", "s/t/j/x/a000002/s"
    usual = {
        "now": 100 * DAY, "entries": [Entry(key, 1, 0.0)], "named": frozenset[str](), "tenants": frozenset({"t"}),
        "running": frozenset[str](), "since": {key: 93 * DAY},
    }  # fmt: skip

    def goes(**changes: object) -> bool:
        return bool(judge(Facts(**{**usual, **changes}), 7.0).doomed)  # type: ignore[arg-type]

    assert goes()
    assert not goes(named=frozenset({key}))
    assert not goes(tenants=frozenset({"u"}))
    assert not goes(running=frozenset({"s/t/j/x/a000001/"}))
    assert goes(running=frozenset({"s/t/j/x/a000002/"}))
    assert not goes(since={})
    assert not goes(since={key: 93.1 * DAY})
    assert not goes(since={other: 1.0})
    assert not goes(entries=[Entry(key, 1, 93.1 * DAY)]), "written anew since"
    assert not goes(entries=[Entry("s/unnamed/x", 1, 0.0)], tenants=frozenset({"unnamed"}))
