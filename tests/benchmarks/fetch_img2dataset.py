"""Fetching, decoding and resizing to 227 x 227, beside img2dataset on the same cores; for people, since it installs.

    python -m tests.benchmarks.fetch_img2dataset [--images N] [--rounds N] [--venv DIR]

JPEGs of 600 x 450 from a server on loopback in a process of its own, each of other bytes.  img2dataset 1.47 gets a
process for each core and writes nothing (output_format "dummy"); we go through the window with a net that gives its
input back.  Each side makes two runs of different length, and the difference counts: starting up is no part of it.
The server is on the same cores, so its CPU falls on both; CPU for each image is that of the side alone.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

WANTED = 3.0
VERSION = "img2dataset==1.47.0"
SIDE = 227
SHORT = 200
THEIRS = """
import json, resource, sys, time
from img2dataset import download
urls, out, cores = sys.argv[1:]
if __name__ == "__main__":
    began = time.perf_counter()
    download(url_list=urls, output_folder=out, image_size=227, output_format="dummy", processes_count=int(cores),
             thread_count=64, number_sample_per_shard=250, enable_wandb=False)
    wall = time.perf_counter() - began
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    stats = [json.load(open(path)) for path in __import__("glob").glob(out + "/*_stats.json")]
    print(json.dumps([wall, sum(one.ru_utime + one.ru_stime for one in uses), sum(one["successes"] for one in stats)]))
"""


def install(folder: Path) -> Path:
    """A Python that has img2dataset; made the first time."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"installing {VERSION} under {folder}")
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", VERSION], check=True)
    return python


def theirs(python: Path, port: int, first: int, images: int) -> tuple[float, float]:
    """Wall and CPU seconds of one run of img2dataset."""
    with tempfile.TemporaryDirectory() as scratch:
        urls = Path(scratch) / "urls.txt"
        urls.write_text("\n".join(_urls(port, first, images)))
        script = Path(scratch) / "run.py"  # its processes start by importing it
        script.write_text(THEIRS)
        command = [python, script, urls, Path(scratch) / "out", str(len(os.sched_getaffinity(0)))]
        environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
        said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout  # type: ignore[arg-type]
    wall, cpu, done = json.loads(said.splitlines()[-1])
    assert done == images, f"img2dataset got {done} of {images}"
    return wall, cpu


def ours(port: int, first: int, images: int) -> tuple[float, float]:
    """Wall and CPU seconds of one run of ours, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.fetch_img2dataset", "--ours", str(port), str(first), str(images)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    wall, cpu, done = json.loads(said)
    assert done == images, f"we got {done} of {images}"
    return wall, cpu


def our_run(port: int, first: int, images: int) -> tuple[float, float, int]:
    """In the child: through the window, with decoding and resizing as a feature set has them."""
    import numpy as np

    from pipeline.clock import Clock
    from pipeline.extraction.feature_maker import stream_of
    from pipeline.extraction.memory_budget import Bounds
    from pipeline.extraction.window import Opened, Window
    from pipeline.fetch import Fetcher
    from pipeline.images import Preparation
    from pipeline.records import ImageRef
    from pipeline.settings import Fetch, Preprocess

    class Back:
        dim = 1
        batch_size = 32

        def forward(self, batch: Any) -> Any:
            return np.ascontiguousarray(batch[:, 0, 0, :1])

    cores = len(os.sched_getaffinity(0))
    limits = Fetch(allow_private=True, requests_per_second=1e6, burst=10**6, connections_per_host=64,
                   connections_per_domain=64)  # fmt: skip
    refs = [ImageRef(1, at, "", url, b"", at) for at, url in enumerate(_urls(port, first, images))]
    began = time.perf_counter()
    with Fetcher(limits) as fetcher, ThreadPoolExecutor(cores) as decoders, ThreadPoolExecutor(1) as runner:
        window: Window[int] = Window(
            {"all": list(range(0, images, 1024))},
            lambda at: Opened(at, refs[at : at + 1024]),
            fetch=stream_of(fetcher, lambda: None),
            prepare=Preparation(Preprocess(), (SIDE, SIDE)),
            net=Back(),
            decoders=decoders,
            runner=runner,
            clock=Clock(),
            bounds=Bounds(batches=64, memory=1 << 30, batch_seconds=1800.0, decoding=96),
        )
        done = sum(len(computed.rows) for computed in window.run() if computed is not None)
    use = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter() - began, use.ru_utime + use.ru_stime, done


def _urls(port: int, first: int, images: int) -> list[str]:
    return [f"http://127.0.0.1:{port}/{number}.jpg" for number in range(first, first + images)]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--rounds", type=int, default=3)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    options.add_argument("--venv", type=Path, default=cache / "hathi" / "img2dataset")
    options.add_argument("--ours", type=int, nargs=3, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.ours:
        print(json.dumps(our_run(*given.ours)))
        return

    from tests.benchmarks.fetch_cpu import server
    from tests.unit.images.pictures import encoded, photo

    python = install(given.venv)
    rates: dict[str, list[float]] = {"img2dataset": [], "ours": []}
    cpus: dict[str, list[float]] = {"img2dataset": [], "ours": []}
    with tempfile.TemporaryDirectory() as scratch:
        picture = Path(scratch) / "picture.jpg"
        picture.write_bytes(encoded(photo(600, 450), "JPEG", quality=74))
        with server(picture, 0.0) as (port, _):
            sides = {"img2dataset": lambda *run: theirs(python, port, *run), "ours": lambda *run: ours(port, *run)}
            for _ in range(given.rounds):
                for name, run in sides.items():
                    short, long = run(0, SHORT), run(SHORT, SHORT + given.images)
                    rates[name].append(given.images / (long[0] - short[0]))
                    cpus[name].append((long[1] - short[1]) / given.images * 1e3)
        size = picture.stat().st_size
    print(f"JPEGs of {size} bytes, {given.images} images a run, {len(os.sched_getaffinity(0))} cores")
    for name in rates:
        print(f"{name:<12} {median(rates[name]):6.0f} images/s, {median(cpus[name]):5.2f} ms CPU/image")
    each = [own / other for own, other in zip(rates["ours"], rates["img2dataset"], strict=True)]
    by_cpu = median(cpus["img2dataset"]) / median(cpus["ours"])
    print(f"{median(each):.2f} times img2dataset's rate, {by_cpu:.2f} times by CPU (wanted {WANTED:.1f})")


if __name__ == "__main__":
    main()
