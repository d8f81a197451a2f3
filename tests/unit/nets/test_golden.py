"""What real Caffe computed, to 1e-5 of the largest value of each blob."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import nets
from tests.golden import bignets

TINY = Path(__file__).parents[2] / "golden" / "tiny"
CASES = sorted(path.stem for path in TINY.glob("*.prototxt"))
ENGINES = ("openvino", "onnxruntime")  # torch: test_torch.py
TOLERANCE = 1e-5

Blobs = dict[str, NDArray[np.float32]]


def case(name: str) -> tuple[Path, Path | None, Blobs, Blobs]:
    weights = TINY / f"{name}.caffemodel"
    with np.load(TINY / f"{name}.npz") as file:
        arrays = {key.replace("|", "/"): file[key] for key in file.files}
    feeds = {key[3:]: value for key, value in arrays.items() if key.startswith("in:")}
    blobs = {key[4:]: value for key, value in arrays.items() if key.startswith("out:")}
    return TINY / f"{name}.prototxt", weights if weights.exists() else None, feeds, blobs


def distance(got: NDArray[np.float32], want: NDArray[np.float32]) -> float:
    """The largest difference as a part of the largest value; what is not finite or beyond 1e30 must be the same."""
    assert got.shape == want.shape
    odd = ~np.isfinite(want) | (np.abs(want) > 1e30)
    np.testing.assert_array_equal(got[odd], want[odd])
    if odd.all():
        return 0.0
    return float(np.abs(got[~odd] - want[~odd]).max() / max(np.abs(want[~odd]).max(), 1e-30))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_every_blob_of_a_tiny_net_is_caffes(name: str, engine: str) -> None:
    prototxt, weights, feeds, blobs = case(name)
    net = nets.load(prototxt, weights, engine=engine)
    got = net.forward(feeds, list(blobs))
    far = {blob: distance(got[blob], blobs[blob]) for blob in blobs}
    assert {blob: d for blob, d in far.items() if d > TOLERANCE} == {}


@pytest.mark.parametrize("name", ["caffenet", "googlenet", "resnet50"])
def test_every_golden_blob_of_a_full_size_net_is_caffes(name: str) -> None:
    blobs = bignets.golden(name)
    net = nets.load(bignets.prototxt(name), bignets.weights(name), blobs=list(blobs))
    got = net.forward({"data": bignets.images(name)})
    far = {blob: distance(got[blob], blobs[blob]) for blob in blobs}
    assert {blob: d for blob, d in far.items() if d > TOLERANCE} == {}
