"""Each published family of Caffe nets loads, runs, and computes the same on engines that share no code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import nets
from pipeline.nets.caffe_net import CaffeNet
from tests.golden import bignets
from tests.unit.nets.families import FAMILIES, as_v1
from tests.unit.nets.test_golden import distance


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_runs_and_every_engine_agrees(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(FAMILIES[name](8))
    net = nets.load(path, engine="openvino")
    assert isinstance(net, CaffeNet)
    inner = [blob for blob in net.blobs if blob not in ("data", "prob")][-3:]
    x = np.random.default_rng(0).uniform(-100, 100, net.inputs["data"]).astype(np.float32)
    want = net.forward({"data": x}, [*inner, "prob"])
    assert {blob: values.shape for blob, values in want.items()} == {blob: net.graph.shapes[blob] for blob in want}
    np.testing.assert_allclose(want["prob"].sum(1), 1, rtol=1e-5)
    got = nets.load(path, engine="onnxruntime").forward({"data": x}, [*inner, "prob"])
    assert {blob: far for blob in want if (far := distance(got[blob], want[blob])) > 1e-4} == {}


def test_googlenet_in_the_words_of_v1_is_the_same_net(tmp_path: Path) -> None:
    new = nets.load(bignets.prototxt("googlenet"), bignets.weights("googlenet"))
    path = tmp_path / "v1.prototxt"
    path.write_text("\n".join(as_v1(bignets.prototxt("googlenet").read_text())))
    assert "layers {" in path.read_text()
    old = nets.load(path, bignets.weights("googlenet"), blobs=["pool5/7x7_s1"])
    assert old.fingerprint("pool5/7x7_s1", {}) == new.fingerprint("pool5/7x7_s1", {})
    got = old.forward({"data": bignets.images("googlenet")})["pool5/7x7_s1"]
    assert distance(got, bignets.golden("googlenet")["pool5/7x7_s1"]) < 1e-5
