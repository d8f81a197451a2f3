"""Peak memory over the number of refs: `python -m tests.benchmarks.memory [--refs N,N,...]`.

`hathi run` over lists whose every fetch fails at once, 200 refs a host, each URL another one.  blocked: ports that are
not allowed, private addresses and text that is no URL, which is final.  refused: nobody listens there, so each ref is
carried over to a retry.  All stages run, in one process of their own, as a person types it; what is shown is the
kernel's count of that process at its end.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sample import random_features

ROOT = Path(__file__).parents[2]
WANTED = 0.10
STAGES = ("ship", "compute", "aggregate", "deliver")


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--refs", default="10000,1000000")
    options.add_argument("--kinds", default="blocked,refused")
    given = options.parse_args()
    counts = [int(count) for count in given.refs.split(",")]
    columns = "".join(f" {stage + ' s':>11}" for stage in STAGES)
    print(f"{'fetches are':12} {'refs':>10} {'peak MB':>9} {'wall s':>8} {'CPU s':>8}{columns}", flush=True)
    for kind in given.kinds.split(","):
        peaks = [measure(kind, count) for count in counts]
        growth = peaks[-1] / peaks[0] - 1
        print(f"{kind:12} growth from {counts[0]:,} to {counts[-1]:,}: {growth:+.1%} (wanted: under {WANTED:.0%})")


def measure(kind: str, count: int) -> int:
    """The peak in KiB."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_refs(folder / "refs.csv", URLS[kind], count)
        began = time.perf_counter()
        done, usage = run(folder, ["--allow-private"] if kind == "refused" else [])
        wall = time.perf_counter() - began
    assert sum(done["failures"].values()) == count, done
    seconds = "".join(f" {done['seconds'][stage]:11.1f}" for stage in STAGES)
    cpu = usage.ru_utime + usage.ru_stime
    print(f"{kind:12} {count:10,} {usage.ru_maxrss / 1024:9.0f} {wall:8.1f} {cpu:8.1f}{seconds}", flush=True)
    return usage.ru_maxrss


def write_refs(path: Path, url: Callable[[int], str], count: int) -> None:
    with path.open("w") as file:
        file.write("partner_id,external_id,url\n")
        for number in range(count):
            file.write(f"{number // 5000},SKU-{number:07d},{url(number)}\n")


def blocked(number: int) -> str:
    host = number // 200
    if number % 3 == 0:
        return f"http://127.0.0.1:9/catalogue/large/{number:08d}.jpg"
    if number % 3 == 1:
        return f"http://10.{host >> 16 & 255}.{host >> 8 & 255}.{host & 255}/catalogue/large/{number:08d}.jpg"
    return f"//img.shop.example/catalogue/large/{number:08d}.jpg"


def refused(number: int) -> str:
    host = number // 200
    return f"http://127.{host >> 16 & 255}.{host >> 8 & 255}.{host & 255}:9/catalogue/large/{number:08d}.jpg"


URLS = {"blocked": blocked, "refused": refused}


def run(folder: Path, more: list[str]) -> tuple[dict[str, Any], resource.struct_rusage]:
    """What it did, and what it took."""
    random_features.write(folder / "random.caffemodel")
    words = [sys.executable, "-m", "pipeline.cli.main", "run", "--json", *more]
    words += ["--refs", str(folder / "refs.csv"), "--features", str(folder / "out")]
    words += ["--net", str(ROOT / "sample" / "random_features.prototxt"), "--blob", "features"]
    words += ["--weights", str(folder / "random.caffemodel")]
    with (folder / "printed").open("w") as printed, (folder / "said").open("w") as said:
        child = subprocess.Popen(words, cwd=ROOT, stdout=printed, stderr=said)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, (folder / "said").read_text()[-2000:]
    return json.loads((folder / "printed").read_text()), usage


if __name__ == "__main__":
    main()
