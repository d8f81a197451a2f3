"""Which layers of a net are there in a given phase, level and set of stages (Caffe's Net::FilterNet)."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.codec import caffe_pb2
from pipeline.errors import NetError


def state_of(phase: str, level: int, stages: Sequence[str]) -> caffe_pb2.NetState:
    """The state that rules are compared with; phase: "TEST" or "TRAIN"."""
    if phase not in ("TEST", "TRAIN"):
        raise NetError(f"unknown phase {phase!r}", "", "TEST or TRAIN")
    return caffe_pb2.NetState(phase=phase, level=level, stage=stages)


def keep(net: caffe_pb2.NetParameter, state: caffe_pb2.NetState) -> list[caffe_pb2.LayerParameter]:
    """The layers that the state includes, in order.  Raises NetError for a layer with both include and exclude."""
    return [layer for layer in net.layer if _included(layer, state)]


def _included(layer: caffe_pb2.LayerParameter, state: caffe_pb2.NetState) -> bool:
    if layer.include and layer.exclude:
        raise NetError(f"layer '{layer.name}' has include and exclude rules", "", "Caffe allows one kind of them")
    if layer.include:
        return any(_meets(rule, state) for rule in layer.include)
    return not any(_meets(rule, state) for rule in layer.exclude)


def _meets(rule: caffe_pb2.NetStateRule, state: caffe_pb2.NetState) -> bool:
    if rule.HasField("phase") and rule.phase != state.phase:
        return False
    if rule.HasField("min_level") and state.level < rule.min_level:
        return False
    if rule.HasField("max_level") and state.level > rule.max_level:
        return False
    return set(rule.stage) <= set(state.stage) and not set(rule.not_stage) & set(state.stage)
