"""URLs to features against each stage alone: `python -m tests.benchmarks.end_to_end [NET] [--urls N] [--rounds N]`.

NET: caffenet (2,000 URLs), resnet50 or googlenet (500).  The pictures come over loopback from a process of their own on
the same cores; politeness is set out of the way.  Each round measures all ways in turn, so that what else the machine
does falls on all of them; the medians are shown.  CPU is that of this process, all its threads.

The stand-in is what one would write by hand for this one case: fetching, decoding and net overlapped, without rules,
protocol, files or failures (end_to_end_by_hand.py).
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np

from pipeline.app.contexts import contexts
from pipeline.clock import Clock
from pipeline.extraction.feature_maker import FeatureMaker
from pipeline.fetch import Fetcher
from pipeline.nets.features import FeatureNet
from pipeline.records import Failure
from pipeline.settings import Settings
from pipeline.stages.loop import LakeStages
from tests.benchmarks.end_to_end_by_hand import by_hand
from tests.benchmarks.end_to_end_server import pictures
from tests.golden import bignets

NETS = {
    "caffenet": ("fc7", [104.0, 117.0, 123.0], 2000),
    "googlenet": ("pool5/7x7_s1", [104.0, 117.0, 123.0], 500),
    "resnet50": ("pool5", [104.0, 117.0, 123.0], 500),
}
WANTED = 0.8

Way = Callable[[], None]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("net", nargs="?", choices=NETS, default="caffenet")
    options.add_argument("--urls", type=int)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    count = given.urls or NETS[given.net][2]
    with server() as port, tempfile.TemporaryDirectory() as scratch:
        urls = [f"http://127.0.0.1:{port}/{number}.jpg" for number in range(count)]
        show(given.net, measure(Path(scratch), given.net, urls, given.rounds), count)


def measure(folder: Path, net: str, urls: list[str], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of each way, one pair a round."""
    settings = settings_of(folder, net)
    (folder / "lake").mkdir()
    (folder / "lake" / "urls.txt").write_text("\n".join(urls))
    maker = FeatureMaker(settings, "demo", Clock())
    net_of = maker.net
    assert isinstance(net_of, FeatureNet)
    few = pictures()
    contents = [few[number % len(few)] for number in range(len(urls))]
    ways: dict[str, Way] = {
        "fetch alone": lambda: fetch(settings, urls),
        "decode and prepare alone": lambda: decode(maker, contents),
        "net alone": lambda: forward(net_of, len(urls)),
        "compute": lambda: None,
        "by hand": lambda: by_hand(net_of, urls),
    }
    forward(net_of, 2 * net_of.batch_size)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        ways["compute"] = compute(folder, settings, maker, len(urls))
        for name, way in ways.items():
            cpu, wall = time.process_time(), time.perf_counter()
            way()
            found[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return found


def settings_of(folder: Path, net: str) -> Settings:
    blob, mean, _ = NETS[net]
    return Settings.model_validate(
        {
            "state": str(folder / "state"),
            "bucket": {"url": str(folder / "bucket")},
            "lakes": {"shop": {"url": str(folder / "lake"), "sources": [{"path": "."}]}},
            "sets": {
                "demo": {
                    "net": str(bignets.prototxt(net)),
                    "weights": str(bignets.weights(net)),
                    "blob": blob,
                    "preprocess": {"mean": mean},
                    "root": "features",
                }
            },
            "fetch": {
                "allow_private": True,
                "requests_per_second": 1e6,
                "burst": 10**6,
                "connections_per_host": 32,
                "connections_per_domain": 32,
            },
        }
    )


def fetch(settings: Settings, urls: list[str]) -> None:
    for ended in Fetcher(settings.fetch).stream((None, url) for url in urls):
        assert ended is None or not isinstance(ended[1], Failure)


def decode(maker: FeatureMaker, contents: list[bytes]) -> None:
    """With a thread for each core."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        for image in threads.map(maker.prepare, contents):
            assert not isinstance(image, Failure)


def forward(net: FeatureNet, count: int) -> None:
    """Full batches of the net's own size, with all cores."""
    batch = np.random.default_rng(7).normal(0, 50, (net.batch_size, 3, *net.input_size)).astype(np.float32)
    for first in range(0, count, net.batch_size):
        net.forward(batch[: count - first])


def compute(folder: Path, settings: Settings, maker: FeatureMaker, count: int) -> Way:
    """The compute stage over what was shipped just now, into a new bucket."""
    shutil.rmtree(folder / "bucket", ignore_errors=True)
    lake = LakeStages(
        contexts(settings, ["ship", "compute"], lambda: False, "run")[0], lambda *asked: maker, strict=True
    )
    assert lake.take("ship").counts.refs == count

    def take() -> None:
        assert lake.take("compute").counts.features == count

    return take


@contextmanager
def server() -> Iterator[int]:
    """The port of the pictures."""
    command = [sys.executable, "-m", "tests.benchmarks.end_to_end_server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.stdin.close()


def show(net: str, found: dict[str, list[tuple[float, float]]], count: int) -> None:
    rates = {name: count / median(wall for wall, _ in pairs) for name, pairs in found.items()}
    slowest = min(rate for name, rate in rates.items() if name.endswith("alone"))
    print(f"{net + ', ' + str(count) + ' URLs':28} {'images/s':>9} {'CPU ms/image':>13} {'of the slowest':>15}")
    for name, pairs in found.items():
        cpu = median(cpu for _, cpu in pairs) / count * 1e3
        print(f"{name:28} {rates[name]:9.1f} {cpu:13.2f} {rates[name] / slowest:15.2f}")
    print(f"wanted of compute: {WANTED} of the slowest stage alone, and not slower than by hand")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(os.sched_getaffinity(0))} cores, peak memory of this process {peak:.0f} MB")


if __name__ == "__main__":
    main()
