"""The whole pipeline with an HDFS as its lake, and two gateways that deliver to it while a reader follows the index."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.errors import NotFound
from pipeline.stores.hdfs.store import HdfsStore
from sample import random_features
from tests.environment import environ
from tests.integration.conftest import ROOT, picture, row
from tests.servers.demand import until
from tests.servers.hdfs import HdfsServer

ITEMS = 48
REFS = "refs/é 100% + #1;x=1.jsonl"
"""Signs that mean something in URLs."""


@pytest.fixture(params=["plain", "kerberos"])
def server(request: pytest.FixtureRequest) -> HdfsServer:
    found: HdfsServer = request.getfixturevalue({"plain": "hdfs_server", "kerberos": "secure_hdfs"}[request.param])
    return found


@dataclass
class Gateway:
    """A configuration over a lake in HDFS and a bucket in a folder."""

    folder: Path
    server: HdfsServer
    url: str

    def __post_init__(self) -> None:
        weights = self.folder / "random.caffemodel"
        random_features.write(weights)
        hdfs = "\n".join(
            f"{name} = {json.dumps(value)}"
            for name, value in self.server.settings().model_dump(exclude_unset=True).items()
        )
        self.config.write_text(f"""
state = "{self.folder / "state"}"
[bucket]
url = "{self.folder / "bucket"}"
fsync = false
[lakes.shop]
url = "{self.url}"
[lakes.shop.hdfs]
{hdfs}
[[lakes.shop.sources]]
path = "refs"
[sets.demo]
net = "{ROOT / "sample" / "random_features.prototxt"}"
weights = "{weights}"
blob = "features"
root = "deep/features"
[ship]
batch_refs = 4
batches_per_shipment = 1
[compute]
threads = 1
[daemon]
poll_seconds = 0.2
[logs]
folder = "{self.folder / "logs"}"
""")

    @property
    def config(self) -> Path:
        return self.folder / "hathi.toml"

    @property
    def lake(self) -> HdfsStore:
        return HdfsStore(self.url, self.server.settings())

    def keys(self, name: str) -> int:
        """How many shipments have come so far."""
        return len(list((self.folder / "bucket" / "shop" / "c").glob(f"*/{name}")))

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "pipeline.cli.main", words[0], "--config", str(self.config), *words[1:]]

    @contextmanager
    def serving(self, *stages: str, host: str) -> Iterator[None]:
        """The stages as a daemon, on a host of their own; ended by SIGTERM, which it has to follow."""
        own = {"HATHI_STATE": str(self.folder / host), "HATHI_LOGS__FOLDER": str(self.folder / f"{host}-logs")}
        with subprocess.Popen(
            self.words("serve", *stages),
            cwd=ROOT,
            env={**environ(), **own},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield
            finally:
                process.terminate()
                said = process.communicate(timeout=60)[1]
        assert process.returncode == 0, said


@pytest.fixture
def gateway(server: HdfsServer, tmp_path: Path) -> Gateway:
    made = Gateway(tmp_path, server, server.url())
    lines = [row(f"sku-{number}", picture(number), number % 3) for number in range(ITEMS)]
    made.lake.put(REFS, "\n".join(lines).encode())
    return made


def read_all(lake: HdfsStore, index: dict[str, object]) -> int:
    """Every byte that the index names; how many files."""
    number = 0
    for delivery in index["deliveries"]:  # type: ignore[attr-defined]
        for file in delivery["files"]:
            content = lake.get(f"deep/features/{delivery['folder']}/{file['name']}")
            assert len(content) == file["size"]
            assert hashlib.sha256(content).hexdigest() == file["sha256"]
            number += 1
    return number


def test_a_run_ships_from_hdfs_and_delivers_to_it(gateway: Gateway) -> None:
    done = subprocess.run(gateway.words("run"), cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lake = gateway.lake
    index = json.loads(lake.get("deep/features/outputByPartner"))
    assert sum(one["features"] for one in index["deliveries"]) == ITEMS
    assert read_all(lake, index) >= len(index["deliveries"])
    assert [found.path for found in lake.walk("refs")] == [REFS]
    left = [entry.key for entry in lake.list("deep/features/_tmp/")]
    assert left == []
    again = subprocess.run(gateway.words("run"), cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert json.loads(lake.get("deep/features/outputByPartner")) == index


def test_a_reader_of_the_index_finds_every_byte_while_two_gateways_deliver(gateway: Gateway) -> None:
    shipments = ITEMS // 4
    with gateway.serving("ship", "compute", "aggregate", host="box"):
        until(lambda: gateway.keys("out") == shipments, "all is aggregated", 200.0)
    seen: list[int] = []
    wrong: list[BaseException] = []
    over = threading.Event()

    def follow() -> None:
        lake, known = gateway.lake, set[str]()
        try:
            while not over.is_set() or not seen or seen[-1] < shipments:
                try:
                    index = json.loads(lake.get("deep/features/outputByPartner"))
                except NotFound:
                    assert not known
                    continue
                folders = {one["folder"] for one in index["deliveries"]}
                assert known <= folders, "a delivery was lost"
                read_all(lake, {"deliveries": [one for one in index["deliveries"] if one["folder"] not in known]})
                known = folders
                seen.append(len({folder.partition("/")[0] for folder in folders}))
        except BaseException as error:
            wrong.append(error)

    reader = threading.Thread(target=follow)
    reader.start()
    with ExitStack() as hosts:
        for host in ("one", "two"):
            hosts.enter_context(gateway.serving("deliver", host=host))
        until(lambda: gateway.keys("done") == shipments or bool(wrong), "all is delivered", 200.0)
    over.set()
    reader.join(60)
    assert not wrong, wrong
    assert seen[-1] == shipments
    index = json.loads(gateway.lake.get("deep/features/outputByPartner"))
    assert sum(one["features"] for one in index["deliveries"]) == ITEMS
    said = "".join(path.read_text() for path in gateway.folder.glob("*-logs/*.log"))
    assert "Alert" not in said, said
