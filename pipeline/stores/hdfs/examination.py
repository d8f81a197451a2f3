"""An HDFS looked at from the ground up: who we are, who answers, and whether it keeps what the protocol needs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from pipeline.clock import Clock, random_nonce
from pipeline.errors import Exists, PipelineError
from pipeline.settings import Hdfs
from pipeline.stores.hdfs.webhdfs import WebHdfs
from pipeline.stores.store import Examined, Lake
from pipeline.times import readable_time

SKEW_SECONDS = 300.0
"""What Kerberos allows."""


def examine(
    lake: Lake, hdfs: WebHdfs, settings: Hdfs, scratch: str, clock: Clock, *, only_reads: bool
) -> Iterator[Examined]:
    """As Store.examine: ticket, NameNode, list, write, put-if-absent, rename, delete."""
    key = f"{scratch}examined-{random_nonce()}"
    steps: list[tuple[str, Callable[[], Examined]]] = [
        ("ticket", lambda: _ticket(hdfs, settings, clock)),
        ("NameNode", lambda: _namenode(hdfs, clock)),
        ("list", lambda: _list(lake)),
        ("write", lambda: _write(lake, key)),
        ("put-if-absent", lambda: _put_if_absent(lake, key)),
        ("rename", lambda: _rename(lake, key)),
        ("delete", lambda: _delete(lake, key)),
    ]
    try:
        for name, step in steps:
            if only_reads and name == "write":
                yield Examined("write", True, "not tried: Hathi only reads from HttpFS, and deliver refuses it")
                return
            try:
                found = step()
            except PipelineError as error:
                found = Examined(name, False, ": ".join(filter(None, (error.message, error.detail))), error.hint)
            yield found
            if not found.ok:
                return
    finally:
        for left in (key, f"{key}-moved") if not only_reads else ():
            with contextlib.suppress(PipelineError):
                lake.delete(left)


def _ticket(hdfs: WebHdfs, settings: Hdfs, clock: Clock) -> Examined:
    if hdfs.tickets is None:
        return Examined(
            "ticket", True, f"not needed: the server trusts the user name {settings.user or 'of this process'}"
        )
    held = hdfs.tickets.held()
    until = readable_time(held.ends)
    renewed = ", renewed by the keytab" if settings.keytab else ""
    return Examined("ticket", True, f"of {held.principal} until {until}{renewed}")


def _namenode(hdfs: WebHdfs, clock: Clock) -> Examined:
    off = hdfs.now() - clock.now()
    said = f"{hdfs.hosts.partition(',')[0]} answers, its clock is {abs(off):.0f} s {'ahead' if off > 0 else 'behind'}"
    hint = "compare `date` on both; start NTP (timedatectl set-ntp true)"
    return Examined("NameNode", abs(off) < SKEW_SECONDS, said, "" if abs(off) < SKEW_SECONDS else hint)


def _list(lake: Lake) -> Examined:
    if lake.stat("") is None:
        return Examined("list", True, "the lake's folder does not exist yet; writing the first file creates it")
    next(iter(lake.list("", folders=True)), None)
    return Examined("list", True, "the lake's folder can be listed")


def _write(lake: Lake, key: str) -> Examined:
    lake.put_new(key, b"first")
    return Examined("write", True, f"a file was written at {key}")


def _put_if_absent(lake: Lake, key: str) -> Examined:
    try:
        lake.put_new(key, b"second")
    except Exists:
        return Examined("put-if-absent", True, "a second writer is refused")
    return Examined(
        "put-if-absent",
        False,
        "two writers could write the same key",
        "deliver by the NameNode's own port (hdfs://): this server ignores rename options",
    )


def _rename(lake: Lake, key: str) -> Examined:
    lake.rename_new(key, f"{key}-moved")
    return Examined("rename", True, "files can be moved")


def _delete(lake: Lake, key: str) -> Examined:
    lake.delete(f"{key}-moved")
    return Examined("delete", True, "files can be deleted")
