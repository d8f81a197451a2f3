"""From images that a gateway and a box brought to a net that the bucket trained, promoted, served and judged."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

import hathi
from pipeline.cli.main import main
from pipeline.images import decode
from tests.integration.conftest import row
from tests.integration.following_hosts import Hosts

if any(importlib.util.find_spec(package) is None for package in ("torch", "lmdb")):
    if os.environ.get("HATHI_DEMAND_SERVERS") == "1":
        pytest.fail("torch or lmdb is not installed: run scripts/training.sh", pytrace=False)
    pytest.skip("LEFT OUT: torch or lmdb is not installed: scripts/training.sh", allow_module_level=True)

COLOURS = ("blue", "green", "red")
ITEMS = 60
LAYERS = """layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 8 kernel_size: 5 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "score" type: "InnerProduct" bottom: "conv" top: "score"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
"""
TRAINED = """name: "tiny"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { mean_value: 127 scale: 0.01 } data_param { source: "train_lmdb" batch_size: 12 backend: LMDB } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { mean_value: 127 scale: 0.01 } data_param { source: "test_lmdb" batch_size: 12 backend: LMDB } }
LAYERS
layer { name: "accuracy" type: "Accuracy" bottom: "score" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""
SERVES = """name: "tiny"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 24 dim: 24 } } }
LAYERS
"""
SOLVER = """net: "net.prototxt" test_iter: 1 test_interval: 60 base_lr: 0.02 lr_policy: "fixed" momentum: 0.9
max_iter: 60 snapshot_prefix: "tiny" random_seed: 3 solver_mode: CPU
"""
SETS = """net = "image"
short_side = 0
root = "pictures"
[sets.scores]
model = "shoes"
blob = "score"
normalise = "none"
root = "scores"
preprocess.mean = [127.0, 127.0, 127.0]
preprocess.input_scale = 0.01
preprocess.reduced_decode = false"""


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    """Two hosts with a set of images and one that follows a model; 60 pictures of three colours."""
    made = Hosts(tmp_path)
    made.write("gateway", sets=SETS)
    made.write("box", sets=SETS, workers=2)  # processes of their own, which get the settings from the first
    refs = tmp_path / "lake" / "refs" / "a.jsonl"
    refs.parent.mkdir(parents=True)
    refs.write_text("\n".join(row(f"sku-{at}", picture(at)) for at in range(ITEMS)))
    labels = [f"7,sku-{at},{COLOURS[at % 3]}" for at in range(ITEMS)]
    (tmp_path / "labels.csv").write_text("partner_id,external_id,label\n" + "\n".join(labels) + "\n")
    return made


def picture(at: int) -> bytes:
    """24 x 24, PNG: noise, one colour brighter."""
    pixels = np.random.default_rng(at).integers(0, 140, (24, 24, 3), np.uint8)
    pixels[..., at % 3] += 100
    return cv2.imencode(".png", pixels)[1].tobytes()


def trained(hosts: Hosts) -> str:
    """The name of a training of the bucket, which learned from the pictures that were delivered."""
    made, work = str(hosts.folder / "colours"), hosts.folder / "work"
    work.mkdir()
    hosts.well("gateway", "dataset", "make", made, "--labels", str(hosts.folder / "labels.csv"),
               "--images", "demo", "--split", "80/20")  # fmt: skip
    for side in ("train", "test"):
        database = str(work / f"{side}_lmdb")
        assert main(["dataset", "export", made, database, "--side", side, "--resize", "24x24"]) == 0
    net = TRAINED.replace("LAYERS", LAYERS).replace('source: "', f'source: "{work}/')
    (work / "net.prototxt").write_text(net)
    (work / "deploy.prototxt").write_text(SERVES.replace("LAYERS", LAYERS))
    (work / "solver.prototxt").write_text(SOLVER.replace("net.prototxt", f"{work}/net.prototxt"))
    hosts.well("box", "train", str(work / "solver.prototxt"), "--job", "--seed", "3")
    (job,) = [json.loads(line)["job"] for line in hosts.well("box", "train", "list", "--json").splitlines()]
    return str(job)


def test_a_training_of_the_bucket_is_promoted_served_and_judged_by_one_number(hosts: Hosts) -> None:
    hosts.well("gateway", "run", "ship")
    hosts.well("box", "run", "compute", "aggregate")
    hosts.well("gateway", "run", "deliver")
    files = sorted((hosts.folder / "lake" / "pictures").glob("*/*/features/*.parquet"))
    kept = {one["external_id"]: one["image"] for file in files for one in pq.read_table(file).to_pylist()}
    assert kept == {f"sku-{at}": picture(at) for at in range(ITEMS)}, "two hosts kept the bytes"

    job = trained(hosts)
    deploy = hosts.folder / "work" / "deploy.prototxt"
    said = hosts.well("box", "promote", job, "scores", "--net", str(deploy), "--least", "accuracy=0.8")
    (accuracy,) = re.findall(r"^  accuracy ([\d.]+)$", said, re.M)
    hosts.go_round()
    files = sorted((hosts.folder / "lake" / "scores").glob("*/*/features/*.parquet"))
    rows = [one for file in files for one in pq.read_table(file).to_pylist()]
    scores = {one["external_id"]: np.array(one["features"]) for one in rows}
    assert len(scores) == ITEMS

    (model,) = hosts.models("shoes")
    assert (model["job"], model["in_use"], model["sets"]) == (job, True, ["scores"])
    weights = next(iter((hosts.folder / "box/state").rglob("weights.caffemodel")))
    shutil.copy(weights, hosts.folder / "served.caffemodel")
    net = hathi.load_net(deploy, hosts.folder / "served.caffemodel")
    for at in (0, 1, 2, ITEMS - 1):
        pixels = decode(picture(at))
        assert isinstance(pixels, np.ndarray)
        fed = (pixels.transpose(2, 0, 1).astype(np.float32) - 127) * np.float32(0.01)
        theirs = net.forward({"data": fed[None]}, ["score"])["score"].ravel()
        assert np.allclose(scores[f"sku-{at}"], theirs, rtol=1e-4, atol=1e-4)

    sides = {
        (one["external_id"]): (one["side"], one["label"])
        for file in (hosts.folder / "colours").glob("*.parquet")
        for one in pq.read_table(file, columns=["external_id", "side", "label"]).to_pylist()
    }
    test = [name for name, (side, _) in sides.items() if side == "test"]
    assert len(test) == ITEMS // 5
    right = np.mean([int(scores[name].argmax()) == sides[name][1] for name in test])
    assert right == pytest.approx(float(accuracy), abs=1e-6), "training's own test, and what is served"
    done = hosts.well("box", "evaluate", "--net", str(deploy), "--weights", str(hosts.folder / "served.caffemodel"),
                      "--dataset", str(hosts.folder / "colours"), "--set", "preprocess.mean=127,127,127",
                      "--set", "preprocess.input_scale=0.01", "--json")  # fmt: skip
    assert json.loads(done)["accuracy"] == pytest.approx(float(accuracy), abs=1e-6)
    hosts.well("gateway", "verify", "--deep")
