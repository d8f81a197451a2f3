"""The sample lake is the same at every call, and its shop fails where it says."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline import nets
from pipeline.codec import image_refs
from sample import pictures, random_features, render, server

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    render.render(folder, "http://127.0.0.1:8973")
    return folder


@pytest.fixture
def shop(work: Path) -> Iterator[str]:
    """The origin of a shop that serves the sample's pictures."""
    served = server.open_server(work / "sample" / "web", 0)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()
    served.server_close()


def files_of(folder: Path) -> dict[str, tuple[bytes, float]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime) for path in folder.iterdir()}


def test_refs_are_of_today_and_keep_bytes_and_times_when_made_again(tmp_path: Path) -> None:
    began = int(time.time())
    render.render(tmp_path, "http://127.0.0.1:8973")
    before = files_of(tmp_path / "lake/refs")
    assert sorted(before) == ["cushions.csv", "lamps.parquet", "mugs.pb"]
    assert all(began - 1 <= modified <= time.time() + 1 for _, modified in before.values())
    for path in (tmp_path / "lake/refs").iterdir():
        os.utime(path, (began - 600, began - 600))
    before = files_of(tmp_path / "lake/refs")
    render.render(tmp_path, "http://127.0.0.1:8973")
    assert files_of(tmp_path / "lake/refs") == before


def test_pictures_are_the_same_at_every_call_and_small() -> None:
    first, second = dict(pictures.render()), dict(pictures.render())
    assert first == second
    assert len(first) == 36
    assert sum(map(len, first.values())) < 600_000


def test_the_protobuf_refs_are_read_by_the_pipelines_own_reader(work: Path) -> None:
    refs = image_refs.decode((work / "lake/refs/mugs.pb").read_bytes())
    assert [ref.external_id for ref in refs] == [*(f"mug-{n:02}" for n in range(12)), "mug-gone"]
    assert {ref.partner_id for ref in refs} == {101}


def test_the_demonstration_net_gives_128_numbers_that_differ_between_pictures(work: Path) -> None:
    weights = work / "sample/random_features.caffemodel"
    net = nets.load(ROOT / "sample/random_features.prototxt", weights)
    pair = random_features.uniform(1, 2 * 3 * 64 * 64).reshape(2, 3, 64, 64).astype(np.float32) * 4 - 2
    features = net.forward({"data": pair}, ["features"])["features"]
    assert features.shape == (2, 128)
    assert np.isfinite(features).all()
    assert not np.allclose(features[0], features[1])


def test_numbers_from_a_seed_are_those_of_splitmix64() -> None:
    # The first outputs of the published generator for seed 1234567, as 53-bit fractions.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert random_features.uniform(1234567, 3).tolist() == [(number >> 11) / 2.0**53 for number in expected]


def answer(url: str) -> tuple[int, str, str]:
    """(status, content type, final URL) of a GET."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.headers["Content-Type"], response.url
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.url or ""


def test_the_shop_serves_pictures_and_fails_where_it_says(shop: str) -> None:
    assert answer(f"{shop}/mug-00.jpg")[:2] == (200, "image/jpeg")
    assert answer(f"{shop}/cushion-01.webp")[:2] == (200, "image/webp")
    assert answer(f"{shop}/moved/cushion-03.webp")[2] == f"{shop}/cushion-03.webp"
    assert answer(f"{shop}/sold-out.html")[1].startswith("text/html")
    assert answer(f"{shop}/busy.jpg")[0] == 503
    assert answer(f"{shop}/gone.jpg")[0] == 404
    assert answer(f"{shop}/../render.py")[0] == 404


def test_a_second_call_makes_nothing_and_another_port_is_refused(tmp_path: Path) -> None:
    def call(port: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "sample/render.py", "--work", str(tmp_path), "--port", str(port)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert "making the sample lake" in call(9001).stderr
    (tmp_path / "lake/refs/mugs.pb").unlink()
    second = call(9001)
    assert (second.returncode, second.stderr) == (0, "")
    assert not (tmp_path / "lake/refs/mugs.pb").exists(), "what a person took away stays away"
    other = call(9002)
    assert other.returncode == 2
    assert "made for port 9001, not 9002" in other.stderr
