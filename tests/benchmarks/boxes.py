"""What a second, third and fourth box bring: images/s of n boxes against n times one, in one run.

`python -m tests.benchmarks.boxes [SECONDS]`: the net sleeps SECONDS (0.6) a batch of 16 images, so that the cores last.
The rate is that between the first and the last result, without the starts.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from pipeline.settings import load
from pipeline.stores.opening import open_bucket
from tests.integration.test_boxes import BATCH, Boxes, make_boxes
from tests.servers import s3

BATCHES_OF_ONE = 20


def rate(boxes: Boxes, number: int, seconds: float) -> float:
    """Images a second of so many boxes, by the bucket's own times of the results."""
    boxes.ship()
    running = [boxes.start(f"box{box}", seconds) for box in range(number)]
    if any(process.wait() for process in running):
        raise SystemExit("a box ended with an error; see its logs")
    bucket = open_bucket(load(boxes.config("box0"), {}))
    times = sorted(entry.modified for entry in bucket.list("shop/c/") if "/r/" in entry.key)
    # The first results of n boxes come together: from there on the others count.
    return (len(times) - number) * BATCH / (times[-1] - times[number - 1])


def main(seconds: float) -> None:
    with s3.running() as server, tempfile.TemporaryDirectory() as folder:
        alone = 0.0
        for number in (1, 2, 4):
            shipments = [BATCHES_OF_ONE] * number
            boxes = make_boxes(Path(folder) / f"boxes-{number}", server, number, shipments)
            found = rate(boxes, number, seconds)
            alone = alone or found
            print(f"{number} boxes: {found:7.1f} images/s, {found / (alone * number):.2f} of {number} times one")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.6)
