"""Hosts that are killed at random instants while sources grow: `python -m tests.crash.random_kills --kills 300`.

A gateway, and two compute boxes on one inbox, over one bucket and one lake, each started again as cron does it.  At
the end what is delivered must equal, byte for byte, what a run without kills delivers from the same sources.
--servers s3, hdfs or both: over the real ones, which are killed and started again as well.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.settings import load
from pipeline.stores.opening import open_lake
from tests.crash.points import SHIPMENT
from tests.crash.site import Site, down, inline, picture
from tests.crash.zygote import Zygote

HOSTS = {"gateway": ("ship", "deliver"), "box-a": ("compute", "aggregate"), "box-b": ("compute", "aggregate")}
MANY = {"HATHI_COMPUTE__LOST": "1000000"}
"""No batch is suspected here: it is the processes that are killed, and a batch alone has a clock of its own."""
REST_ROUNDS = 60
COMES_BACK = 180.0
"""A server that was killed and started takes files again within so many seconds."""


@dataclass
class Where:
    """The stores, as tables of a configuration, and how their servers are killed and come back."""

    bucket_lines: str = ""
    lake_lines: str = ""
    shakers: list[Callable[[random.Random], str]] = field(default_factory=list)
    pause: float = 0.35
    """Between two kills, in seconds, at most: most of a run goes by in it."""


@dataclass
class Ran:
    """What happened."""

    seed: int
    kills: int = 0
    starts: int = 0
    ended: int = 0
    servers: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    files: int = 0
    wrong: str = ""

    def told(self) -> str:
        places = ", ".join(f"{name} {number}" for name, number in sorted(self.points.items()))
        servers = "".join(f", {name} killed and started {number} times" for name, number in self.servers.items())
        return (
            f"seed {self.seed}: {self.kills} kills, {self.starts} starts, {self.ended} ended by themselves{servers}; "
            f"{self.files} ref files; the last write before a kill: {places}; {self.wrong or 'all is equal'}"
        )


class Life:
    """One seeded life of an installation."""

    def __init__(self, folder: Path, zygote: Zygote, seed: int, where: Where) -> None:
        self.random = random.Random(seed)
        self.ran = Ran(seed)
        self.where = where
        self.sites = {
            name: Site(folder, zygote, name, bucket_lines=where.bucket_lines, lake_lines=where.lake_lines)
            for name in HOSTS
        }
        self.zygote = zygote
        self.clock = float(int(time.time()))
        self.living: dict[str, int] = {}
        self.lake = open_lake(load(self.sites["gateway"].config, {}), "shop")

    def run(self, kills: int) -> Ran:
        """So many kills, then rest.  Raises nothing of the product: what is wrong is told."""
        self.add_refs()
        while self.ran.kills < kills:
            for name in HOSTS:
                if name not in self.living:
                    self.start(name)
            time.sleep(self.random.uniform(0.0, self.where.pause))
            self.strike(self.random.choice(list(HOSTS)))
            if self.random.random() < 0.12:
                self.add_refs()
            if self.where.shakers and self.random.random() < 0.15:
                shaker = self.where.shakers.pop(0)
                self.where.shakers.append(shaker)
                self.ran.servers[shaker(self.random)] += 1
        for name in list(self.living):
            self.end(name)
        self.ran.wrong = self.rest() or self.look()
        return self.ran

    def add_refs(self) -> None:
        """One more file: images, some that are none, a host that is down, ids that come again."""
        self.ran.files += 1
        number = self.ran.files
        lines = []
        for place in range(self.random.randint(0, 9)):
            item, partner = f"i{self.random.randint(0, 12)}", self.random.randint(7, 8)
            content = b"junk" if self.random.random() < 0.2 else picture(100 * number + place)
            lines.append(down(item, partner) if self.random.random() < 0.15 else inline(item, content, partner))
        body = ("\n".join(lines) + "\n" if lines else "").encode()
        ends = time.monotonic() + COMES_BACK
        while True:
            try:
                self.lake.put(f"refs/{number:04d}.jsonl", body)
                return
            except PipelineError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.5)

    def start(self, name: str) -> None:
        self.living[name] = self.sites[name].start(["run", "--once", *HOSTS[name]], clock=self.clock, **MANY)  # type: ignore[arg-type]
        self.ran.starts += 1

    def strike(self, name: str) -> None:
        """SIGKILL, wherever it is; one that had ended before counts as ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.living[name], signal.SIGKILL)
        if self.end(name) == -signal.SIGKILL:
            self.ran.kills += 1
            self.ran.points[self.last_write(name)] += 1
        else:
            self.ran.ended += 1

    def end(self, name: str) -> int:
        return self.zygote.wait(self.living.pop(name))

    def last_write(self, name: str) -> str:
        """What a host wrote last, in the protocol's words."""
        journal = self.sites[name].journal
        lines = journal.read_text().splitlines() if journal.exists() else []
        if not lines:
            return "nothing"
        _, _, verb, key = lines[-1].split("\t")
        key = re.sub(SHIPMENT, "S", key)
        key = re.sub(r"[0-9a-f]{16}", "*", key)
        key = re.sub(r"/alive/.*", "/alive/*", key)
        key = re.sub(r"/[0-9a-f]{12}/", "/F/", key)
        return f"{verb} {re.sub(r'[0-9]{4,}T?[0-9]*Z?|(?<=/)[78]$|(?<=/)[78](?=/)', '#', key)}"

    def rest(self) -> str:
        """Without kills until nothing is due; "" once it is so."""
        for _ in range(REST_ROUNDS):
            codes = [self.sites[name].hathi("run", *HOSTS[name], clock=self.clock, **MANY) for name in HOSTS]
            if not any(codes) and self.sites["gateway"].nothing_open():
                return ""
        return f"does not come to rest: {self.sites['gateway'].said[-2000:]}"

    def look(self) -> str:
        """What differs from a run without kills over the same files; what `verify --deep` and `why` find."""
        site = self.sites["gateway"]
        left = [f"{one.box}: {one.left()}" for one in self.sites.values() if one.left()]
        if left:
            return f"left behind: {left}"
        code = self.zygote.wait(site.start(["verify", "--deep"], ["why", "7", "i1"], clock=self.clock, journal=False))
        if code != 0:
            return f"verify --deep and why: exit {code}: {site.said}"
        bucket = site.folder / "whole-bucket"
        whole = Site(
            site.folder, self.zygote, "whole", root="whole", lake_lines=self.where.lake_lines,
            bucket_lines=f'url = "{bucket}"\nfsync = false',
        )  # fmt: skip
        if (code := whole.hathi("run", clock=self.clock, journal=False)) != 0:
            return f"the run without kills: exit {code}: {whole.said}"
        mine, expected = site.delivered(), whole.delivered()
        differing = sorted(key for key in {*mine, *expected} if mine.get(key) != expected.get(key))
        return f"{len(differing)} of {len(expected)} differ: {differing[:6]}" if differing else ""


