"""Images a second and core, decoded and prepared: `python -m tests.benchmarks.images_speed [FOLDER]`.

Of rendered photographs, or of the JPEG files of a folder at their own size.  CPU time, the median of rounds in which
the ways take turns, beside OpenCV's and Pillow's plain ways to the same 227 x 227 pixels.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from PIL import Image

from pipeline.images import Preparation
from pipeline.images.decoding import decode_reduced
from pipeline.images.resizing import resize
from pipeline.records import Failure
from pipeline.settings import Preprocess
from tests.unit.images.pictures import encoded, photo

SIZE = (227, 227)
ROUNDS, TIMES = 9, 20


def by_us(content: bytes) -> object:
    found = decode_reduced(content, 100_000_000, SIZE)
    assert not isinstance(found, Failure)
    return resize(found[0], SIZE, found[1])


def by_pillow(content: bytes) -> object:
    image = Image.open(io.BytesIO(content))
    image.draft("RGB", SIZE)
    return np.asarray(image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC))


def by_opencv(content: bytes, flag: int) -> object:
    return cv2.resize(cv2.imdecode(np.frombuffer(content, np.uint8), flag), SIZE, interpolation=cv2.INTER_CUBIC)


def measure(name: str, content: bytes) -> None:
    prepare = Preparation(Preprocess(), SIZE)
    with Image.open(io.BytesIO(content)) as image:
        factor = next((f for f in (8, 4, 2) if min(image.size) / f >= SIZE[0]), 1)
    flags = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4,
             8: cv2.IMREAD_REDUCED_COLOR_8}  # fmt: skip
    ways: dict[str, Callable[[], object]] = {
        "decoded and resized": lambda: by_us(content),
        "... and prepared": lambda: prepare(content),
        "OpenCV reduced, cubic (aliases)": lambda: by_opencv(content, flags[factor]),
        "Pillow draft, bicubic": lambda: by_pillow(content),
    }
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, work in ways.items():
            began = time.process_time()
            for _ in range(TIMES):
                work()
            spent[way].append((time.process_time() - began) / TIMES * 1e3)
    plain = median(spent["OpenCV reduced, cubic (aliases)"])
    for way, costs in spent.items():
        cost = median(costs)
        print(f"{name:<22} {len(content) / 1024:>6.0f} KB  {way:<32} {cost:>6.2f} ms  {1e3 / cost:>6.0f} images/s  "
              f"{plain / cost:.2f} of OpenCV")  # fmt: skip


if __name__ == "__main__":
    cv2.setNumThreads(1)
    if len(sys.argv) > 1:
        for path in sorted(Path(sys.argv[1]).glob("*.jp*g")):
            measure(path.name, path.read_bytes())
    else:
        for width, height in ((600, 450), (800, 600), (1600, 1200)):
            measure(f"{width} x {height}", encoded(photo(width, height), "JPEG", quality=85))
