"""A worker process: it opens its parent's examples and vectors, and goes over the parts that it is given."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from pipeline.process.channel import Channel
from pipeline.process.life import live
from pipeline.training.descent.examples import Dense, Examples, Sparse
from pipeline.training.descent.memory import opened
from pipeline.training.descent.values import Model, Rows, Step
from pipeline.training.descent.workers import labels_of


def work(channel: Channel) -> None:
    """Until the parent is gone."""
    first, _ = channel.receive()
    examples = examples_of(first)
    channel.send(ready=True)
    model: Model | None = None
    while True:
        message, content = channel.receive()
        if "model" in message:
            model = Model(*map(opened, message["model"]))
            continue
        assert model is not None
        part = np.frombuffer(content, np.uint32)
        told = examples.walk(model, part, Step(*message["step"]), message["counted"])
        channel.send(told=list(told))


def examples_of(told: dict[str, Any]) -> Examples:
    """The examples that `workers.told_of` told of."""
    labels = labels_of(told["labels"])
    if "rows" in told:
        return Sparse(Rows(*map(opened, told["rows"])), labels, told["dim"], told["longest"])
    file = os.open(f"/proc/{os.getppid()}/fd/{told['file']}", os.O_RDONLY | os.O_CLOEXEC)
    label_start, label = map(opened, told["label"])
    return Dense(file, label_start, label, labels, told["dim"], told["count"], told["first"])


if __name__ == "__main__":
    live(work)
