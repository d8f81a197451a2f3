"""`python -m pipeline.training run SPEC OUT`: a training as a child of whoever runs jobs.

SPEC is JSON; OUT a folder that this process alone writes: metrics.jsonl, log.txt, snapshots/N/, model.json.  SIGKILL is
safe at any instant: the same command goes on to the bit.  Exit codes: 0 done, 2 specification, 3 diverged, 4 ESTOP,
71 memory, 75 stopped with a snapshot.
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
from pipeline.training import job, specification
from pipeline.training.loop import Ending

USAGE = "usage: python -m pipeline.training run SPEC OUT\n"
USAGE_CODE, MEMORY, LEFT = 2, 71, 75


def main(words: Sequence[str]) -> int:
    """Returns the exit code."""
    if len(words) != 3 or words[0] != "run":
        sys.stderr.write(USAGE)
        return USAGE_CODE
    spec, out = Path(words[1]).resolve(), Path(words[2]).resolve()
    try:
        return _run(spec, out)
    except PipelineError as error:
        said = [f"{name}: {text}\n" for name, text in (("  detail", error.detail), ("  hint", error.hint)) if text]
        sys.stderr.write("".join([f"training: {error.message}\n", *said]))
        return error.exit_code
    except MemoryError:
        sys.stderr.write("training: out of memory\n")
        return MEMORY


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
