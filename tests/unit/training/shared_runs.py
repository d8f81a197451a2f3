"""A small training whose layers need everything that a shard must not get wrong: crop, mirror, Dropout, BatchNorm."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from pipeline.codec import caffe_pb2
from tests.unit.training.databases import datum, lmdb_of

EXAMPLES, CLASSES = 100, 5
TRANSFORM = "transform_param { mirror: true crop_size: 12 mean_value: 128 scale: 0.015625 }"
PLAIN = "transform_param { mean_value: 128 scale: 0.015625 }"
NORMAL = """
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" }
layer { name: "scale" type: "Scale" bottom: "bn" top: "bn" scale_param { bias_term: true } }
"""
DROPOUT = 'layer { name: "drop" type: "Dropout" bottom: "pool" top: "pool" dropout_param { dropout_ratio: 0.4 } }'


def net(coupled: bool = True, batch: int = 16, source: str = "db") -> str:
    """coupled: with layers that draw, or couple the examples of a shard."""
    transform, top = (TRANSFORM, "bn") if coupled else (PLAIN, "conv")
    return f"""name: "small"
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }} {transform}
  data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }} }}
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
  {transform.replace("mirror: true", "")} data_param {{ source: "{source}" batch_size: 10 backend: LMDB }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 6 kernel_size: 3 weight_filler {{ type: "msra" }} }} }}
{NORMAL if coupled else ""}
layer {{ name: "relu" type: "ReLU" bottom: "{top}" top: "{top}" }}
layer {{ name: "pool" type: "Pooling" bottom: "{top}" top: "pool"
  pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} }}
{DROPOUT if coupled else ""}
layer {{ name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
  inner_product_param {{ num_output: {CLASSES} weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
"""


def solver(iterations: int = 50, more: str = "") -> str:
    return f"""net: "net.prototxt" base_lr: 0.05 momentum: 0.9 weight_decay: 0.0005 lr_policy: "step" gamma: 0.5
stepsize: 20 max_iter: {iterations} display: 10 test_iter: 2 test_interval: 20 snapshot: 20 snapshot_prefix: "s"
{more}
"""


def write(folder: Path, net_text: str | None = None, solver_text: str | None = None) -> Path:
    """A folder with the training; 100 examples, so that batches of 16 go over its end within a shard."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(3)
    if not (folder / "db").exists():
        lmdb_of(folder / "db", [example(draws, number) for number in range(EXAMPLES)])
    (folder / "net.prototxt").write_text(net_text or net())
    (folder / "solver.prototxt").write_text(solver_text or solver())
    return folder


def example(draws: np.random.Generator, number: int) -> caffe_pb2.Datum:
    label = number % CLASSES
    image = draws.integers(0, 256, (3, 14, 14))
    image[label % 3] = image[label % 3] // 2 + 20 * label
    return datum(image.astype(np.uint8), label)


def bits(folder: Path, iteration: int = 50) -> dict[str, str]:
    """SHA-256 of the weights and of the history at an iteration."""
    names = [f"s_iter_{iteration}.{kind}" for kind in ("caffemodel", "solverstate")]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
