"""The reader of archives, with a decoder that some bytes kill: what a fault in a decoder's library would do."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from pipeline.process.life import live
from pipeline.service.archive import child, judging

ABORTS, HANGS, SWELLS = b"aborts", b"hangs", b"swells"
_real = judging.picture


def picture(entry: Any, content: bytes, pixels: int) -> Any:
    if content == ABORTS:
        os.kill(os.getpid(), signal.SIGSEGV)
    if content == HANGS:
        ends = time.process_time() + 60
        while time.process_time() < ends:
            pass
    if content == SWELLS:
        raise MemoryError(bytearray(2**31))
    return _real(entry, content, pixels)


if __name__ == "__main__":
    judging.picture = picture
    child.ENTRY_SECONDS = 0.5
    live(child._work)
