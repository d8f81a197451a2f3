"""The order of keys from the order of HDFS, without a folder ever being held.

A NameNode lists names as signed bytes: what is not ASCII comes before what is.  Keys are ordered as unsigned bytes, and
a folder stands for keys that go on with `/`.  So an entry is held back while others that belong before it can follow.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from pipeline.stores.hdfs.webhdfs import Page, Status


@dataclass(order=True)
class _Held:
    key: bytes
    guard: bytes = field(compare=False)
    status: Status = field(compare=False)

    def comes_before_all_after(self, name: bytes) -> bool:
        """Whether nothing that follows `name` in HDFS's order belongs before this one."""
        if not name.startswith(self.guard):
            return True
        following = name[len(self.guard)]
        return self.guard + b"/" == self.key and ord("/") < following < 0x80


def in_key_order(entries: Iterable[Status]) -> Iterator[Status]:
    """Entries of a folder in HDFS's order -> in the order of keys, a folder's name ending in `/`.

    Held back are folders that names with a sign below `/` may precede (`a` before `a-b`), and names beyond ASCII.
    """
    held: list[_Held] = []
    for status in entries:
        name = status.name.encode()
        while held and held[0].comes_before_all_after(name):
            yield heapq.heappop(held).status
        first = next((at for at, byte in enumerate(name) if byte >= 0x80), None)
        if first is None and not status.is_folder:
            yield status
        else:
            key = name + b"/" if status.is_folder else name
            heapq.heappush(held, _Held(key, name if first is None else name[:first], status))
    while held:
        yield heapq.heappop(held).status


def pages(ask: Callable[[str], Page], first: Page | None, start: str) -> Iterator[Status]:
    """The entries of a folder whose names begin with `start`, page by page in HDFS's order.

    ask: the page behind a name; first: the one behind `before(start)` where it is there already.
    """
    page = first or ask(before(start))
    beginning = start.encode()
    while True:
        for status in page.entries:
            if status.name.startswith(start):
                yield status
            elif _signed(status.name.encode()) > _signed(beginning):
                return
        if not page.more or not page.entries:
            return
        page = ask(page.entries[-1].name)


def before(start: str) -> str:
    """A name that lies before all that begin with `start` in HDFS's order, and behind nearly all others before them."""
    if not start or not "!" < start[-1] < "\x7f":
        return ""
    lower = chr(ord(start[-1]) - 1)
    return start[:-1] + lower + "~"


def _signed(name: bytes) -> list[int]:
    return [byte - 256 if byte >= 0x80 else byte for byte in name]
