"""A day of two gateways and a compute box on a secured HDFS, an S3 server and a web of images, and what befalls them.

Processes are started and stopped by the scripts that operators type; nothing here knows how they work inside.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.records import item_id_of, signed
from tests.acceptance.conftest import wait_until
from tests.acceptance.world import Host, Shop, Web, cron_every, kind_of, make_host, make_net
from tests.servers import hdfs, kerberos, s3
from tests.servers.kerberos import Realm
from tests.servers.s3 import S3Server

LONG = 240.0
"""Seconds after which something that should happen has not: two cores carry ten processes and two JVMs."""


@dataclass(frozen=True)
class World:
    """All of it."""

    realm: Realm
    bucket: S3Server
    shop: Shop
    first: Host
    second: Host
    box: Host
    tickets: Path
    """The ticket cache of the first gateway; the second one has a keytab."""

    @property
    def hosts(self) -> tuple[Host, Host, Host]:
        return self.first, self.second, self.box

    def delivered(self, partner: int) -> int:
        """Rows of a partner that the index lists, features and failures."""
        return sum(one["features"] + one["failures"] for one in self.index()["deliveries"]
                   if one["partner_id"] == partner)  # fmt: skip

    def index(self) -> dict[str, list[dict[str, int]]]:
        if self.shop.lake.stat("features/outputByPartner") is None:
            return {"deliveries": []}
        found: dict[str, list[dict[str, int]]] = json.loads(self.shop.lake.get("features/outputByPartner"))
        return found

    def wait_for(self, partner: int, rows: int) -> None:
        wait_until(lambda: self.delivered(partner) >= rows, f"partner {partner} has {rows} rows on the lake", LONG)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with kerberos.running() as realm, hdfs.running(realm) as server, s3.running() as bucket:
        web = Web()
        server.superuser().make_folder("shop")
        server.superuser().open_to_all("/shop")
        tickets = tmp_path / "tickets"
        realm.kinit(tickets)
        weights = make_net(tmp_path)
        by_ticket = {"ticket_cache": str(tickets)}
        by_keytab = {"principal": "hathi", "keytab": str(realm.keytab("hathi"))}
        first, second, box = (
            make_host(tmp_path / name, realm, server, bucket, how, weights)
            for name, how in (("first", by_ticket), ("second", by_keytab), ("box", {}))
        )
        made = World(realm, bucket, Shop(server.store("shop"), web), first, second, box, tickets)
        try:
            yield made
        finally:
            for host in made.hosts:
                host.kill()
            web.close()


def test_a_day_in_which_everything_happens_loses_nothing(world: World, tmp_path: Path) -> None:
    shop = world.shop
    with cron_every(world.box, 2.0) as runs:
        morning(world, tmp_path)
        estop_and_kill(world)
        outage(world)
        ticket(world)
        wait_until(lambda: idle(world), "nothing is open and no retry waits", LONG)
    assert set(runs) <= {0, 1, 4}, "a cron run ended as nothing documents it"
    for host in (world.first, world.second):
        host.stop()
    account(world)
    verified = world.second.hathi("verify", "--deep")
    assert verified.returncode == 0, verified.stdout
    why = world.second.hathi("why", "2", next(name for partner, name in shop.expected if partner == 2))
    assert "delivered" in why.stdout
    read_like_the_example(world)


def morning(world: World, scratch: Path) -> None:
    """Partners arrive by the index and by a folder; one changes, one disappears."""
    shop = world.shop
    for partner in (1, 2, 3):
        shop.by_index(partner, range(40), "a")
    for host in (world.first, world.second):
        host.start()
    for partner in (1, 2, 3):
        world.wait_for(partner, 40)
    shop.by_folder(5, range(50), scratch)
    for key in [key for key in shop.expected if key[0] == 1]:
        del shop.expected[key]
    shop.by_index(1, range(20, 75), "b")
    del shop.index["3"]  # it was delivered; that it is gone means nothing
    shop.write_index()
    world.wait_for(5, 50)
    world.wait_for(1, 40 + 55)


def estop_and_kill(world: World) -> None:
    """ESTOP everywhere in the middle of the work; kill -9 of everything; ESTOP removed; a new start."""
    world.shop.by_index(2, range(100, 260), "b")
    wait_until(lambda: world.delivered(2) > 40 or open_work(world), "the new refs are on their way", LONG)
    for host in world.hosts:
        (host.state / "ESTOP").touch()
    for host in world.hosts:
        host.kill()
        assert host.run("./run-all.sh", str(host.config)).returncode == 4
    assert world.box.cron().returncode == 4
    for host in world.hosts:
        (host.state / "ESTOP").unlink()
    for host in (world.first, world.second):
        host.start()
    world.wait_for(2, 40 + 160)


def open_work(world: World) -> bool:
    return bool(world.second.json("status")["open"])


def outage(world: World) -> None:
    """S3 is away while a partner arrives; everybody lives on and says so once, with what to do."""
    gateways = world.first, world.second
    before = [len(host.log()) for host in gateways]
    world.bucket.kill()
    world.shop.by_index(6, range(30), "a")
    wait_until(lambda: all(said_so(world, host, length) for host, length in zip(gateways, before, strict=True)),
               "the outage is in both logs", LONG)  # fmt: skip
    for host in gateways:
        assert host.run("./run-all.sh", "status", str(host.config)).returncode == 0
    world.bucket.start()
    world.wait_for(6, 30)
    wait_until(lambda: not any(complains(world, host) for host in gateways), "print_logs says that it is over", LONG)


def complains(world: World, host: Host) -> bool:
    """Whether the outage of S3 still stands among the troubles that are not over."""
    said = host.run("scripts/print_logs.sh", str(host.config), "100").stdout
    _, _, now = said.partition("troubles that are not over")
    return world.bucket.endpoint in now.partition("\n== ")[0]


def said_so(world: World, host: Host, length: int) -> bool:
    return world.bucket.endpoint in host.log()[length:]


def ticket(world: World) -> None:
    """The first gateway's ticket has ended: it says what to type, lives on, and goes on once that was typed."""
    for host in (world.first, world.second):
        host.stop()
    world.tickets.unlink()
    world.realm.kinit(world.tickets, lifetime="1s")
    before = len(world.first.log())
    wait_until(lambda: expired(world), "the ticket has ended")
    world.shop.by_index(7, range(30), "a")
    world.first.start()
    wait_until(lambda: "kinit" in world.first.log()[before:], "the log says what to type", LONG)
    assert world.first.run("./run-all.sh", "status", str(world.first.config)).returncode == 0
    world.realm.kinit(world.tickets)
    world.wait_for(7, 30)
    world.second.start()


