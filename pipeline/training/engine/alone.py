"""A live net that only computes: no other net learns beside it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Slot
from pipeline.training.engine.needs import needs
from pipeline.training.engine.net import Array, TorchNetwork
from pipeline.training.engine.program import Arithmetic


def alone(graph: CaffeGraph, how: Arithmetic, values: Mapping[Slot, Array]) -> TorchNetwork:
    """values: of its learned blobs by owner, float32."""
    tensors = {slot: torch.from_numpy(np.array(one)).to(how.device, how.dtype) for slot, one in values.items()}
    return TorchNetwork(graph, how, needs(graph, False), tensors, None, False)
