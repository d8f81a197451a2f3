"""What the last tests of a training say of its examples, as one small file of JSON: its child writes it at the end."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.nets.caffe.writing import replacing
from pipeline.service.work.preparing import EVALUATION, OUT
from pipeline.training.predictions.confusion import judgement
from pipeline.training.predictions.file import name_of, read
from pipeline.training.predictions.judgement import Judgement, Mistake

TESTS = 8
"""Of more test nets the first are told of."""
PICTURE_BYTES = 2**20
"""Of all pictures together; those of the smaller mistakes are left out."""


def evaluate(folder: Path) -> None:
    """Writes `out/evaluation.json`; nothing where no test of the training ended.  Raises FormatError, OSError."""
    found = list(_judgements(folder / OUT))
    if not found:
        return
    left = PICTURE_BYTES
    tests = []
    for one in found:
        pictures, left = _pictures(one, left)
        tests.append(_told(one, pictures))
    with replacing(folder / OUT / EVALUATION) as file:
        file.write(json.dumps({"format": 1, "tests": tests}, allow_nan=False).encode())


def _judgements(out: Path) -> Iterator[Judgement]:
    for number in range(TESTS):
        path = out / name_of(number)
        if path.exists():
            yield judgement(f"test{number or ''}", read(path.read_bytes(), path.name))


def _pictures(one: Judgement, left: int) -> tuple[list[str], int]:
    """Base64 of each mistake's picture, "" where it has none or there is no room left; and the bytes that are left."""
    found = []
    for mistake in one.mistakes:
        kept = mistake.png if len(mistake.png) <= left else b""
        left -= len(kept)
        found.append(base64.b64encode(kept).decode())
    return found, left


def _told(one: Judgement, pictures: list[str]) -> dict[str, Any]:
    same = ("name", "iteration", "examples", "right", "classes", "left_out", "probabilities", "shown", "matrix", "why")
    return {
        **{name: getattr(one, name) for name in same},
        "pairs": [{"label": pair.label, "predicted": pair.predicted, "examples": pair.number} for pair in one.pairs],
        "scores": [
            {"label": of.label, "examples": of.examples, "recall": of.recall, "precision": of.precision}
            for of in one.scores
        ],
        "mistakes": [_mistake(of, picture) for of, picture in zip(one.mistakes, pictures, strict=True)],
    }


def _mistake(one: Mistake, picture: str) -> dict[str, Any]:
    likeliest = [{"label": label, "score": _finite(of)} for label, of in one.likeliest]
    of_label = _finite(one.of_label) if one.of_label is not None else None
    return {"name": one.key, "label": one.label, "of_label": of_label, "likeliest": likeliest, "picture": picture}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
