"""Images that are kept, as typed: a gateway and a box of their own, a shop that is gone, a person who wants to be."""

from __future__ import annotations

import gzip
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.records import item_id_of, signed
from tests.integration.conftest import ROOT, environ

ITEMS = 20
GONE = "SKU-1"
"""Whom docs/archive.md forgets; of partner 7."""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass
class Site:
    """A folder with bucket, lake and two hosts; and a shop on the web."""

    folder: Path
    server: ThreadingHTTPServer = field(repr=False)

    @property
    def shop(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def picture(self, item: int) -> Path:
        return self.folder / "shop" / f"{item}.jpg"

    def write(self, host: str, size: int) -> None:
        box = host == "box"
        lines = [f'role = "{"compute" if box else "gateway"}"', 'state = "state"', "[bucket]", 'url = "../bucket"']
        lines += ["[logs]", 'folder = "logs"', "[ship]", "batch_refs = 8", "[compute]", "free_bytes = 0"]
        lines += ["[archive]", "enabled = true", "[fetch]", "allow_private = true", "attempts = 1"]
        lines += [f"allow_ports = [80, {self.server.server_port}]", "[lakes.shop]"]
        lines += [] if box else ['url = "../lake"', "[[lakes.shop.sources]]", 'path = "refs"']
        lines += ["[sets.demo]", 'net = "hog"', 'blob = "hog"', f"input_size = [{size}, {size}]", 'root = "features"']
        (self.folder / host).mkdir(exist_ok=True)
        (self.folder / host / "hathi.toml").write_text("\n".join(lines))

    def hathi(self, host: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.cli.main", *words, "--config", f"{self.folder}/{host}/hathi.toml"]
        return subprocess.run(command, cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=120)

    def round(self) -> str:
        """Everything that is due: what the box logged so far."""
        done = [self.hathi(host, "run", "--once") for host in ("gateway", "box", "box", "gateway")]
        assert [one.returncode for one in done] == [0] * 4, "\n".join(one.stderr for one in done)
        return "".join(path.read_text() for path in sorted((self.folder / "box" / "logs").glob("*")))

    def rows(self, kind: str) -> list[dict[str, object]]:
        found = sorted((self.folder / "lake" / "features").glob(f"2*/*/{kind}/*.parquet"))
        return [row for path in found for row in pq.read_table(path).to_pylist()]

    def told(self) -> Iterator[tuple[Path, bytes]]:
        """Each file of bucket, lake, state and logs, and what it holds, packed or not; the source is not Hathi's."""
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            if path.relative_to(self.folder).parts[:1] == ("shop",) or "refs" in path.parts:
                continue
            content = path.read_bytes()
            if content.startswith(b"PAR1"):
                content += repr(pq.read_table(path).to_pylist()).encode()
            elif content.startswith(b"\x1f\x8b"):
                content += gzip.decompress(content)
            yield path, str(path).encode() + b"\n" + content


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    shop = tmp_path / "shop"
    shop.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(shop)))
    Thread(target=server.serve_forever, daemon=True).start()
    made = Site(tmp_path, server)
    for item in range(ITEMS):
        pixels = np.random.default_rng(item).integers(0, 256, (48, 64, 3), np.uint8)
        done, content = cv2.imencode(".jpg", pixels)
        assert done
        made.picture(item).write_bytes(content.tobytes())
    refs = tmp_path / "lake" / "refs" / "a.csv"
    refs.parent.mkdir(parents=True)
    lines = [f"{7 + item % 2 * (item != 1)},SKU-{item},{made.shop}/{item}.jpg" for item in range(ITEMS)]
    refs.write_text("partner_id,external_id,url\n" + "\n".join(lines) + "\n")
    for host in ("gateway", "box"):
        made.write(host, 32)
    yield made
    server.shutdown()
    server.server_close()


def typed() -> list[list[str]]:
    """The lines of the page's block, without `hathi`."""
    (block,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "archive.md").read_text(), re.DOTALL)
    return [shlex.split(line)[1:] for line in block.splitlines()]


def test_a_back_fill_needs_no_host_and_who_is_forgotten_is_nowhere(site: Site) -> None:
    said = site.round()
    assert f"{ITEMS} kept in the archive" in said
    before = {str(row["external_id"]): row for row in site.rows("features")}
    assert len(before) == ITEMS
    site.server.shutdown()
    site.server.server_close()
    for host in ("gateway", "box"):
        site.write(host, 64)
    assert site.hathi("gateway", "backfill", "demo").returncode == 0
    said = site.round()
    assert said.count(f"of {ITEMS} images (0 failures)") == 2
    assert f"0 bytes fetched, {ITEMS} images from the archive" in said
    again = [row for row in site.rows("features") if row["fingerprint"] != before["SKU-0"]["fingerprint"]]
    assert {str(row["external_id"]) for row in again} == set(before)
    for row in again:
        for name in ("url", "content_sha256", "fetched_at"):
            assert row[name] == before[str(row["external_id"])][name]

    needles = [
        site.picture(1).read_bytes(),
        f"{site.shop}/1.jpg'".encode(),
        f"'{GONE}'".encode(),
        GONE.encode() + b"\n",
    ]
    number = item_id_of(GONE)
    needles += [str(number).encode(), str(signed(number)).encode()]
    assert len({path for path, content in site.told() if any(one in content for one in needles)}) > 5
    first, second = typed()
    done = site.hathi("gateway", *first)
    assert done.returncode == 0, done.stderr
    assert "request 1: deleted 1 image, " in done.stdout
    assert "it is done: bucket and lake, and the data sets" in done.stdout
    assert [path for path, content in site.told() if any(one in content for one in needles)] == []
    assert {str(row["external_id"]) for row in site.rows("features")} == set(before) - {GONE}
    assert len(site.rows("features")) == 2 * (ITEMS - 1)
    assert site.hathi("gateway", *second).stdout == "no request to forget is open\n"
    done = site.hathi("gateway", "verify", "--deep")
    assert (done.returncode, "damage" in done.stdout) == (0, False), done.stdout


def test_who_cannot_be_asked_forgets_nothing_and_a_box_leaves_the_lake_to_a_gateway(site: Site) -> None:
    site.round()
    done = site.hathi("gateway", "forget", "7", GONE)
    assert done.returncode == 2
    assert "nobody can be asked" in done.stderr
    assert site.hathi("gateway", "forget", "seven", "--yes").returncode == 2
    assert len(site.rows("features")) == ITEMS
    done = site.hathi("box", "forget", "7", GONE, "--yes")
    assert done.returncode == 0, done.stderr
    assert "does not see the lake" in done.stdout
    assert len(site.rows("features")) == ITEMS
    (marks := site.folder / "gateway" / "state").mkdir(exist_ok=True)
    for mark in marks.glob("pruned.*"):
        mark.unlink()
    site.round()
    assert {str(row["external_id"]) for row in site.rows("features")} == {f"SKU-{n}" for n in range(ITEMS)} - {GONE}
    logs = "".join(path.read_text() for path in (site.folder / "gateway" / "logs").glob("*"))
    assert "Request 1 to forget: deleted 1 row; it is done" in logs
    assert GONE not in logs
