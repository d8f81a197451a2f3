"""Images that the pipeline fetches and keeps: `hathi run --net image` over a web server, and who reads the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import cv2
import duckdb
import numpy as np
import pytest

import hathi
from pipeline.images import decode
from tests.integration.conftest import OwnList, picture

PICTURES = 60


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[str]:
    """A web server with pictures of several sizes: one of them torn, one no picture."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for at in range(PICTURES):
        (folder / f"{at}.png").write_bytes(picture(at, 30 + 7 * at))
    (folder / "torn.png").write_bytes(picture(1)[:300])
    (folder / "page.png").write_text("<html>sold out</html>")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def listed(own: OwnList, shop: str) -> None:
    names = [*map(str, range(PICTURES)), "torn", "page", "gone"]
    lines = [
        "partner_id,external_id,url",
        *(f"{1 + at % 3},sku-{name},{shop}/{name}.png" for at, name in enumerate(names)),
    ]
    (own.folder / "refs.csv").write_text("\n".join(lines) + "\n")


def kept(own: OwnList, out: str, *more: str) -> dict[str, object]:
    places = ["--refs", str(own.folder / "refs.csv"), "--features", str(own.folder / out)]
    done = own.hathi("run", *places, "--net", "image", "--allow-private", "--json", *more)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_images_are_fetched_kept_delivered_and_read(own: OwnList, shop: str) -> None:
    listed(own, shop)
    done = kept(own, "out", "--set", "short_side=300", "--set", f"compute.open_bytes={2**20}")
    assert (done["features"], done["failures"]) == (PICTURES, {"http_4xx": 1, "not_image": 1, "truncated": 1})
    table = hathi.read_features(own.folder / "out")
    assert table.num_rows == PICTURES
    by_item = dict(zip(table["external_id"].to_pylist(), table["image"].to_pylist(), strict=True))
    for at in (0, 9, PICTURES - 1):
        image, whole = decode(by_item[f"sku-{at}"]), decode(picture(at, 30 + 7 * at))
        assert isinstance(image, np.ndarray)
        assert isinstance(whole, np.ndarray)
        side = min(300, 30 + 7 * at)
        assert image.shape == (side, side, 3)
        assert cv2.PSNR(cv2.blur(image, (5, 5)), cv2.blur(cv2.resize(whole, (side, side)), (5, 5))) > 20
    files = f"{own.folder}/out/*/*/features/*.parquet"
    count, least = duckdb.sql(f"SELECT count(*), min(octet_length(image)) FROM '{files}'").fetchall()[0]
    assert count >= PICTURES
    assert least > 100
    assert own.hathi("verify", "--features", str(own.folder / "out"), "--deep").returncode == 0
    kept(own, "again", "--set", "short_side=300")
    again = hathi.read_features(own.folder / "again")
    assert again["image"].to_pylist() == table["image"].to_pylist(), "the same images gave other bytes"
    assert set(again["fingerprint"].to_pylist()) == set(table["fingerprint"].to_pylist())


def test_as_fetched_the_bytes_are_those_of_the_server(own: OwnList, shop: str) -> None:
    listed(own, shop)
    kept(own, "out", "--set", "short_side=0")
    table = hathi.read_features(own.folder / "out", columns=["external_id", "image", "content_sha256"])
    for row in table.to_pylist():
        at = int(row["external_id"].removeprefix("sku-"))
        assert row["image"] == picture(at, 30 + 7 * at)
        assert hashlib.sha256(row["image"]).digest() == row["content_sha256"]


def test_what_needs_values_says_that_there_are_none(own: OwnList, shop: str) -> None:
    listed(own, shop)
    kept(own, "out")
    out = str(own.folder / "out")
    for words in (["stats", out], ["similar", "1", "sku-0", "--features", out]):
        done = own.hathi(*words)
        assert done.returncode == 1
        assert "holds images and no features" in done.stderr
        assert "hathi dataset make" in done.stderr
    with pytest.raises(hathi.Error, match="holds images and no features"):
        hathi.read_matrix(out)
    with pytest.raises(hathi.Error, match="keeps images and computes no features"):
        hathi.features([b""], net="image")
    places = ["--refs", str(own.folder / "refs.csv"), "--features", out, "--out", str(own.folder / "all.npy")]
    done = own.hathi("run", *places, "--net", "image", "--allow-private")
    assert done.returncode == 1
    assert "holds images and no features" in done.stderr
    assert own.hathi("report", "--features", out, "--out", str(own.folder / "report.html")).returncode == 0
    page = (own.folder / "report.html").read_text()
    assert "short side at most 256" in page
    assert ">images<" in page
