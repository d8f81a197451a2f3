"""`python -m pipeline.training run SPEC OUT`: a training as a child of whoever runs jobs; `check SPEC`: its price.

SPEC is JSON; OUT a folder that this process alone writes: metrics.jsonl, log.txt, snapshots/N/, model.json.  SIGKILL is
safe at any instant: the same command goes on to the bit.  Exit codes: 0 done, 2 specification, 3 diverged, 4 ESTOP,
71 memory, 75 stopped with a snapshot.  `check` prints one JSON object; its exit code is 2 where something is refused.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import FileIO
from pathlib import Path

from pipeline.errors import PipelineError, SolverError
from pipeline.nets.caffe.writing import replacing
from pipeline.process.interrupts import keep_interrupts
from pipeline.process.lock import refuse_estop
from pipeline.process.streams import with_standard_streams
from pipeline.training import job, price, specification
from pipeline.training.saving import unwritten
from pipeline.training.surroundings import Ending

USAGE = "usage: python -m pipeline.training run SPEC OUT\n       python -m pipeline.training check SPEC\n"
DONE, REFUSED, LEFT = 0, 2, 75


def main(words: Sequence[str]) -> int:
    """Returns the exit code."""
    if [len(words), *words[:1]] not in ([3, "run"], [2, "check"]):
        sys.stderr.write(USAGE)
        return REFUSED
    paths = [Path(word).resolve() for word in words[1:]]
    try:
        return _check(*paths) if words[0] == "check" else run(*paths)
    except PipelineError as error:
        return told(error)


def told(error: PipelineError) -> int:
    """Says on standard error why a training ended; its exit code."""
    said = [f"{name}: {text}\n" for name, text in (("  detail", error.detail), ("  hint", error.hint)) if text]
    sys.stderr.write("".join([f"training: {error.message}\n", *said]))
    return error.exit_code


def _check(spec: Path) -> int:
    found = price.check(spec)
    sys.stdout.write(json.dumps(found.as_json()) + "\n")
    return REFUSED if found.refused else 0


def run(spec: Path, out: Path) -> int:
    """Trains as SPEC says; DONE or LEFT.  spec, out: absolute.  Raises PipelineError."""
    read = specification.read(spec)
    if read.estop is not None:
        refuse_estop(read.estop)
    with specification.in_folder(read.folder), _log(out) as file:
        ended = job.train(read.wanted, replace(job.in_folder(out, _line(file)), estop=read.estop))
    body = {"iteration": ended.iteration, "model": str(ended.model.relative_to(out)) if ended.model else None,
            "ended": ended.ending.value, **specification.preprocessing(read)}  # fmt: skip
    try:
        with replacing(out / "model.json") as model:
            model.write(json.dumps(body, indent=1).encode() + b"\n")
    except OSError as error:
        raise unwritten(str(out / "model.json"), error) from error
    return LEFT if ended.ending is Ending.LEFT else DONE


def _log(out: Path) -> FileIO:
    """OUT's log, open to write on.  Raises SolverError where OUT cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.statvfs(out).f_bavail:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return (out / "log.txt").open("ab", buffering=0)
    except OSError as error:
        hint = "make room there, give the right to write, or name another folder"
        raise SolverError(f"the folder {out} cannot be written", error.strerror or str(error), hint) from error


def _line(file: FileIO) -> Callable[[str], None]:
    def write(line: str) -> None:
        try:
            file.write(line.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise unwritten("log.txt", error) from error

    return write


if __name__ == "__main__":
    keep_interrupts()
    with_standard_streams()
    sys.exit(main(sys.argv[1:]))
