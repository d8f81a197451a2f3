"""The file that spark-submit takes: `hathi spark` with the same options (docs/spark.md), or `hathi train ...`."""

from __future__ import annotations

import sys

from pipeline.cli.main import main

if __name__ == "__main__":
    words = sys.argv[1:]
    caffeonsparks = {"-conf", "--conf"} & set(words)  # `hathi spark train` takes them
    sys.exit(main(words if words[:1] == ["train"] and not caffeonsparks else ["spark", *words]))
