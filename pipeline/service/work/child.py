"""`python -m pipeline.service.work.child FOLDER PARENT`: one attempt at a training, with what its folder holds alone.

Exit codes: those of `python -m pipeline.training`; NO_ENGINE where torch is not installed, NO_DATA for an input that
cannot be used.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from pipeline.errors import FormatError, PipelineError
from pipeline.process.installed import to_install
from pipeline.service.work.confined import enter

NO_ENGINE, NO_DATA = 78, 79


def main(folder: Path, parent: int) -> int:
    """The exit code."""
    enter(folder, parent)
    for package in ("torch", "lmdb"):
        if find_spec(package) is None:
            sys.stderr.write(f"this host cannot train: {package} is not installed; {to_install('training')}\n")
            return NO_ENGINE
    from pipeline.service.work import describing, preparing
    from pipeline.training.__main__ import main as train

    try:
        preparing.prepare(Path())
        describing.describe(Path())
    except FormatError as error:
        sys.stderr.write(f"{error}\n")
        return NO_DATA
    except PipelineError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return train(["run", preparing.SPEC, preparing.OUT])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
