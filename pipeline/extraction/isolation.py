"""A batch alone in a child process, halved until one item is found that kills it (docs/protocol.md 5).

Parent and child share a folder, not memory: refs go in as a protobuf batch, a shard comes out.  The child works under a
memory limit.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from pipeline.clock import Clock
from pipeline.codec import image_refs
from pipeline.codec.shards import FailureRow, FeatureRow, Matrix, Shard, write_failures, write_features
from pipeline.errors import NetError, Stopped
from pipeline.extraction.same_net import same_net
from pipeline.extraction.window import Computed, Opened, failure_row
from pipeline.process.channel import Channel
from pipeline.process.child import Child, Ended, python_of
from pipeline.process.host import this_process
from pipeline.process.life import limit_memory, live
from pipeline.process.scratch import SPILL, scratch
from pipeline.records import Failure, ImageRef
from pipeline.settings import Settings, travelling

T = TypeVar("T")
START_SECONDS = 120.0
REFS = "refs.pb"


@dataclass(frozen=True)
class Part:
    """What a child made of some refs."""

    rows: tuple[FeatureRow, ...]
    matrix: Matrix
    failures: tuple[FailureRow, ...]


RunChild = Callable[[Sequence[ImageRef]], Part | Ended]
"""Refs -> what a child made of them, or how it died."""


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

        def run_child(part: Sequence[ImageRef]) -> Part | Ended:
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
        if isinstance(made, Part):
            parts.append(made)
            continue
        if not checked and isinstance(empty := run_child([]), Ended):
            trouble = f"the child process died before it saw an image: it {empty.story}"
            return Computed(task, (), np.empty((0, dim), np.float32), (), 0, 0.0, trouble)
        checked = True
        if len(some) == 1:
            failure = Failure.of("poison", f"the process that computed this image alone {made.how}")
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
) -> Part | Ended:
    with tempfile.TemporaryDirectory(prefix="alone-", dir=spill) as made:  # complete URLs: for this user alone
        folder = Path(made)
        (folder / REFS).touch(mode=0o600)
        (folder / REFS).write_bytes(image_refs.encode(refs))
        asked = {
            "settings": travelling(settings),  # secrets touch no disk
            "set": set_name,
            "fingerprint": fingerprint,
            "folder": made,
            "ordinals": [ref.ordinal for ref in refs],
        }
        limit = START_SECONDS + (settings.fetch.batch_seconds if refs else 0.0)
        with Child(python_of("pipeline.extraction.isolation", made)) as child:
            told, end = child.run(asked, limit, noted)
        said = {name: value for message in told for name, value in message.items()}
        if end.told_to_end:
            raise Stopped(detail="a child process was told to stop", hint="the next start computes its batch")
        if "failed" in said and "loaded" not in said:
            failed = said["failed"]
            raise NetError(failed["message"], failed["detail"], failed["hint"])
        if end.code != 0 or "done" not in said:
            return end
        if fingerprint:
            same_net(set_name, fingerprint, said["loaded"])
        return _read(folder, dim)


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


def _work(channel: Channel) -> None:
    """What a child does."""
    os.umask(0o077)

    from pipeline.extraction.feature_maker import FeatureMaker

    told, _ = channel.receive()
    settings = Settings.model_validate_json(told["settings"])
    limit_memory(settings.compute.alone_bytes)
    folder = Path(told["folder"])
    plain = image_refs.decode((folder / REFS).read_bytes())
    refs = [ref._replace(ordinal=ordinal) for ref, ordinal in zip(plain, told["ordinals"], strict=True)]
    maker = FeatureMaker(settings, told["set"], Clock())
    if told["fingerprint"]:
        same_net(told["set"], told["fingerprint"], maker.fingerprint)
    channel.send(loaded=maker.fingerprint)
    stream = maker.window({"alone": [refs]}, lambda refs: Opened(refs, refs), lambda: True)
    for computed in stream:
        if computed is None:
            continue
        if computed.trouble:
            sys.exit(computed.trouble)
        if computed.rows:
            write_features(folder / "features", computed.rows, computed.matrix)
        if computed.failures:
            write_failures(folder / "failures", computed.failures)
    channel.send(done=True)


if __name__ == "__main__":
    live(_work)
