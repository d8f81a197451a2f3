"""`hathi spark features`: a table of images that Spark reads becomes a table with their features."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.amounts import counted
from pipeline.cli.wiring import given_set, set_options
from pipeline.cli.wiring.given_set import Given
from pipeline.cli.wiring.numbers import number_from
from pipeline.errors import ConfigError, PipelineError
from pipeline.settings import load_fetch

if TYPE_CHECKING:
    from pipeline.cluster.frames import Written

FORMATS = ("parquet", "json", "csv", "orc", "binaryFile")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words are CaffeOnSpark's where they mean the same, with one dash or with two (docs/spark.md)."""
    option = parser.add_argument
    option("table", metavar="TABLE", help="what Spark reads: a path or a URL, or a pattern of them")
    option("-output", "--output", required=True, metavar="DIR", help="the folder to write; it must not be there")
    option("-features", "--features", "--blob", dest="blob", required=True, metavar="BLOB",
           help="the blob that is the feature")  # fmt: skip
    option("-net", "--net", required=True, metavar="FILE", help="a deploy .prototxt, an .onnx model, or hog")
    option("-model", "--model", "-weights", "--weights", dest="weights", metavar="FILE",
           help="the .caffemodel of a .prototxt")  # fmt: skip
    option("-label", "--label", action="append", default=[], metavar="COLUMNS",
           help="the columns that are kept, with commas between them (default: all but images)")  # fmt: skip
    option("-outputFormat", "--output-format", default="parquet", choices=("parquet", "json"))
    option("--input-format", default="parquet", choices=FORMATS,
           help="how the table is read (default: parquet); binaryFile: a folder of images")  # fmt: skip
    option("--column", metavar="NAME",
           help="URLs, as texts, or images, as bytes (default: url; of binaryFile: content)")  # fmt: skip
    set_options.add_arguments(parser)
    option("--set", action="append", default=[], metavar="KEY=VALUE",
           help=f"a setting of the feature set: {set_options.FORMS}")  # fmt: skip
    option("--config", type=Path, help="a configuration: its [fetch], and presets of your own")
    option("--allow-private", action="store_true", help="also fetch from private networks and from any port")
    option("--partitions", type=number_from(0), default=0, metavar="N", help="default: 0: the cluster's slots")
    option("--overwrite", action="store_true", help="replace the folder of --output")
    option("--master", help="the master of the cluster, e.g. yarn or local[4] (default: that of spark-submit)")
    option("--json", action="store_true", help="print a summary as one JSON object")


def run(args: argparse.Namespace) -> int:
    """0; images without a feature are rows with their failure."""
    if "," in args.blob:
        raise ConfigError(f"--features {args.blob}", "one blob is the feature of a table",
                          "compute a table for each blob, and join them by a column")  # fmt: skip
    from pipeline.cluster.frames import Table, write
    from pipeline.cluster.spark import open_session

    given = Given(args.net, args.weights, args.blob, tuple(args.set), set_options.values(args))
    chosen = given_set.feature_set(given, args.config)
    fetch = load_fetch(args.config, os.environ, {"fetch.allow_private": True} if args.allow_private else {})
    column = args.column or ("content" if args.input_format == "binaryFile" else "url")
    kept = tuple(name for text in args.label for name in set_options.names(text))
    table = Table(
        args.table, args.input_format, column, args.output, args.output_format, kept, args.overwrite, args.partitions
    )
    with open_session(args.master) as session:
        written = write(session, table, chosen, fetch)
    print(_told(args.output, written, args.json))
    return 0 if written.features or not written.rows else PipelineError.exit_code


def _told(output: str, written: Written, as_json: bool) -> str:
    if as_json:
        return json.dumps({
            "output": output, "rows": written.rows, "features": written.features, "failures": dict(written.failures),
            "fingerprint": written.loaded.fingerprint, "engine": written.loaded.engine,
        })  # fmt: skip
    lines = [f"{output}: {counted(written.features, 'feature')} of {counted(written.rows, 'row')}; "
             f"net {written.loaded.fingerprint[:12]} on {written.loaded.engine}"]  # fmt: skip
    return "\n".join([*lines, *(f"  no feature: {reason} {number:,}" for reason, number in written.failures.items())])
