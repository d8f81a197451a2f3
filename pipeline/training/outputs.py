"""What the outputs of a solver's nets are: losses, accuracies, others.  Pages, `best` and bars of figures go by it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from pipeline.codec import caffe_pb2
from pipeline.errors import PipelineError
from pipeline.training import solver_text

LOSS, ACCURACY, OTHER = "loss", "accuracy", "other"
Kinds = Mapping[str, str]
_VECTOR = re.compile(r".*/\d+")


def kinds_of(nets: Iterable[caffe_pb2.NetParameter]) -> dict[str, str]:
    """Of the outputs of these nets, by blob: what their layers say."""
    found: dict[str, str] = {}
    for net in nets:
        for layer in net.layer:
            if layer.type == "Accuracy":
                found.update(dict.fromkeys(layer.top[:1], ACCURACY))
            elif layer.type.endswith("Loss") or any(layer.loss_weight):
                found.update(dict.fromkeys(layer.top[:1], LOSS))
    return found


@lru_cache(64)
def kinds_within(text: str) -> Kinds:
    """Of a solver's text with its nets in it; none where it cannot be read, so that names decide."""
    try:
        read = solver_text.parse(text, "the solver of the spec")
    except PipelineError:
        return {}
    own = [net for name in ("train_net_param", "net_param") if read.HasField(name) for net in [getattr(read, name)]]
    return kinds_of([*own, *read.test_net_param])


def kind_of(name: str, kinds: Kinds) -> str:
    """Of a value of the metrics, as `test/accuracy`: what its blob is, else what its name tells."""
    blob = name.partition("/")[2]
    if blob in kinds:
        return kinds[blob]
    return LOSS if "loss" in blob or blob == "smoothed" else ACCURACY if "acc" in blob or "top" in blob else OTHER


def is_element(name: str) -> bool:
    """Whether a value of the metrics is one element of a vector, as `test/prob/3`."""
    return _VECTOR.fullmatch(name) is not None
