"""The file that spark-submit takes: `hathi spark` with the same options (docs/spark.md)."""

from __future__ import annotations

import sys

from pipeline.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["spark", *sys.argv[1:]]))
