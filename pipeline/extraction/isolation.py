"""A batch alone in a child process, halved until one item is found that kills it (docs/protocol.md 5).

Parent and child share a folder, not memory: refs go in as a protobuf batch, a shard comes out.  The child dies with
its parent and under a memory limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from pipeline.clock import Clock
from pipeline.codec import image_refs
from pipeline.codec.shards import FailureRow, FeatureRow, Matrix, Shard, write_failures, write_features
from pipeline.errors import ConfigError, NetError, Stopped
from pipeline.extraction.same_net import same_net
from pipeline.extraction.window import Computed, Opened, failure_row
from pipeline.process.forks import leave
from pipeline.process.host import die_with, leave_no_core, this_process
from pipeline.process.scratch import SPILL, scratch
from pipeline.records import Failure, ImageRef
from pipeline.settings import Settings, travelling

T = TypeVar("T")
START_SECONDS = 120.0


@dataclass(frozen=True)
class Part:
    """What a child made of some refs."""

    rows: tuple[FeatureRow, ...]
    matrix: Matrix
    failures: tuple[FailureRow, ...]


RunChild = Callable[[Sequence[ImageRef]], Part | None]
"""Refs -> what a child made of them; None when it died."""


def compute_alone(
    settings: Settings,
    set_name: str,
    task: T,
    refs: Sequence[ImageRef],
    dim: int,
    noted: Callable[[], None],
    clock: Clock,
    spill: Path | None = None,
    fingerprint: str = "",
) -> Computed[T]:
    """Run a batch in children of its own; what kills a child alone becomes a `poison` failure.

    noted: told each second that a child still has time.  spill: this process's folder for files on their way; None: one
    under the state folder, for this batch.  fingerprint: of the set as the caller has it loaded; any when empty.
    Raises Stopped when somebody else ends a child in good order, and NetError when a child, which loads the set anew,
    cannot load it or gets another net: that is no doing of the batch.
    """
    with contextlib.ExitStack() as held:
        own = spill or held.enter_context(scratch(Path(settings.state) / SPILL, this_process(clock).name))

        def run_child(part: Sequence[ImageRef]) -> Part | None:
            return _run_child(settings, set_name, part, dim, noted, own, fingerprint)

        return halve(run_child, task, refs, dim, clock)


def halve(run_child: RunChild, task: T, refs: Sequence[ImageRef], dim: int, clock: Clock) -> Computed[T]:
    """The batch from the children's parts; trouble when a child dies without any image."""
    began = clock.monotonic()
    parts: list[Part] = []
    waiting = [list(refs)]
    checked = False
    while waiting:
        some = waiting.pop()
        made = run_child(some)
        if made is not None:
            parts.append(made)
            continue
        if not checked and run_child([]) is None:
            return Computed(
                task, (), np.empty((0, dim), np.float32), (), 0, 0.0, "the child process died before it saw an image"
            )
        checked = True
        if len(some) == 1:
            failure = Failure.of("poison", "the process that computed this image alone died")
            parts.append(Part((), np.empty((0, dim), np.float32), (failure_row(some[0], failure),)))
        else:
            middle = len(some) // 2
            waiting += [some[middle:], some[:middle]]
    return _joined(task, parts, dim, clock.monotonic() - began)


def _joined(task: T, parts: Sequence[Part], dim: int, seconds: float) -> Computed[T]:
    rows = [row for part in parts for row in part.rows]
    failures = [row for part in parts for row in part.failures]
    matrix = np.concatenate([np.empty((0, dim), np.float32), *(part.matrix for part in parts)])
    return Computed(task, rows, matrix, failures, 0, seconds)


