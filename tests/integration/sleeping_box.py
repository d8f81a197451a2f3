"""`hathi` with a net that sleeps: `python -m tests.integration.sleeping_box SECONDS WORDS...`

A box whose time goes into waiting shows how boxes share work, however few cores they stand on.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from numpy.typing import NDArray

from pipeline.cli.main import main
from pipeline.extraction import feature_maker
from pipeline.nets.expected import expected
from pipeline.settings import FeatureSet


class Sleeper:
    """A net of 16 images a pass and 8 numbers a row."""

    seconds = 0.0
    dim, batch_size, input_size, channels = 8, 16, (8, 8), 3
    engine = "sleeping"
    warnings: tuple[str, ...] = ()
    preprocessing = "as it comes"
    lacking, mean = "", None

    def __init__(self, feature_set: FeatureSet, threads: int = 0) -> None:
        self.preprocess = feature_set.preprocess
        self.fingerprint = expected(feature_set)  # as the gateway expects it

    def forward(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        time.sleep(self.seconds)
        return batch.reshape(len(batch), -1)[:, : self.dim].copy()


if __name__ == "__main__":
    Sleeper.seconds = float(sys.argv[1])
    feature_maker.FeatureNet = Sleeper  # type: ignore[assignment,attr-defined,misc]
    sys.exit(main(sys.argv[2:]))
