"""Health and doctor against a real HDFS and a real S3 server: all is well, and what they say when it is not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.clock import random_nonce
from pipeline.ledger.layout import Root
from pipeline.stages.index import read_index
from sample import random_features
from tests.environment import environ
from tests.integration.conftest import ROOT, picture, row
from tests.servers.hdfs import HdfsServer
from tests.servers.s3 import S3Server


@dataclass
class Site:
    """A gateway whose lake is an HDFS and whose bucket is an S3."""

    folder: Path
    hdfs: HdfsServer
    s3: S3Server

    def __post_init__(self) -> None:
        self.place = f"tests/{random_nonce()}"
        random_features.write(self.folder / "w.caffemodel")

    def write(self, **bucket: str) -> None:
        keys = {
            "url": f"s3://shared/{self.place}", "endpoint": self.s3.endpoint, "region": "us-east-1",
            "access_key": self.s3.access_key, "secret_key": self.s3.secret_key,
        }  # fmt: skip
        lines = ['state = "state"', "[bucket]", "retry_seconds = 0.5"]
        lines += [f'{key} = "{value}"' for key, value in {**keys, **bucket}.items()]
        lines += ["[logs]", 'folder = "logs"', "[health]", "disk_percent = 100.0"]
        lines += ["[lakes.shop]", f'url = "{self.hdfs.url(self.place)}"']
        lines += ["[lakes.shop.hdfs]", 'user = "root"', "retry_seconds = 0.5"]
        lines += ["[[lakes.shop.sources]]", 'path = "refs"', "[sets.demo]", 'weights = "w.caffemodel"']
        lines += [f'net = "{ROOT}/sample/random_features.prototxt"', 'blob = "features"', 'root = "features"']
        (self.folder / "hathi.toml").write_text("\n".join(lines))

    def hathi(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.cli.main", *words, "--config", str(self.folder / "hathi.toml")]
        return subprocess.run(command, cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=300)


@pytest.fixture
def site(tmp_path: Path, hdfs_server: HdfsServer, s3_server: S3Server) -> Site:
    made = Site(tmp_path, hdfs_server, s3_server)
    made.write()
    return made


def test_health_and_doctor_see_a_gateway_on_hdfs_and_s3_and_what_is_wrong_with_it(site: Site) -> None:
    lake = site.hdfs.store(site.place)
    lake.put("refs/a.jsonl", "\n".join(row(item, picture(len(item))) for item in ("one", "three")).encode())
    done = site.hathi("run")
    assert done.returncode == 0, done.stdout + done.stderr
    well = site.hathi("health", "--json")
    facts = json.loads(well.stdout)["facts"]
    assert well.returncode == 0, well.stdout
    assert [(store["name"], store["trouble"]) for store in facts["stores"]] == [("bucket", ""), ("lake shop", "")]
    assert all(abs(store["skew"]) < 5 for store in facts["stores"])
    assert facts["lakes"][0]["folders_checked"] == 1
    doctor = site.hathi("doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert "put-if-absent" in doctor.stdout

    (files,) = (partner.files for partner in read_index(lake, Root("features")).partners.values())
    lake.delete(f"features/{files[0]}")
    site.write(secret_key="another-4711")
    wrong = site.hathi("health", "--json")
    assert wrong.returncode == 2
    (one,) = json.loads(wrong.stdout)["findings"]
    assert (one["level"], one["key"]) == ("Alert", "store bucket")
    assert one["hint"]
    said = [json.loads(line) for line in site.hathi("doctor", "ship", "--json").stdout.splitlines()]
    assert {line["area"] for line in said if not line["ok"]} == {"clock", "bucket", "programs"}
    (unseen,) = [line["said"] for line in said if not line["ok"] and line["area"] == "programs"]
    assert "ESTOP" in unseen, "whether it stands in the bucket is not known"
    assert all(line["hint"] for line in said if not line["ok"])
    assert "another-4711" not in f"{said} {wrong.stdout}"

    site.write()
    gone = site.hathi("health")
    assert gone.returncode == 2
    assert f"1 delivered file missing: features/{files[0]}" in gone.stdout
