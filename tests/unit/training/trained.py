"""Nets that train, written as texts, for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from google.protobuf import text_format
from numpy.typing import NDArray

from pipeline.codec import caffe_pb2
from pipeline.nets.graph import caffe_graph, rules
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Shape
from pipeline.training.engine.program import Arithmetic

FLOAT64 = Arithmetic(torch.device("cpu"), torch.float64)
EXACT = Arithmetic(torch.device("cpu"), exact=True)
Array = NDArray[np.float32]


def graph_of(
    text: str,
    phase: str = "TRAIN",
    weights: Path | None = None,
    fed: dict[str, Shape] | None = None,
    warn: Callable[[str], None] = lambda says: None,
) -> CaffeGraph:
    net = caffe_pb2.NetParameter()
    text_format.Parse(text, net)
    return caffe_graph.build(
        caffe_graph.NetText(net, "the net"), weights, rules.state_of(phase, 0, ()), None, warn, fed
    )


def inputs(**shapes: Shape) -> str:
    return "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ dim: {list(shape)} }} }} }}\n'
        for name, shape in shapes.items()
    )


def layer(kind: str, bottoms: str, tops: str, body: str = "", name: str = "") -> str:
    ends = "".join(f' bottom: "{one}"' for one in bottoms.split()) + "".join(f' top: "{one}"' for one in tops.split())
    return f'layer {{ name: "{name or tops or kind}" type: "{kind}"{ends} {body} }}\n'
