"""A list of image URLs becomes one file of features, with the ids beside it.

    python examples/list_to_file.py urls.csv features.npy --net deploy.prototxt --weights x.caffemodel --blob fc7

urls.csv has a column `url`; `partner_id`, `item_id` or `external_id` say whose image it is.  FILE ends in .npy (the
values; features.ids.parquet has the ids, row for row) or in .parquet (both in one table).  Interrupted, the same
command goes on: what is computed lies in a folder beside FILE.  Without --net it is OpenCV's HOG, without weights.
Further options are those of `hathi run`, such as --preprocess imagenet or --allow-private.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq


def main() -> int:
    """0; the exit code of `hathi run` where it did not do all of the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", help="CSV, TSV, JSON lines, Parquet, or one URL a line")
    parser.add_argument("file", type=Path, help="what is written: .npy or .parquet")
    parser.add_argument("--net", default="hog")
    parser.add_argument("--weights")
    parser.add_argument("--blob")
    args, more = parser.parse_known_args()

    folder = args.file.with_suffix(".hathi-run")
    command = [Path(sys.executable).with_name("hathi"), "run", "--refs", args.list, "--features", folder]
    command += ["--net", args.net, "--out", args.file, *more]
    for name in ("weights", "blob"):
        if getattr(args, name):
            command += [f"--{name}", getattr(args, name)]
    code = subprocess.run(command, check=False).returncode
    if code or not args.file.exists():
        return code or 1

    ids, values = read(args.file)
    print(f"{values.shape[0]} features of {values.shape[1]} values; the first is of {ids['external_id'][0]}")
    return 0


def read(file: Path) -> tuple[dict[str, list[object]], np.ndarray]:
    """Who, and the values (items, dim) float32, row for row, of a file that `--out` wrote."""
    if file.suffix == ".npy":
        return pq.read_table(file.with_suffix(".ids.parquet")).to_pydict(), np.load(file, mmap_mode="r")
    table = pq.read_table(file)
    values = table["features"].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
    return table.drop_columns(["features"]).to_pydict(), values


if __name__ == "__main__":
    sys.exit(main())
