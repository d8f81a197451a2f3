"""From refs and labels to a trained net: images that the pipeline fetched, a dataset of them, `hathi train`."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pytest

from tests.integration.conftest import OwnList

if any(importlib.util.find_spec(package) is None for package in ("torch", "lmdb")):
    if os.environ.get("HATHI_DEMAND_SERVERS") == "1":
        pytest.fail("torch or lmdb is not installed: run scripts/training.sh", pytrace=False)
    pytest.skip("LEFT OUT: torch or lmdb is not installed: scripts/training.sh", allow_module_level=True)

ITEMS = 120
NET = """name: "tiny"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { crop_size: 24 mirror: true mean_value: 127 scale: 0.01 }
  data_param { source: "train_lmdb" batch_size: 16 backend: LMDB } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 24 mean_value: 127 scale: 0.01 }
  data_param { source: "test_lmdb" batch_size: 12 backend: LMDB } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 8 kernel_size: 5 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """net: "net.prototxt" test_iter: 2 test_interval: 100 base_lr: 0.02 lr_policy: "fixed" momentum: 0.9
max_iter: 100 snapshot_prefix: "tiny" random_seed: 3 solver_mode: CPU
"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[str]:
    """Photos of one colour a class, with noise; one item's is gone, one's is torn."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for at in range(ITEMS):
        drawn = np.random.default_rng(at)
        pixels = drawn.integers(0, 90, (40 + at % 9, 60, 3), np.uint8)
        pixels[..., at % 3] += 120
        done, content = cv2.imencode(".jpg", pixels)
        assert done
        (folder / f"{at}.jpg").write_bytes(content.tobytes()[: 300 if at == 7 else None])
    (folder / "8.jpg").unlink()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_net_is_trained_from_what_the_pipeline_brought(own: OwnList, shop: str) -> None:
    refs = [f"{1 + at % 2},sku-{at},{shop}/{at}.jpg" for at in range(ITEMS)]
    (own.folder / "refs.csv").write_text("partner_id,external_id,url\n" + "\n".join(refs) + "\n")
    labels = [f"{1 + at % 2},sku-{at},{('blue', 'green', 'red')[at % 3]}" for at in range(ITEMS)]
    (own.folder / "labels.csv").write_text("partner_id,external_id,label\n" + "\n".join(labels) + "\n")
    places = ["--refs", str(own.folder / "refs.csv"), "--features", str(own.folder / "kept")]
    done = own.hathi("run", *places, "--net", "image", "--set", "short_side=32", "--allow-private")
    assert done.returncode == 0, done.stderr
    made = str(own.folder / "colours")
    done = own.hathi("dataset", "make", made, "--labels", str(own.folder / "labels.csv"), "--images",
                     str(own.folder / "kept"), "--split", "80/20", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    law = json.loads(done.stdout)
    assert law["without_image"] == {"http_4xx": 1, "truncated": 1}
    assert (law["rows"], law["examples"]) == (ITEMS, ITEMS - 2)
    assert law["sides"]["train"]["examples"] == 94
    work = own.folder / "work"
    work.mkdir()
    for side in ("train", "test"):
        done = own.hathi("dataset", "export", made, str(work / f"{side}_lmdb"), "--side", side)
        assert done.returncode == 0, done.stderr
    (work / "net.prototxt").write_text(NET)
    (work / "solver.prototxt").write_text(SOLVER)
    done = own.hathi_in(work, "train", "solver.prototxt")
    assert done.returncode == 0, done.stderr
    assert (work / "tiny_iter_100.caffemodel").is_file()
    (accuracy,) = re.findall(
        r"Iteration 100, Testing net \(#0\).*?accuracy = ([\d.]+)", done.stderr + done.stdout, re.S
    )
    assert float(accuracy) > 0.9, "what is trained with is not what the labels say"
