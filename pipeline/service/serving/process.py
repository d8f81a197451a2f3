"""`python -m pipeline.service.serving.process MOST BYTES THREADS PARENT`: a process that holds nets and answers.

It knows no tenant, no bucket, no database and, where the kernel lets it, no network: a folder of a net and the bytes of
pictures come in, numbers go out, one batch after the other.  Its parent ends it once it has grown too large.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.process import life
from pipeline.process.channel import Channel
from pipeline.records import Failure
from pipeline.service.serving.nets import Answers, Nets

OPEN_FILES, FILE_BYTES = 256, 2**26
PAGE = resource.getpagesize()


def answering(channel: Channel) -> None:
    """Answers until the parent is gone.

    Asked: `net`, `folder`, `numbers` (whether rows of float32 come, else pictures), `sizes` of what comes.  Answered:
    `failures` by number, with the float32 of all other rows behind; `bytes_held`, which this process has; or `refused`.
    """
    most, most_bytes, threads = (int(one) for one in sys.argv[1:4])
    life.confine(OPEN_FILES, FILE_BYTES)
    nets = Nets(most, most_bytes, threads)
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)), "decode") as pool:
        while True:
            asked, content = channel.receive()
            try:
                net = nets.net(asked["net"], Path(asked["folder"]))
                pieces = _cut(content, asked["sizes"])
                found = net.of_numbers(pieces) if asked["numbers"] else net.of_pictures(pieces, pool)
            except (PipelineError, OSError) as error:
                channel.send(refused=str(error)[:500], bytes_held=_resident())
                continue
            rows = b"".join(one.astype("<f4").tobytes() for one in found if not isinstance(one, Failure))
            channel.send(rows, failures=_failures(found), bytes_held=_resident())


def _cut(content: bytes, sizes: Sequence[int]) -> list[bytes]:
    found, at = [], 0
    for size in sizes:
        found.append(content[at : at + size])
        at += size
    return found


def _failures(found: Answers) -> dict[str, Any]:
    return {
        str(at): [one.reason, one.detail, one.retriable] for at, one in enumerate(found) if isinstance(one, Failure)
    }


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


if __name__ == "__main__":
    life.live(answering)
