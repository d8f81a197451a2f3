"""The web app's sample: 180 small drawings of six shapes, as `static/sample.zip` holds them.

`python -m tests.servers.shapes` writes it anew.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SAMPLE = Path(__file__).parents[2] / "pipeline/service/static/sample.zip"
LABELS = ("circle", "cross", "line", "square", "triangle", "wave")
EACH, SIDE, LARGER = 30, 28, 8
Picture = NDArray[np.uint8]


def drawing(label: str, seed: int) -> Picture:
    """(28, 28) uint8: white strokes on black, or black on white; place, size, turn and stroke by the seed."""
    draws = np.random.default_rng([LABELS.index(label), seed])
    size = draws.uniform(0.27, 0.4) * SIDE * LARGER
    turn = draws.uniform(-0.35, 0.35)
    centre = SIDE * LARGER / 2 + draws.uniform(-0.08, 0.08, 2) * SIDE * LARGER
    along = np.linspace(0, 2 * np.pi, 40)
    lines = {
        "circle": [np.stack([np.cos(along), np.sin(along) * draws.uniform(0.8, 1.2)], 1)],
        "cross": [np.array([[-1, -1], [1, 1]]), np.array([[-1, 1], [1, -1]])],
        "line": [np.array([[-1.1, 0], [1.1, 0]])],
        "square": [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) * 0.9],
        "triangle": [np.array([[0, -1.1], [1, 0.8], [-1, 0.8], [0, -1.1]])],
        "wave": [np.stack([along / np.pi - 1, np.sin(2 * along) * 0.45], 1) * 1.15],
    }[label]
    if label == "line":
        turn = draws.uniform(0, np.pi)
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    image = np.zeros((SIDE * LARGER,) * 2, np.uint8)
    thick = int(draws.uniform(1.6, 3.2) * LARGER)
    for line in lines:
        points = (line @ spin.T * size + centre).round().astype(np.int32)
        cv2.polylines(image, [points.reshape(-1, 1, 2)], False, 255, thick, cv2.LINE_8)
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(255 - small if seed % 2 else small, np.uint8)


def pictures() -> Iterator[tuple[str, Picture]]:
    """(name in the archive, its pixels) of all 180."""
    for label in LABELS:
        for seed in range(EACH):
            yield f"{label}/{label}-{seed:02}.png", drawing(label, seed)


def png(image: Picture) -> bytes:
    """As a file."""
    done, content = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert done
    return content.tobytes()


def archive() -> bytes:
    """The sample as a zip."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as made:
        for name, image in pictures():
            made.writestr(zipfile.ZipInfo(name), png(image))
    return held.getvalue()


if __name__ == "__main__":
    SAMPLE.write_bytes(archive())
