"""Many slow hosts at once: 100 of them, 150 ms an answer, 4 connections each, so 27 images/s a host at the best.

    python -m tests.benchmarks.fetch_hosts [seconds] [hosts]

Shows the share of that ceiling that is reached, the peak of memory and the CPU of each side; then the same with one
URL of a hundred on a host that hangs.
"""

from __future__ import annotations

import resource
import socket
import sys
import time
from collections.abc import Iterator

from pipeline.fetch import Fetched, Fetcher
from pipeline.settings import Fetch
from tests.benchmarks.fetch_cpu import server

DELAY = 0.15
CONNECTIONS = 4


def urls(hosts: int, port: int, images: int, hangs: str) -> Iterator[str]:
    """`images` URLs over all hosts in turn; where `hangs` is a host, one more in a hundred on it."""
    for number in range(images):
        if hangs and number % 100 == 0:
            yield f"http://{hangs}/{number}.jpg"
        yield f"http://127.0.{number % hosts // 200 + 1}.{number % hosts % 200 + 1}:{port}/{number}.jpg"


def measure(seconds: float, hosts: int, hangs: str) -> float:
    """Prints one line; images/s until the last good one."""
    limits = Fetch(allow_private=True, requests_per_second=40.0, connections_per_host=CONNECTIONS)
    ceiling = hosts * CONNECTIONS / DELAY
    with server(4096, DELAY) as (port, spent):
        left = images = int(ceiling * seconds)
        cpu, wall = time.process_time(), time.perf_counter()
        with Fetcher(limits) as fetcher:
            for result in fetcher.stream((None, url) for url in urls(hosts, port, images, hangs)):
                left -= result is not None and isinstance(result[1], Fetched)
                if left == 0:
                    break
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    rate = images / wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{hosts} hosts{', one that hangs' if hangs else ''}: {rate:.0f} images/s of at most {ceiling:.0f} "
        f"({rate / ceiling:.2f}), {cpu / images * 1e6:.0f} us CPU/image, peak {peak:.0f} MB; "
        f"the hosts' own CPU {spent[0]:.1f} s of {wall:.1f} s"
    )
    return rate


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 15.0
    hosts = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        usual = measure(seconds, hosts, "")
        beside = measure(seconds, hosts, f"127.0.0.1:{silent.getsockname()[1]}")
    print(f"beside a host that hangs: {beside / usual:.2f} of the usual rate")


if __name__ == "__main__":
    main()
