"""A second day on which few images changed: `python -m tests.benchmarks.second_day [NET] [--urls N] [--changed N]`.

Each day goes through all four stages over folders, in this process; the web server, with entity tags, has one of its
own.  CPU is that of this process, all its threads, by stage; bytes are those that the server sent.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from pipeline.app.contexts import contexts
from pipeline.clock import Clock
from pipeline.extraction.feature_maker import FeatureMaker
from pipeline.settings import Settings
from pipeline.stage_names import STAGES
from pipeline.stages.loop import LakeStages
from tests.benchmarks.end_to_end import NETS, settings_of
from tests.benchmarks.end_to_end_server import pictures
from tests.integration.tagged_images import serving

DAY = 86400.0


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("net", nargs="?", choices=NETS, default="caffenet")
    options.add_argument("--urls", type=int, default=500)
    options.add_argument("--changed", type=int)
    given = options.parse_args()
    changed = given.urls // 20 if given.changed is None else given.changed
    with server(given.urls) as asked, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        settings = settings_of(folder, given.net)
        maker = FeatureMaker(settings, "demo", Clock())
        (folder / "lake").mkdir()
        port = _told(asked, 0, False)[0]
        days = []
        for number in (1, 2):
            _told(asked, changed if number == 2 else 0, True)
            cpu = day(folder, settings, maker, [f"http://127.0.0.1:{port}/tag/{at}.jpg" for at in range(given.urls)])
            sent = _told(asked, 0, False)[1]
            days.append((cpu, sent))
            spent = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in cpu.items())
            print(f"day {number}: {sum(cpu.values()):6.2f} s of CPU ({spent}), {sent:,} bytes")
        (first, bytes_of_first), (second, bytes_of_second) = days
        print(
            f"{given.net}, {given.urls} images of which {changed} changed: the second day costs "
            f"{100 * sum(second.values()) / sum(first.values()):.1f} % of the first in CPU and "
            f"{100 * bytes_of_second / bytes_of_first:.1f} % in bytes"
        )


def day(folder: Path, settings: Settings, maker: FeatureMaker, urls: list[str]) -> dict[str, float]:
    """The list as of now, through all stages; CPU seconds by stage."""
    path = folder / "lake" / "urls.txt"
    at = path.stat().st_mtime + DAY if path.exists() else time.time() - 20 * DAY
    path.write_text("\n".join(urls))
    os.utime(path, (at, at))
    (context,) = contexts(settings, list(STAGES), lambda: False, "run")
    stages = LakeStages(context, lambda asked, one: maker, strict=True)
    spent = dict.fromkeys(STAGES, 0.0)
    worked = True
    while worked:
        worked = False
        for stage in STAGES:
            before = time.process_time()
            worked = bool(stages.take(stage).tasks) or worked
            spent[stage] += time.process_time() - before
    return spent


@contextmanager
def server(count: int) -> Iterator[Connection]:
    """A process that serves so many images; it is told how many change."""
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_serve, args=(there, count), daemon=True)
    process.start()
    try:
        yield here
    finally:
        process.terminate()
        process.join()


def _told(asked: Connection, changed: int, begin: bool) -> tuple[int, int]:
    """Its port, and what it has sent since it began to count."""
    asked.send((changed, begin))
    port, sent = asked.recv()
    return int(port), int(sent)


def _serve(told: Connection, count: int) -> None:
    few = pictures()
    with serving() as images:
        images.images.update((f"/tag/{at}.jpg", few[at % len(few)] + b"%08d" % at) for at in range(count))
        while True:
            changed, begin = told.recv()
            for at in range(changed):
                images.images[f"/tag/{at}.jpg"] = few[at % len(few)] + b"%08d" % (count + at)
            if begin:
                images.begin()
            told.send((images.port, images.sent))


if __name__ == "__main__":
    main()
