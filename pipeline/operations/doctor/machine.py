"""The machine below: disks, names, clocks, GPUs."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.process.child import asked
from pipeline.process.disk import standing
from pipeline.settings import Settings
from pipeline.stores.backends import backend_of
from pipeline.stores.store import Examined, Store

GB = 1e9
SMI_SECONDS = 6.0
QUERY = ["--query-gpu=name,memory.total,memory.used,compute_cap", "--format=csv,noheader,nounits"]


def disk(folder: Path, percent: float) -> Iterator[Examined]:
    """Room, inodes and rights of a folder, or of the nearest one above it that is there."""
    there = standing(folder)
    usage = shutil.disk_usage(there)
    full = 100.0 * usage.used / max(1, usage.used + usage.free)
    said = f"{folder}: {usage.free / GB:.1f} GB free, {full:.0f} % full"
    yield Examined("room", full <= percent, said, "" if full <= percent else "delete what is not needed on that disk")
    inodes = os.statvfs(there)
    if inodes.f_files:
        used = 100.0 * (1 - inodes.f_favail / inodes.f_files)
        hint = "" if used <= percent else "delete small files on that disk"
        yield Examined("inodes", used <= percent, f"{folder}: {used:.0f} % used", hint)
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".hathi-doctor-"):
            pass
    except OSError as error:
        hint = "give this user the right to write there, or set another folder"
        yield Examined("rights", False, f"{there} cannot be written: {error.strerror}", hint)
    else:
        yield Examined("rights", True, f"{folder} can be written")


def hosts(settings: Settings, lakes: bool) -> list[str]:
    """The hosts that the stores' settings name."""
    found: set[str] = set()
    for url in (settings.bucket.url, *(lake.url for lake in settings.lakes.values() if lakes)):
        backend = backend_of(url) if url is not None else None
        if url is not None and backend is not None:
            found |= set(backend.hosts(url, settings.bucket))
    return sorted(found)


def names(wanted: list[str]) -> Iterator[Examined]:
    """Whether each host has an address."""
    for host in wanted:
        try:
            addresses = sorted({str(one[4][0]) for one in socket.getaddrinfo(host, None)})
        except (OSError, UnicodeError) as error:
            hint = "correct the name in the configuration, or repair name resolution (/etc/resolv.conf, /etc/hosts)"
            yield Examined("resolve", False, f"{host}: {error}", hint)
        else:
            yield Examined("resolve", True, f"{host}: {', '.join(addresses[:3])}")


def clock(name: str, opened: Callable[[], Store], limit: float, now: Callable[[], float]) -> Iterator[Examined]:
    """This host's clock against a store's.  limit: seconds."""
    try:
        before = now()
        theirs = opened().list("doctor-clock/", folders=True).now
    except PipelineError as error:
        yield Examined("clock", False, f"the {name} does not answer: {error.message}", error.hint)
        return
    skew = theirs - (before + now()) / 2
    hint = "" if abs(skew) <= limit else "set the clock: chronyc makestep, or start chronyd or ntpd"
    yield Examined("clock", not hint, f"the clock of the {name} differs by {skew:+.1f} s from this host's", hint)


def gpus(needed: bool, program: str = "nvidia-smi", seconds: float = SMI_SECONDS) -> Iterator[Examined]:
    """What the driver says, if it says anything in time.  needed: a set's engine wants one."""
    path = shutil.which(program)
    if path is None:
        hint = 'install the driver, or set engine = "auto"' if needed else ""
        yield Examined("driver", not needed, f"{program} is not installed: no GPU is used", hint)
        return
    code, said = asked([path, *QUERY], seconds)
    if code is None:
        hint = "the driver hangs: read the reason in dmesg (Xid), then reboot the host"
        yield Examined("driver", False, f"{program} does not answer within {seconds:.0f} s", hint)
        return
    lines = [line for line in said.splitlines() if line.strip()]
    if code or not lines:
        text = lines[0].strip() if lines else "it names no GPU"
        hint = "load the driver (modprobe nvidia); after an upgrade of the driver reboot"
        yield Examined("driver", not needed and not code, f"{program}: {text}", hint if needed or code else "")
        return
    for number, line in enumerate(lines):
        yield _gpu(number, [field.strip() for field in line.split(",")])


def _gpu(number: int, fields: list[str]) -> Examined:
    """One line of the driver: name, memory in MiB (total, used), compute capability."""
    try:
        name, total, used, capability = fields
        free = (int(total) - int(used)) / 1024
    except ValueError:
        return Examined("GPU", True, f"{number}: {', '.join(fields)}")
    said = f"{number}: {name}, {free:.1f} of {int(total) / 1024:.1f} GiB free, compute capability {capability}"
    return Examined("GPU", True, said)