def expired(world: World) -> bool:
    words = ("klist", "-s", "-c", str(world.tickets))
    return world.first.run(*words).returncode != 0


def idle(world: World) -> bool:
    found = world.second.json("status")
    return not found["open"] and not found["waiting"]


def account(world: World) -> None:
    """Every ref is on the lake: in the newest shipment that has its item, as feature or as the failure it must be."""
    found: dict[tuple[int, str], str] = {}
    lake = world.shop.lake
    files = sorted(entry.key for entry in lake.list("features/") if entry.key.endswith(".parquet"))
    for key in files:  # by shipment: for each item the feature in the greatest name wins
        table = pq.read_table(io.BytesIO(lake.get(key))).to_pylist()
        for one in table:
            item = one["partner_id"], one["external_id"]
            assert one["item_id"] == signed(item_id_of(one["external_id"]))
            if "/features/" in key:
                found[item] = "feature"
            elif found.get(item) != "feature":
                found[item] = one["reason"]
    missing = {item: wanted for item, wanted in world.shop.expected.items() if found.get(item) != wanted}
    assert missing == {}
    kinds = Counter(kind_of(int(name.split("/")[1].split()[0])) for _, name in world.shop.expected)
    assert kinds.keys() == {"picture", "gone", "page", "busy"}


def read_like_the_example(world: World) -> None:
    """`2016-03-13 06:59:52	[deliver]	Summary : Sent 2429 MB to HDFS`"""
    said = world.second.run("scripts/print_logs.sh", str(world.second.config)).stdout
    summary = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\t\[deliver\]\tSummary : Sent \d+ (?:bytes|kB|MB) to HDFS$"
    assert re.search(summary, said, re.M), said
    assert re.search(r"^== ship$", said, re.M)
    assert re.search(r"^not running", said, re.M)