def _run_child(
    settings: Settings,
    set_name: str,
    refs: Sequence[ImageRef],
    dim: int,
    noted: Callable[[], None],
    spill: Path,
    fingerprint: str,
) -> Part | None:
    with tempfile.TemporaryDirectory(prefix="alone-", dir=spill) as made:  # complete URLs: for this user alone
        folder = Path(made)
        for name in ("set", "refs.pb", "ordinals"):
            (folder / name).touch(mode=0o600)
        (folder / "set").write_text(set_name)
        (folder / "fingerprint").write_text(fingerprint)
        (folder / "refs.pb").write_bytes(image_refs.encode(refs))
        (folder / "ordinals").write_text("\n".join(str(ref.ordinal) for ref in refs))
        limit = START_SECONDS + (settings.fetch.batch_seconds if refs else 0.0)
        # A group of its own: an interrupt from the keyboard is the parent's to judge, not the death of an item.
        words = [sys.executable, "-m", "pipeline.extraction.isolation", str(folder), str(os.getpid())]
        child = subprocess.Popen(words, process_group=0, stdin=subprocess.PIPE)
        try:
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError), child.stdin as pipe:  # secrets touch no disk
                pipe.write(travelling(settings).encode())
            code = _wait(child, limit, noted)
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            child.wait()
        if code in (-signal.SIGTERM, -signal.SIGINT):
            # A service manager stops children as well as us: that is no item's doing.
            raise Stopped("stopped", "a child process was told to stop", "its batch is computed at the next start")
        if (folder / "refused").exists():
            raise NetError(*json.loads((folder / "refused").read_text()))
        if code != 0 or not (folder / "done").exists():
            return None
        if fingerprint:
            same_net(set_name, fingerprint, (folder / "done").read_text())
        return _read(folder, dim)


def _wait(child: subprocess.Popen[bytes], seconds: float, noted: Callable[[], None]) -> int | None:
    """The child's exit code; None when it has not ended in time."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(1.0)
        noted()
    return None


def _read(folder: Path, dim: int) -> Part:
    rows: list[FeatureRow] = []
    blocks = [np.empty((0, dim), np.float32)]
    failures: list[FailureRow] = []
    if (folder / "features").exists():
        shard = Shard(folder / "features")
        for group in range(len(shard.starts) - 1):
            some, matrix = shard.features(group, dim)
            rows += some
            blocks.append(matrix)
    if (folder / "failures").exists():
        shard = Shard(folder / "failures")
        for group in range(len(shard.starts) - 1):
            failures += shard.failures(group)
    return Part(tuple(rows), np.concatenate(blocks), tuple(failures))


def _child(folder: Path, parent: int) -> None:
    """The child's whole life."""
    die_with(parent)
    leave_no_core(secret=True)
    os.umask(0o077)

    from pipeline.extraction.feature_maker import FeatureMaker

    settings = Settings.model_validate_json(sys.stdin.read())
    resource.setrlimit(resource.RLIMIT_DATA, (settings.compute.alone_bytes,) * 2)
    ordinals = [int(line) for line in (folder / "ordinals").read_text().split()]
    plain = image_refs.decode((folder / "refs.pb").read_bytes())
    refs = [ref._replace(ordinal=ordinal) for ref, ordinal in zip(plain, ordinals, strict=True)]
    name, fingerprint = (folder / "set").read_text(), (folder / "fingerprint").read_text()
    try:
        maker = FeatureMaker(settings, name, Clock())
        if fingerprint:
            same_net(name, fingerprint, maker.fingerprint)
    except (ConfigError, NetError) as error:
        (folder / "refused").write_text(json.dumps([error.message, error.detail, error.hint]))
        sys.exit(1)
    stream = maker.window({"alone": [refs]}, lambda refs: Opened(refs, refs), lambda: True)
    for computed in stream:
        if computed is None:
            continue
        if computed.trouble:
            sys.exit(1)
        if computed.rows:
            write_features(folder / "features", computed.rows, computed.matrix)
        if computed.failures:
            write_failures(folder / "failures", computed.failures)
    (folder / "done").write_text(maker.fingerprint)


if __name__ == "__main__":
    _child(Path(sys.argv[1]), int(sys.argv[2]))
    leave(0)
