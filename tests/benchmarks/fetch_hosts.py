"""Many slow hosts at once: 100 of them, 150 ms an answer, 4 connections each, so 27 images/s a host at the best.

    python -m tests.benchmarks.fetch_hosts [seconds] [hosts]

Shows the share of that ceiling that is reached, the peak of memory, and the CPU of each side.
"""

from __future__ import annotations

import resource
import sys
import time

from pipeline.fetch import Fetched, Fetcher
from pipeline.settings import Fetch
from tests.benchmarks.fetch_cpu import server

DELAY = 0.15
CONNECTIONS = 4


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 15.0
    hosts = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    limits = Fetch(allow_private=True, requests_per_second=40.0, connections_per_host=CONNECTIONS)
    ceiling = hosts * CONNECTIONS / DELAY
    with server(4096, DELAY) as (port, spent):
        urls = (
            f"http://127.0.{number % hosts // 200 + 1}.{number % hosts % 200 + 1}:{port}/{number}.jpg"
            for number in range(int(ceiling * seconds))
        )
        cpu, wall = time.process_time(), time.perf_counter()
        images = 0
        for result in Fetcher(limits).stream((None, url) for url in urls):
            if result is not None:
                assert isinstance(result[1], Fetched), result[1]
                images += 1
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{hosts} hosts: {images / wall:.0f} images/s of at most {ceiling:.0f} ({images / wall / ceiling:.2f}), "
        f"{cpu / images * 1e6:.0f} us CPU/image, peak {peak:.0f} MB; "
        f"the hosts' own CPU {spent[0]:.1f} s of {wall:.1f} s"
    )


if __name__ == "__main__":
    main()
