"""The file that spark-submit takes: `hathi spark` with the same options (docs/spark.md), or `hathi train ...`."""

from __future__ import annotations

import sys

from pipeline.cli.main import main
from pipeline.cli.spark_train import submitted

if __name__ == "__main__":
    sys.exit(main(submitted(sys.argv[1:])))
