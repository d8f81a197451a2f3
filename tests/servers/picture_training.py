"""A training on pictures that is over in seconds: small squares of noise with a spot whose place is the class.

Some are hard on purpose: a net of this size does not get all of them right, so that equal predictions say something.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2

lmdb = pytest.importorskip("lmdb", reason="LEFT OUT: what reads databases: scripts/training.sh installs it")
CLASSES, SIZE, CROP = 6, 20, 16
LABELS = ["north", "east", "south", "west", "middle", "nowhere"]
_SPOTS = [(4, 10), (10, 16), (16, 10), (10, 4), (10, 10), None]
TRANSFORM = f"crop_size: {CROP} mean_value: 90 mean_value: 100 mean_value: 110 scale: 0.02"
BODY = f"""
layer {{ name: "c" type: "Convolution" bottom: "data" top: "c"
        convolution_param {{ num_output: 8 kernel_size: 3 stride: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "r" type: "ReLU" bottom: "c" top: "c" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "c" top: "ip"
        inner_product_param {{ num_output: {CLASSES} weight_filler {{ type: "xavier" }} }} }}
"""
NET = f"""
name: "spots"
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
        transform_param {{ {TRANSFORM} mirror: false }}
        data_param {{ source: "train" backend: LMDB batch_size: 20 }} }}
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
        transform_param {{ {TRANSFORM} }} data_param {{ source: "test" backend: LMDB batch_size: 20 }} }}
{BODY}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
"""
SOLVER = """
base_lr: 0.02 lr_policy: "fixed" momentum: 0.9 max_iter: 120 display: 60 snapshot: 60 test_iter: 3 test_interval: 60
random_seed: 3
"""
Picture = NDArray[np.uint8]


def pictures(count: int, seed: int) -> list[tuple[Picture, int]]:
    """(height, width, 3) BGR and the class of each."""
    draws, found = np.random.default_rng(seed), []
    for number in range(count):
        label = number % CLASSES
        image = draws.integers(0, 200, (SIZE, SIZE, 3), dtype=np.uint8)
        spot = _SPOTS[label]
        if spot is not None:
            row, column = spot
            image[row - 2 : row + 2, column - 2 : column + 2] //= 2
            image[row - 2 : row + 2, column - 2 : column + 2] += np.uint8(100)
        found.append((image, label))
    return found


def database(of: list[tuple[Picture, int]]) -> bytes:
    """The data.mdb of an LMDB with these pictures, as they are."""
    with tempfile.TemporaryDirectory() as folder:
        with lmdb.open(folder, map_size=2**24) as environment, environment.begin(write=True) as transaction:
            for number, (image, label) in enumerate(of):
                planes = np.ascontiguousarray(image.transpose(2, 0, 1))
                datum = caffe_pb2.Datum(channels=3, height=SIZE, width=SIZE, data=planes.tobytes(), label=label)
                transaction.put(b"%08d" % number, datum.SerializeToString())
        return (Path(folder) / "data.mdb").read_bytes()


def png(image: Picture) -> bytes:
    """The same pixels, as a person sends them."""
    done, content = cv2.imencode(".png", image)
    assert done
    return content.tobytes()


def archive(count: int) -> bytes:
    """A tar of pictures in folders that are their labels."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for number, (picture, label) in enumerate(pictures(count, 3)):
            content = png(picture)
            info = tarfile.TarInfo(f"{label}/{number}.png")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return held.getvalue()
