"""A deployment that runs: a gateway's daemons, a box that cron calls, a bucket, a lake, and a shop with images.

Everything is started by the scripts that operators type; faults are done to files, processes and servers.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from sample import random_features
from tests.acceptance.conftest import wait_until
from tests.acceptance.world import ROOT, Host
from tests.environment import environ
from tests.night.shop import Shop

PATIENCE = 600.0
"""On a machine that does much else, too."""
REFS = 24
"""Of a list; more than `health.failed_refs` of the deployment."""

Tables = Mapping[str, Mapping[str, object]]


@dataclass
class Deployment:
    """One gateway, one box, and what must be on the lake in the end."""

    folder: Path
    shop: Shop
    tables: dict[str, dict[str, object]] = field(default_factory=dict)
    """Values of both hosts that are other than those of folders."""
    expected: set[str] = field(default_factory=set)
    """The external ids of all rows that were ever on the lake to be read."""
    lists: int = 0
    environ: dict[str, dict[str, str]] = field(default_factory=dict)
    """By host: what its programs find in their environment besides."""
    mails: list[str] = field(default_factory=list)
    """What cron has mailed, each a call of the box."""

    @property
    def gateway(self) -> Host:
        return self._host("gateway")

    @property
    def box(self) -> Host:
        return self._host("box")

    def _host(self, name: str) -> Host:
        return Host(self.folder / name / "hathi.toml", environ(**self.environ.get(name, {})))

    @property
    def lake(self) -> Path:
        return self.folder / "lake"

    @property
    def bucket(self) -> Path:
        return self.folder / "bucket"

    @property
    def weights(self) -> Path:
        """Those of the box; the gateway has its own."""
        return self.folder / "box" / "w.caffemodel"

    def configure(self, name: str, more: Tables | None = None) -> Path:
        """The configuration of gateway or box, with changes of single values."""
        tables: dict[str, dict[str, object]] = {
            "bucket": {"url": str(self.bucket), "fsync": False},
            "lakes.shop": {"url": str(self.lake)},
            "sets.demo": {
                "net": str(ROOT / "sample" / "random_features.prototxt"), "weights": "w.caffemodel",
                "blob": "features", "root": "features",
            },
            "ship": {"batch_refs": 8, "retry_delays": [1.0, 1.0, 1.0]},
            "fetch": {
                "allow_private": True, "requests_per_second": 400.0, "burst": 400, "attempts": 1, "total_seconds": 3.0,
                "min_speed_grace_seconds": 1.0, "dns_negative_seconds": 1.0,
            },
            "compute": {"threads": 1, "free_bytes": 0},
            "daemon": {"poll_seconds": 1.0, "beat_seconds": 2.0, "alive_seconds": 8.0},
            "health": {"every_seconds": 2.0, "failed_refs": 20},
            "logs": {"folder": "logs", "echo": False},
        }  # fmt: skip
        for changes in (self.tables, more or {}):
            for table, values in changes.items():
                tables.setdefault(table, {}).update(values)
        text = 'state = "state"\n'
        for table, values in tables.items():
            text += f"[{table}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        text += '[[lakes.shop.sources]]\npath = "refs"\n'
        path = self.folder / name / "hathi.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def begin(self) -> None:
        """Configure both hosts, deliver a first list, and let the daemons run."""
        for name in ("gateway", "box"):
            self.configure(name)
            random_features.write(self.folder / name / "w.caffemodel")
        self.put_refs()
        self.gateway.start()
        self.settle()

    def lines(self, host: str = "127.0.0.1") -> list[str]:
        """The rows of a new list, of a partner of its own; each is expected from now on."""
        self.lists += 1
        rows = []
        for number in range(self.lists * 1000, self.lists * 1000 + REFS):
            row = {"partner_id": 100 + self.lists, "external_id": f"sku-{number}", "url": self.shop.url(number, host)}
            self.expected.add(str(row["external_id"]))
            rows.append(json.dumps(row))
        return rows

    def put_refs(self, host: str = "127.0.0.1", days: float = 0.0) -> str:
        """A new list on the lake, so many days old; its name."""
        name = f"{self.lists + 1:03d}.jsonl"
        self.write(f"refs/{name}", "\n".join(self.lines(host)).encode(), days)
        return name

    def write(self, key: str, content: bytes, days: float = 0.0) -> None:
        """A file of the lake, there at once."""
        path = self.lake / key
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.parent.parent / f".{path.name}"
        fresh.write_bytes(content)
        when = time.time() - days * 86400.0
        os.utime(fresh, (when, when))
        fresh.rename(path)

    def call_box(self) -> None:
        """What cron does."""
        self.mails.append(self.box.cron().stdout)

    def until(self, true: Callable[[], object], what: str) -> None:
        wait_until(true, what, PATIENCE)

    def waits_for(self, stage: str) -> None:
        """Until a shipment waits for a stage."""
        self.until(lambda: stage in {one["stage"] for one in self.open()}, f"a shipment waits for {stage}")

    def object_of(self, stage: str, pattern: str) -> Path:
        """An object of the one shipment that waits for a stage, once it is there; `pattern` is of its key's end."""
        self.waits_for(stage)
        (name,) = {one["shipment"] for one in self.open() if one["stage"] == stage}

        def found() -> list[Path]:
            return sorted(path for path in (self.bucket / "shop").rglob(pattern) if name in str(path))

        self.until(found, f"{pattern} of {name}")
        return found()[0]

    def attempts(self) -> int:
        """How often processes have begun to compute a batch of an open shipment."""
        names = {one["shipment"] for one in self.open()}
        return sum(1 for name in names for _ in (self.bucket / "shop" / "c" / name).glob("*/t/*/*"))

    @contextmanager
    def box_at_work(self) -> Iterator[None]:
        """Cron calls the box beside what is done here, once it has begun a batch; its end is waited for."""
        before = self.attempts()
        cron = threading.Thread(target=self.call_box)
        cron.start()
        try:
            self.until(lambda: self.attempts() > before, "the box has begun a batch")
            yield
        finally:
            cron.join()

    def open(self) -> list[dict[str, str]]:
        """The open shipments, as status names them."""
        found: list[dict[str, str]] = self.gateway.json("status")["open"]
        return found

    def settle(self) -> None:
        """Cron calls the box until nothing is open and no retry waits."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self.call_box()
            found = self.gateway.json("status")
            if not found["open"] and not found["waiting"] and self.expected <= self.delivered():
                return
            assert time.monotonic() < deadline, f"it does not come to rest: {json.dumps(found)[:3000]}"

    def delivered(self) -> set[str]:
        """The external ids on the lake, with a feature or with a failure that says why not."""
        files = (self.lake / "features").glob("*T*/*/*/*.parquet")
        return {str(one) for file in files for one in pq.read_table(file)["external_id"].to_pylist()}

    def lost(self) -> list[str]:
        """What is missing on the lake, and what `verify --deep` says is damaged."""
        missing = sorted(self.expected - self.delivered())
        verified = self.gateway.hathi("verify", "--deep")
        said = [] if verified.returncode == 0 else verified.stdout.splitlines()
        return [f"{len(missing)} rows are not on the lake: {', '.join(missing[:3])}", *said] if missing else said

    def end(self) -> None:
        for host in (self.box, self.gateway):
            host.kill()
        self.shop.close()


@contextmanager
def in_folders(folder: Path) -> Iterator[Deployment]:
    """Bucket and lake are folders."""
    made = Deployment(folder, Shop())
    try:
        made.begin()
        yield made
    finally:
        made.end()
