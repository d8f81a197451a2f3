"""CPU for each image of 45 KB that is fetched over loopback; the figures that chose the client.

    python -m tests.benchmarks.fetch_cpu [images]

All threads of this process are counted, the server's process is not.  Hashing is apart: it lets go of the
interpreter's lock.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.fetch import Fetched, Fetcher
from pipeline.settings import Fetch

SIZE = 45_000
CONNECTIONS = 32


@contextmanager
def server(what: int | Path, delay: float) -> Iterator[tuple[int, list[float]]]:
    """what: the bytes of a body, or a JPEG file.  Port, and a list that holds the server's CPU seconds in the end."""
    spent: list[float] = []
    command = [sys.executable, "-m", "tests.benchmarks.fetch_server", str(what), str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield int(process.stdout.readline()), spent
        process.stdin.close()
        spent.append(float(process.stdout.readline()))


def by_aiohttp(urls: list[str]) -> None:
    """aiohttp on uvloop, no rule of ours."""
    import aiohttp
    import uvloop

    async def all_of_them() -> None:
        waiting = iter(urls)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS)) as session:

            async def worker() -> None:
                for url in waiting:
                    async with session.get(url) as response:
                        await response.read()

            await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))

    uvloop.run(all_of_them())


def by_pycurl(urls: list[str]) -> None:
    """libcurl's multi interface as simply as it can be used, no rule of ours."""
    import pycurl

    multi = pycurl.CurlMulti()
    waiting = iter(urls)
    parts: dict[pycurl.Curl, list[bytes]] = {}

    def begin(curl: pycurl.Curl) -> bool:
        url = next(waiting, None)
        if url is not None:
            parts[curl].clear()
            curl.setopt(pycurl.URL, url)
            multi.add_handle(curl)
        return url is not None

    running = 0
    for _ in range(CONNECTIONS):
        curl = pycurl.Curl()
        parts[curl] = []
        curl.setopt(pycurl.WRITEFUNCTION, parts[curl].append)
        running += begin(curl)
    while running:
        multi.perform()
        multi.select(1.0)
        _, well, badly = multi.info_read()
        assert not badly
        for curl in well:
            b"".join(parts[curl])
            multi.remove_handle(curl)
            running += begin(curl) - 1


def by_us(urls: list[str]) -> None:
    """The fetcher with every rule on but the loopback's, hashing included."""
    limits = Fetch(
        allow_private=True,
        requests_per_second=1e6,
        burst=10**6,
        connections_per_host=CONNECTIONS,
        connections_per_domain=CONNECTIONS,
    )
    for result in Fetcher(limits).stream((None, url) for url in urls):
        assert result is None or isinstance(result[1], Fetched)


def hashing(urls: list[str]) -> None:
    """SHA-256 of as many bodies."""
    body = os.urandom(SIZE)
    for _ in urls:
        hashlib.sha256(body).digest()


def main() -> None:
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    cost: dict[str, float] = {}
    with server(SIZE, 0.0) as (port, _):
        urls = [f"http://127.0.0.1:{port}/{number}.jpg" for number in range(images)]
        ways: list[tuple[str, Callable[[list[str]], None]]] = [
            ("aiohttp and uvloop", by_aiohttp),
            ("pycurl, bare", by_pycurl),
            ("the fetcher", by_us),
            ("SHA-256 alone", hashing),
        ]
        print(f"{'':<20} us CPU/image   images/s")
        for name, way in ways:
            way(urls[:500])
            cpu, wall = time.process_time(), time.perf_counter()
            way(urls)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            cost[name] = cpu / images * 1e6
            print(f"{name:<20} {cost[name]:12.1f} {images / wall:10.0f}")
    print(f"{'the fetcher, without hashing':<20} {cost['the fetcher'] - cost['SHA-256 alone']:.1f}")


if __name__ == "__main__":
    main()
