"""What the acceptance day is played with: a lake behind Kerberos, a bucket, a web of images, gateways and a box."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.codec import image_refs
from pipeline.records import ImageRef, item_id_of
from pipeline.stores.hdfs.store import HdfsStore
from sample import random_features
from tests.environment import environ
from tests.integration.conftest import picture
from tests.servers.hdfs import HdfsServer
from tests.servers.kerberos import Realm
from tests.servers.s3 import S3Server

ROOT = Path(__file__).parents[2]
KINDS = {0: "gone", 1: "page", 2: "busy"}
"""What a URL's number modulo 10 makes of it; the others are pictures."""
REASONS = {"gone": "http_4xx", "page": "not_image"}


def kind_of(number: int) -> str:
    return KINDS.get(number % 10, "picture")


class Web:
    """`/KIND/PARTNER/NUMBER`: pictures, pages, 404s, and hosts that are busy the first time they are asked."""

    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()
        web = self

        class Guest(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, body = web.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Not in the tests' output."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Guest)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def answer(self, path: str) -> tuple[int, bytes]:
        self._asked[path] += 1
        found = re.fullmatch(r"/(\w+)/(\d+)/(\d+)", path)
        if found is None or found[1] == "gone":
            return 404, b"no"
        if found[1] == "page":
            return 200, b"<!doctype html><title>sold out</title>"
        if found[1] == "busy" and self._asked[path] == 1:
            return 503, b"later"
        return 200, picture(int(found[2]) * 1000 + int(found[3]))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class Shop:
    """What the lake's owners write, and what must become of it."""

    lake: HdfsStore
    web: Web
    expected: dict[tuple[int, str], str] = field(default_factory=dict)
    """(partner, external id) -> feature, or the reason of its failure, for the newest version of each partner."""
    index: dict[str, Any] = field(default_factory=dict)

    def refs(self, partner: int, numbers: range) -> list[ImageRef]:
        """Refs of a partner; each is expected from now on."""
        refs = []
        for number in numbers:
            kind, name = kind_of(number), f"sku {partner}/{number} ä+%"
            url = f"{self.web.url}/{kind}/{partner}/{number}"
            refs.append(ImageRef(partner, item_id_of(name), name, url, b"", number))
            self.expected[partner, name] = REASONS.get(kind, "feature")
        return refs

    def by_index(self, partner: int, numbers: range, version: str) -> None:
        """A partner's files of delimited protobuf, then the index that names them."""
        content = image_refs.encode(self.refs(partner, numbers))
        folder = f"jobs/{partner}/{version}"
        self.lake.put(f"{folder}/part 0+%.pb", content)
        self.index[str(partner)] = {
            "jobTimeStamp": int(time.time() * 1000),
            "outputFolder": folder,
            "files": ["part 0+%.pb"],
            "outputSize": len(content),
        }
        self.write_index()

    def write_index(self) -> None:
        self.lake.put("jobs/outputByPartner", json.dumps({"outputByPartner": self.index}).encode())

    def by_folder(self, partner: int, numbers: range, scratch: Path) -> None:
        """A table of today's folder, and `_SUCCESS` at its end."""
        day = datetime.now(UTC).strftime("daily/%Y/%m/%d")
        refs = self.refs(partner, numbers)
        table = pa.table({"sku": [ref.external_id for ref in refs], "url": [ref.url for ref in refs]})
        pq.write_table(table, scratch / "part.parquet")
        self.lake.put(f"{day}/partner={partner}/part-0.parquet", scratch / "part.parquet")
        self.lake.put(f"{day}/_SUCCESS", b"")


@dataclass
class Host:
    """A gateway or a compute box: a configuration, and the scripts that people type."""

    config: Path
    environ: Mapping[str, str]

    @property
    def state(self) -> Path:
        return self.config.parent / "state"

    @property
    def logs(self) -> Path:
        return self.config.parent / "logs"

    def run(self, *words: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*words], cwd=ROOT, env=dict(self.environ), text=True, timeout=timeout, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def start(self) -> None:
        done = self.run("./run-all.sh", str(self.config))
        assert done.returncode == 0, done.stdout

    def stop(self) -> None:
        self.run("./run-all.sh", "stop", str(self.config))

    def kill(self) -> None:
        """kill -9 of everything that runs with this configuration."""
        self.run("./run-all.sh", "kill", str(self.config))

    def cron(self) -> subprocess.CompletedProcess[str]:
        return self.run("scripts/compute-cron.sh", str(self.config), timeout=300.0)

    def hathi(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(ROOT / ".venv/bin/hathi"), *words, "--config", str(self.config))

    def json(self, *words: str) -> Any:
        """What a command that prints JSON says, whatever its exit code."""
        command = [str(ROOT / ".venv/bin/hathi"), *words, "--json", "--config", str(self.config)]
        done = subprocess.run(command, cwd=ROOT, env=dict(self.environ), text=True, timeout=120, capture_output=True)
        return json.loads(done.stdout)

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.logs.glob("*.log*")))


@contextmanager
def cron_every(host: Host, seconds: float) -> Iterator[list[int]]:
    """What cron does: a run every so often, as long as this lasts; gives the exit codes."""
    over = threading.Event()
    codes: list[int] = []

    def go_on() -> None:
        while not over.wait(seconds):
            codes.append(host.cron().returncode)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield codes
    finally:
        over.set()
        thread.join()


def make_host(
    folder: Path, realm: Realm, hdfs: HdfsServer, s3: S3Server, kerberos: Mapping[str, object], weights: Path
) -> Host:
    """kerberos: how this host proves who it is; a compute box cannot reach the lake and needs none."""
    folder.mkdir(parents=True)
    tables: dict[str, Mapping[str, object]] = {
        "bucket": {
            "url": "s3://shared/hathi", "endpoint": s3.endpoint, "region": "us-east-1", "access_key": s3.access_key,
            "secret_key": s3.secret_key, "connect_seconds": 2.0, "read_seconds": 10.0, "retry_seconds": 3.0,
        },
        "lakes.shop": {"url": f"hdfs://{hdfs.address}/shop"},
        "lakes.shop.hdfs": {
            "authentication": "kerberos", **kerberos, "connect_seconds": 2.0, "read_seconds": 10.0,
            "retry_seconds": 3.0,
        },
        "sets.demo": {
            "net": str(ROOT / "sample" / "random_features.prototxt"), "weights": str(weights), "blob": "features",
            "root": "features",
        },
        "ship": {"batch_refs": 32, "batches_per_shipment": 4, "retry_delays": [2.0, 3.0, 4.0]},
        "fetch": {"allow_private": True, "requests_per_second": 400.0, "burst": 400, "attempts": 1},
        "compute": {"threads": 1},
        "daemon": {"poll_seconds": 1.0, "beat_seconds": 4.0, "alive_seconds": 20.0},
        "health": {"every_seconds": 5.0},
        "logs": {"folder": "logs"},
    }  # fmt: skip
    sources: list[dict[str, Any]] = [
        {"path": "jobs/outputByPartner", "convention": "index"},
        {"path": "daily/%Y/%m/%d", "convention": "success", "look_back_days": 1},
    ]
    text = 'state = "state"\n'
    for name, values in tables.items():
        text += f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
        if name == "lakes.shop.hdfs":
            for source in sources:
                text += "[[lakes.shop.sources]]\n"
                text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in source.items())
    (folder / "hathi.toml").write_text(text)
    return Host(folder / "hathi.toml", environ(KRB5_CONFIG=str(realm.conf)))


def make_net(folder: Path) -> Path:
    random_features.write(folder / "random.caffemodel")
    return folder / "random.caffemodel"
