"""`python -m pipeline.training run SPEC OUT`: a training as a child of whoever runs jobs; `check SPEC`: its price.

SPEC is JSON; OUT a folder that this process alone writes: metrics.jsonl, log.txt, snapshots/N/, model.json.  SIGKILL is
safe at any instant: the same command goes on to the bit.  Exit codes: 0 done, 2 specification, 3 diverged, 4 ESTOP,
71 memory, 75 stopped with a snapshot.  `check` prints one JSON object; its exit code is 2 where something is refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from pipeline.errors import PipelineError
from pipeline.nets.caffe.writing import replacing
from pipeline.process.lock import refuse_estop
from pipeline.training import job, price, specification
from pipeline.training.loop import Ending

USAGE = "usage: python -m pipeline.training run SPEC OUT\n       python -m pipeline.training check SPEC\n"
REFUSED, MEMORY, LEFT = 2, 71, 75


def main(words: Sequence[str]) -> int:
    """Returns the exit code."""
    if [len(words), *words[:1]] not in ([3, "run"], [2, "check"]):
        sys.stderr.write(USAGE)
        return REFUSED
    paths = [Path(word).resolve() for word in words[1:]]
    try:
        return _check(*paths) if words[0] == "check" else _run(*paths)
    except PipelineError as error:
        said = [f"{name}: {text}\n" for name, text in (("  detail", error.detail), ("  hint", error.hint)) if text]
        sys.stderr.write("".join([f"training: {error.message}\n", *said]))
        return error.exit_code
    except MemoryError:
        sys.stderr.write("training: out of memory\n")
        return MEMORY


def _check(spec: Path) -> int:
    found = price.check(spec)
    sys.stdout.write(json.dumps(found.as_json()) + "\n")
    return REFUSED if found.refused else 0


def _run(spec: Path, out: Path) -> int:
    read = specification.read(spec)
    if read.estop is not None:
        refuse_estop(read.estop)
    out.mkdir(parents=True, exist_ok=True)
    with specification.in_folder(read.folder), (out / "log.txt").open("a", buffering=1) as file:
        ended = job.train(read.wanted, replace(job.in_folder(out, _line(file)), estop=read.estop))
    body = {"iteration": ended.iteration, "model": str(ended.model.relative_to(out)) if ended.model else None,
            "ended": ended.ending.value, **specification.preprocessing(read)}  # fmt: skip
    with replacing(out / "model.json") as model:
        model.write(json.dumps(body, indent=1).encode() + b"\n")
    return LEFT if ended.ending is Ending.LEFT else 0


def _line(file: TextIO) -> Callable[[str], None]:
    def write(line: str) -> None:
        file.write(line)

    return write


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
