"""How the net of a training serves, told before the training begins, while its inputs are at hand."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.nets.caffe.writing import replacing
from pipeline.service.neutral import neutral, within
from pipeline.service.work.preparing import OUT, SERVING, SOLVER
from pipeline.training.deploying import deployed
from pipeline.training.solver import Flags, read


def describe(folder: Path) -> None:
    """Writes `out/serving.json` of the prepared training in the current folder: how it serves, or why it does not.

    What cannot be trained at all is told by the training, which comes next.  Raises OSError.
    """
    try:
        content = deployed(read(folder / SOLVER, Flags())).written()
    except PipelineError as error:
        content = json.dumps({"refused": neutral(within(str(error), str(folder.absolute())))[:500]}).encode()
    (folder / OUT).mkdir(exist_ok=True)
    with replacing(folder / OUT / SERVING) as file:
        file.write(content)
