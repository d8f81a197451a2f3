"""Images that are kept, features that are used again, a data set, and a person who wants to be gone: S3 and HDFS."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.clock import random_nonce
from pipeline.ledger.bodies import body_of
from pipeline.ledger.deliveries import PartnerManifest
from pipeline.records import item_id_of, signed
from pipeline.stores.hdfs.store import HdfsStore
from pipeline.stores.s3.store import S3Store
from pipeline.stores.store import Store
from pipeline.training.dataset.manifest import read_manifest
from tests.environment import environ
from tests.integration.conftest import ROOT, picture
from tests.servers.hdfs import HdfsServer
from tests.servers.s3 import S3Server

ITEMS, GONE = 12, "canary-4711"


@dataclass
class Site:
    """A bucket on S3, a lake on HDFS, and a shop whose images lie in a folder."""

    folder: Path
    server: S3Server
    bucket: S3Store
    lake: HdfsStore

    def hathi(self, *words: str) -> str:
        command = [sys.executable, "-m", "pipeline.cli.main", *words, "--config", str(self.folder / "h.toml")]
        env = {**environ(), "HATHI_BUCKET__SECRET_KEY": self.server.secret_key}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout

    def name(self, at: int) -> str:
        return GONE if at == 5 else f"sku-{at}"

    def ship(self, *changed: int) -> None:
        """The list of a day, under a name of its own; these images are others."""
        (self.folder / "shop").mkdir(exist_ok=True)
        lines = []
        for at in range(ITEMS):
            path = self.folder / "shop" / f"{self.name(at)}.png"
            path.write_bytes(picture(at + 1000 * (at in changed)))
            lines.append(json.dumps({"partner_id": 7, "external_id": self.name(at), "url": f"file://{path}"}))
        self.lake.put(f"refs/{len(changed)}.jsonl", "\n".join(lines).encode())

    def told(self) -> Iterator[tuple[str, bytes]]:
        """Each object and file but the source, and what it holds, packed or not."""
        stores: tuple[tuple[str, Store], ...] = (("bucket", self.bucket), ("lake", self.lake))
        for where, store in stores:
            for entry in list(store.list("")):
                if entry.key.startswith("refs/"):
                    continue
                content = store.get(entry.key)
                if content.startswith(b"PAR1"):
                    content += repr(pq.read_table(io.BytesIO(content)).to_pylist()).encode()
                elif content.startswith(b"\x1f\x8b"):
                    content += gzip.decompress(content)
                yield f"{where} {entry.key}", entry.key.encode() + content
        for path in sorted((self.folder / "set").glob("*")):
            yield str(path), path.read_bytes()

    def manifests(self) -> list[PartnerManifest]:
        keys = [entry.key for entry in self.lake.list("features/") if entry.key.endswith("/7/_manifest.json")]
        return [body_of(PartnerManifest, self.lake.get(key), key) for key in keys if "_current" not in key]


@pytest.fixture
def site(s3_server: S3Server, hdfs_server: HdfsServer, tmp_path: Path) -> Site:
    bucket, lake = f"s3://shared/{random_nonce()}", hdfs_server.url(random_nonce())
    of_lake = hdfs_server.settings()
    hdfs = "\n".join(f"{name} = {json.dumps(value)}" for name, value in of_lake.model_dump(exclude_unset=True).items())
    (tmp_path / "h.toml").write_text(f"""
state = "{tmp_path}/state"
logs.folder = "{tmp_path}/logs"
archive.enabled = true
fetch.allow_folders = ["{tmp_path}"]
deliver.compact = true
[bucket]
url = "{bucket}"
endpoint = "{s3_server.endpoint}"
access_key = "{s3_server.access_key}"
[lakes.main]
url = "{lake}"
[lakes.main.hdfs]
{hdfs}
[[lakes.main.sources]]
path = "refs"
[sets.demo]
net = "hog"
blob = "hog"
input_size = [32, 32]
root = "features"
""")
    return Site(tmp_path, s3_server, S3Store(s3_server.settings(bucket)), HdfsStore(lake, of_lake))


def test_the_loop_over_servers_keeps_uses_again_and_forgets(site: Site) -> None:
    site.ship()
    assert json.loads(site.hathi("run", "--json"))["features"] == ITEMS
    site.ship(3)
    second = json.loads(site.hathi("run", "--json"))
    assert (second["features"], second["equal_bytes"]) == (ITEMS, ITEMS - 1)
    labels = "partner_id,external_id,label\n" + "".join(f"7,{site.name(at)},{at % 2}\n" for at in range(ITEMS))
    (site.folder / "labels.csv").write_text(labels)
    made = ["--labels", str(site.folder / "labels.csv"), "--features", "demo"]
    site.hathi("dataset", "make", str(site.folder / "set"), *made)
    site.hathi("compact")

    needles = [picture(5), f"{GONE}.png".encode(), f"'{GONE}'".encode(), str(item_id_of(GONE)).encode()]
    needles.append(str(signed(item_id_of(GONE))).encode())
    before = [where for where, content in site.told() if any(one in content for one in needles)]
    for place in ("bucket main/d/a/", "bucket main/d/2", "lake features/2", "lake features/_current/", "/set/part"):
        assert any(place in where for where in before), f"{place}: {before}"
    said = site.hathi("forget", "7", GONE, "--yes")
    assert "it is done" in said, said
    assert [where for where, content in site.told() if any(one in content for one in needles)] == []
    assert read_manifest(site.folder / "set").examples == ITEMS - 1
    told = sorted((one.features, one.equal_bytes, one.forgotten) for one in site.manifests())
    assert told == [(ITEMS - 1, 0, 1), (ITEMS - 1, ITEMS - 2, 1)], "what went is counted no more"
    assert "damage" not in site.hathi("verify", "--deep")