@contextlib.contextmanager
def servers(names: set[str]) -> Iterator[Where]:
    """The real servers, where they are named."""
    where = Where(pause=2.5 if names else 0.35)
    with contextlib.ExitStack() as held:
        if "s3" in names:
            from tests.servers import s3

            bucket = held.enter_context(s3.running())
            where.bucket_lines = (
                f'url = "s3://shared/kills"\nendpoint = "{bucket.endpoint}"\nregion = "us-east-1"\n'
                f'access_key = "{bucket.access_key}"\nsecret_key = "{bucket.secret_key}"\nretry_seconds = 30.0'
            )

            def shake_s3(chance: random.Random) -> str:
                bucket.kill()
                time.sleep(chance.uniform(0.0, 2.0))
                bucket.start()
                return "S3"

            where.shakers.append(shake_s3)
        if "hdfs" in names:
            from tests.servers import hdfs

            lake = held.enter_context(hdfs.running())
            where.lake_lines = f'url = "{lake.url()}"\n[lakes.shop.hdfs]\nuser = "root"\nretry_seconds = 60.0'

            def shake_namenode(chance: random.Random) -> str:
                assert lake.namenode is not None
                lake.namenode.kill()
                lake.start_namenode()
                return "NameNode"

            def shake_datanode(chance: random.Random) -> str:
                assert lake.datanode is not None
                lake.datanode.kill()
                lake.start_datanode()
                return "DataNode"

            where.shakers += [shake_namenode, shake_datanode]
        yield where


def run(folder: Path, seed: int, kills: int, names: set[str]) -> Ran:
    """One life, told at its end."""
    zygote = Zygote()
    try:
        with servers(names) as where:
            return Life(folder, zygote, seed, where).run(kills)
    finally:
        zygote.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--servers", nargs="*", choices=["s3", "hdfs"], default=[])
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hathi-kills-"))
    ran = run(folder, args.seed, args.kills, set(args.servers))
    print(ran.told())
    if ran.wrong:
        print(f"everything is left in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
