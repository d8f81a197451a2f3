"""Images from memory to features against what the cores allow: `python -m tests.benchmarks.overlap [NET] [--images N]`.

The limit is 1 / (decode + net), both with all cores: no overlap can beat it, since either alone leaves none idle.
Rounds measure the three in turn, so that what else the machine does falls on all of them; medians are shown.  By wall
time, as it is felt, and by CPU time, which a busy machine does not change.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from pipeline.clock import Clock
from pipeline.extraction.feature_maker import FeatureMaker
from pipeline.extraction.window import Opened
from pipeline.nets.features import FeatureNet
from pipeline.records import ImageRef
from tests.benchmarks.end_to_end import decode, forward, settings_of
from tests.benchmarks.nets_by_hand import NETS
from tests.unit.images.pictures import photo

WANTED = 0.90
BATCH = 256  # refs in one; small, so that the first and the last weigh as little as in a run of days
PICTURES = 8


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("net", nargs="?", choices=NETS, default="caffenet")
    options.add_argument("--images", type=int, default=1024)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--size", default="800x600")
    given = options.parse_args()
    wide, high = map(int, given.size.split("x"))
    few = [_jpeg(wide, high, seed) for seed in range(PICTURES)]
    contents = [few[number % PICTURES] for number in range(given.images)]
    with tempfile.TemporaryDirectory() as scratch:
        maker = FeatureMaker(settings_of(Path(scratch), given.net), "demo", Clock())
        net = maker.net
        assert isinstance(net, FeatureNet)
        forward(net, net.batch_size)
        ways: dict[str, Callable[[], None]] = {
            "decode": lambda: decode(maker, contents),
            "net": lambda: forward(net, len(contents)),
            "both": lambda: both(maker, contents),
        }
        show(given.net, [_round(ways) for _ in range(given.rounds)], len(contents))


def both(maker: FeatureMaker, contents: list[bytes]) -> None:
    """Through the window that the compute stage uses; nothing is fetched."""
    refs = [ImageRef(1, number, "", "", content, number) for number, content in enumerate(contents)]
    tasks = list(range(0, len(refs), BATCH))
    window = maker.window({"g": tasks}, lambda first: Opened(first, refs[first : first + BATCH]), lambda: True)
    assert sum(len(done.rows) for done in window if done) == len(refs)


def _round(ways: dict[str, Callable[[], None]]) -> dict[str, tuple[float, float]]:
    """Wall and CPU seconds of each way."""
    found = {}
    for name, way in ways.items():
        wall, cpu = time.perf_counter(), time.process_time()
        way()
        found[name] = time.perf_counter() - wall, time.process_time() - cpu
    return found


def show(net: str, rounds: list[dict[str, tuple[float, float]]], count: int) -> None:
    for kind, place in (("wall", 0), ("CPU", 1)):
        each = {name: median(one[name][place] for one in rounds) / count * 1e3 for name in rounds[0]}
        parts = [(one["decode"][place] + one["net"][place]) / one["both"][place] for one in rounds]
        print(f"{net:<10} {kind:<4} ms an image: decode {each['decode']:.2f}, net {each['net']:.2f}, both "
              f"{each['both']:.2f}; {median(parts):.2f} of the limit (wanted {WANTED:.2f}; each round "
              f"{', '.join(f'{part:.2f}' for part in parts)})")  # fmt: skip
    print(f"{len(os.sched_getaffinity(0))} cores, {1e3 / median(one['both'][0] / count * 1e3 for one in rounds):.0f} "
          f"images/s end to end")  # fmt: skip


def _jpeg(wide: int, high: int, seed: int) -> bytes:
    out = io.BytesIO()
    photo(wide, high, seed).save(out, "JPEG", quality=85)
    return out.getvalue()


if __name__ == "__main__":
    main()
