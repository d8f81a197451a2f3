"""The live net's forward pass is Caffe's for every tiny golden net, in the two orders of sums."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.nets.graph import caffe_graph, rules
from pipeline.training.engine.building import CPU, build
from pipeline.training.engine.program import Arithmetic
from tests.unit.nets.test_golden import CASES, TOLERANCE, case, distance
from tests.unit.training.trained import EXACT


@pytest.mark.parametrize("how", [CPU, EXACT], ids=["fast", "exact"])
@pytest.mark.parametrize("name", CASES)
def test_the_outputs_of_a_tiny_net_are_caffes(name: str, how: Arithmetic) -> None:
    prototxt, weights, feeds, blobs = case(name)
    graph = caffe_graph.read(prototxt, weights, rules.state_of("TEST", 0, ()), None, lambda says: None)
    net = build(graph, how)
    found = net.forward({blob: np.ascontiguousarray(feeds[blob]) for blob in net.inputs}).outputs
    known = {blob: values for blob, values in found.items() if blob in blobs}
    assert known
    assert {blob: far for blob, values in known.items() if (far := distance(values, blobs[blob])) > TOLERANCE} == {}
