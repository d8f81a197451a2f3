"""An archive as whoever imports it has it: pictures and rejected entries, while a child reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.amounts import counted
from pipeline.errors import LawBroken, PipelineError
from pipeline.process.channel import Gone
from pipeline.process.child import Child, Ended, python_of
from pipeline.process.life import OUT_OF_MEMORY
from pipeline.service.archive.entries import Limits, Picture, Refused, Rejected

DEATHS = 8
"""After so many deaths of its readers an archive is refused."""
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "TZ")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """What a reader of strangers' bytes has of our environment: no key, no token, no proxy."""
    return {name: given[name] for name in _ENVIRONMENT if name in given} | _ONE_THREAD


def read(path: Path, limits: Limits | None = None) -> Iterator[Picture | Rejected]:
    """Every entry of a tar, tar.gz or zip but its folders, in the archive's order.

    An entry whose reading ends the child is `poison`; another child goes on behind it.
    Raises Refused for an archive of which nothing is to be taken: what came before is then to be thrown away;
    LawBroken where an entry is lost.
    """
    reader = _Reader(path, limits or Limits())
    while not reader.ended:
        yield from reader.life()


class _Reader:
    def __init__(self, path: Path, limits: Limits) -> None:
        self._ask: dict[str, Any] = {"path": os.path.abspath(path), "limits": asdict(limits)}
        self._next = 0
        self._told = self._deaths = 0
        self._careful = False
        self._poison: list[int] = []
        self.ended = False

    def life(self) -> Iterator[Picture | Rejected]:
        """What one child tells."""
        at: int | None = None
        with Child(python_of("pipeline.service.archive.child"), environment(os.environ)) as child:
            try:
                child.channel.send(**self._ask, first=self._next, careful=self._careful, poison=self._poison)
                while True:
                    said, content = child.channel.receive()
                    if "failed" in said:
                        raise _failed(said["failed"])
                    if said["kind"] == "at":
                        at = said["number"]
                        continue
                    if said["kind"] == "refused":
                        raise Refused(said["reason"], said["detail"], said["hint"])
                    if said["kind"] == "end":
                        self._end(said)
                        return
                    for one in _found(said, content):
                        self._next, self._told = one.number + 1, self._told + 1
                        yield one
            except Gone:
                self._died(child.wait(), at)

    def _died(self, end: Ended, at: int | None) -> None:
        self._deaths += 1
        again = at is not None or not self._careful
        if self._deaths > DEATHS or not again or not (end.by_itself or end.code == OUT_OF_MEMORY):
            raise Refused("process", f"it {end.story}")
        if at is not None:
            self._poison.append(at)
        self._careful = at is None

    def _end(self, said: Mapping[str, Any]) -> None:
        self.ended = True
        if self._told + said["folders"] != said["entries"]:
            entries = counted(said["entries"], "entry", "entries")
            raise LawBroken(
                "an archive lost entries",
                f"{entries}, of which folders {said['folders']:,} and told {self._told:,}",
                "nothing was made; this is a bug in Hathi: please report it",
            )


def _failed(words: Mapping[str, Any]) -> PipelineError:
    return PipelineError(words["message"], words["detail"], words["hint"])


def _found(said: Mapping[str, Any], content: bytes) -> Iterator[Picture | Rejected]:
    if said["kind"] == "rejected":
        for number, name, reason, detail, path in said["rejected"]:
            yield Rejected(number, name, reason, detail, tuple(path))
    else:
        yield Picture(
            said["number"], tuple(said["path"]), content, bytes.fromhex(said["sha256"]), said["form"], said["width"],
            said["height"],
        )  # fmt: skip
