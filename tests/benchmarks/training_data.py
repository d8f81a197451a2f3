"""Examples a second from an LMDB into batches: `python -m tests.benchmarks.training_data [IMAGES]`.  It needs lmdb.

Raw Datums of 3 x 256 x 256 and JPEGs of 256 x 256 (quality 90), cropped to 227, mirrored, less the mean, in batches of
64, on 1 and 2 threads; beside them the same by hand: protobuf, cv2.imdecode and NumPy alone, on one thread.  Then what
the draws cost: a mask of 64 x 4096, and a million normal numbers.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from pipeline.codec import caffe_pb2
from pipeline.training.data.loading import Loader
from pipeline.training.data.make import make
from pipeline.training.draws.draws import CaffesDraws, OurDraws
from pipeline.training.draws.words import Mersenne
from pipeline.training.draws.ziggurat import normal
from pipeline.training.network import Mask
from tests.unit.training.databases import data_layer, datum, lmdb_of

BATCH, CROP, BATCHES, ROUNDS = 64, 227, 12, 3
MEAN = [104.0, 117.0, 123.0]


def pictures(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    small = (random.integers(0, 256, (24, 24, 3), np.uint8) for _ in range(count))
    return [cv2.resize(one, (256, 256), interpolation=cv2.INTER_CUBIC).transpose(2, 0, 1) for one in small]


def jpeg(image: np.ndarray, label: int) -> caffe_pb2.Datum:
    content = cv2.imencode(".jpg", np.ascontiguousarray(image.transpose(1, 2, 0)), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return caffe_pb2.Datum(encoded=True, data=bytes(content), label=label)


def by_hand(path: Path) -> None:
    import lmdb

    mean, out = np.array(MEAN, np.float32).reshape(3, 1, 1), np.empty((BATCH, 3, CROP, CROP), np.float32)
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        cursor = transaction.cursor()
        for at in range(BATCH * BATCHES):
            if not cursor.next():
                cursor.first()
            one = caffe_pb2.Datum.FromString(cursor.value())
            if one.encoded:
                image = cv2.imdecode(np.frombuffer(one.data, np.uint8), -1).transpose(2, 0, 1)
            else:
                image = np.frombuffer(one.data, np.uint8).reshape(3, 256, 256)
            top, left = at % 30, at % 29
            crop = image[:, top : top + CROP, left : left + CROP]
            np.subtract(crop[:, :, ::-1] if at % 2 else crop, mean, out=out[at % BATCH])


def by_loader(path: Path, threads: int) -> None:
    spec = data_layer(str(path), BATCH, {"mirror": True, "crop_size": CROP, "mean_value": MEAN})
    source = make(spec, True, CaffesDraws(1), path)
    with Loader([source], threads=threads) as loader:
        for _ in range(BATCHES):
            loader.take()
    source.close()


def timed(work: Callable[[], object]) -> tuple[float, float]:
    begin, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begin, time.process_time() - cpu


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    images = pictures(count)
    with tempfile.TemporaryDirectory() as folder:
        for kind, make_datum in (("raw", datum), ("JPEG", jpeg)):
            path = lmdb_of(Path(folder, kind), [make_datum(image, at % 10) for at, image in enumerate(images)])
            ways: dict[str, Callable[[], object]] = {
                "by hand, 1 thread": lambda path=path: by_hand(path),
                "loader, 1 thread": lambda path=path: by_loader(path, 1),
                "loader, 2 threads": lambda path=path: by_loader(path, 2),
            }
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for _ in range(ROUNDS):
                for name, work in ways.items():
                    times[name].append(timed(work))
            for name, found in times.items():
                rate = BATCH * BATCHES / median(wall for wall, _ in found)
                cpu = median(cpu for _, cpu in found) / BATCH / BATCHES
                print(f"{kind:5} {name:18} {rate:8,.0f} images/s   {cpu * 1e3:.2f} ms CPU an image")
    mask = Mask("mask", "drop", (64, 4096), 0.5)
    for name, draws in (("Caffe's", CaffesDraws(1)), ("ours", OurDraws(1))):
        each = median(timed(lambda draws=draws: draws.mask(mask, 1))[0] for _ in range(40))
        print(f"mask of 64 x 4096, {name}: {each * 1e3:.2f} ms, {each * 1e3 / 2.62:.2f} ms for 100,000 words")
    words = Mersenne(1)
    each = median(timed(lambda: normal(words, 1_000_000, 0, 1))[0] for _ in range(7))
    print(f"a million normal numbers: {each * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
