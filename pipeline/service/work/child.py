"""`python -m pipeline.service.work.child FOLDER PARENT`: one attempt at a training, with what its folder holds alone.

Exit codes: those of `python -m pipeline.training`; NO_ENGINE where torch is not installed, NO_DATA for an input that
cannot be used, NO_ROOM where the disk takes no more.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from pipeline.errors import FormatError, PipelineError
from pipeline.process.installed import to_install
from pipeline.service.work.confined import enter
from pipeline.service.work.room import NO_ROOM, is_full

NO_ENGINE, NO_DATA = 78, 79


def main(folder: Path, parent: int) -> int:
    """The exit code."""
    enter(folder, parent)
    for package in ("torch", "lmdb"):
        if find_spec(package) is None:
            sys.stderr.write(f"this host cannot train: {package} is not installed; {to_install('training')}\n")
            return NO_ENGINE
    from pipeline.service.work import describing, evaluating, preparing
    from pipeline.training.__main__ import REFUSED, run, told

    try:
        preparing.prepare(Path())
        describing.describe(Path())
    except (PipelineError, OSError) as error:
        if isinstance(error, OSError) and not is_full(error):
            raise
        sys.stderr.write(f"{error}\n")
        if is_full(error):
            return NO_ROOM
        return NO_DATA if isinstance(error, FormatError) else REFUSED
    try:
        code = run(Path(preparing.SPEC).absolute(), Path(preparing.OUT).absolute())
    except PipelineError as error:
        code = told(error)
        return NO_ROOM if is_full(error) else code
    if code == 0:
        try:
            evaluating.evaluate(Path())
        except (FormatError, OSError) as error:  # the model is there all the same
            sys.stderr.write(f"what the last test says of its examples cannot be kept: {error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
