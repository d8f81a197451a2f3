"""`hathi dataset make`: a dataset of labels and of what a set delivers."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.amounts import counted
from pipeline.app.installation import default_config
from pipeline.errors import ConfigError, PermanentError
from pipeline.process.logs import escape
from pipeline.settings import ItemColumns, Settings, load

if TYPE_CHECKING:
    from pipeline.ledger.layout import Root
    from pipeline.stores.store import Lake
    from pipeline.training.dataset.making import Wanted
    from pipeline.training.dataset.manifest import Manifest

RULES = ("refuse", "first", "last", "leave-out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi dataset make`."""
    parser.add_argument("out", type=Path, metavar="NAME", help="the folder to make")
    parser.add_argument(
        "--labels", required=True, nargs="+", metavar="TABLE",
        help="tables of labels, in any format of refs with columns: files, folders, or hdfs://host:port/path",
    )  # fmt: skip
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", metavar="SET", help='a set of net = "image", or the root that it delivers to')
    source.add_argument("--features", metavar="SET", help="a set with a net, or its root: a dataset of features")
    parser.add_argument("--lake", help="the lake of the set, where there are several")
    parser.add_argument("--config", type=Path, help="the configuration file, where SET is a name of it")
    parser.add_argument("--label", default="", metavar="NAME", help="the column of labels (default: label, class)")
    parser.add_argument("--external-id-column", metavar="NAME", help="the column of the shop's own ids")
    parser.add_argument("--item-id-column", metavar="NAME", help="the column of item ids")
    parser.add_argument("--partner-column", metavar="NAME", help="the column of partners")
    parser.add_argument("--partner", type=int, metavar="N", help="the partner of rows that name none (default: 0)")
    parser.add_argument(
        "--ids", choices=("normalised", "as_written"), default="normalised", help="as of the source of refs"
    )
    parser.add_argument(
        "--split", metavar="A/B/C",
        help="shares of train, validation and test, or of train and test (default: 80/10/10)",
    )  # fmt: skip
    parser.add_argument(
        "--by", choices=("class", "content"), default="class",
        help="class: each class has its exact shares; content: the side follows from the picture (default: class)",
    )  # fmt: skip
    parser.add_argument("--split-column", metavar="NAME", help="a column of the labels says the side")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of sides and order (default: 0)")
    parser.add_argument(
        "--two-labels", choices=RULES, default="refuse",
        help="what becomes of an item with two labels (default: refuse)",
    )  # fmt: skip
    parser.add_argument("--extend", type=Path, metavar="DATASET", help="keep the examples and sides of this dataset")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """0."""
    from pipeline.app.dataset_sources import root_of, tables_of
    from pipeline.training.dataset.delivered import Deliveries, Place
    from pipeline.training.dataset.making import make
    from pipeline.training.dataset.manifest import read_manifest

    wanted = _wanted(args)
    named, kind = (args.images, "images") if args.images else (args.features, "features")
    lake, root, where = root_of(_settings(args.config), named, args.lake)
    before = read_manifest(args.extend).fingerprints if args.extend is not None else ()
    deliveries = Deliveries(Place(lake, root, where), "images" if kind == "images" else "features", before)
    for path in (args.out, args.extend):
        if path is not None:
            _note(lake, root, path, anew=path is args.out)
    made = make(args.out, deliveries, tables_of(args.labels), wanted)
    _note(
        lake, root, args.out, anew=False
    )  # who was forgotten before the folder was there took the record for an old one
    tell(args.out, made, as_json=args.json)
    return 0


def tell(out: Path, made: Manifest, *, as_json: bool) -> None:
    """Prints what a dataset holds, and what is odd about it."""
    for text in made.warnings:
        print(f"warning: {escape(text)}", file=sys.stderr)
    if as_json:
        print(json.dumps(_object(out, made)))
    else:
        print("\n".join(map(escape, _lines(out, made))))


def _note(lake: Lake, root: Root, path: Path, *, anew: bool) -> None:
    """Tell the root of a dataset, before anything of it is read: `hathi forget` looks there."""
    from pipeline.ledger.made import note_made

    try:
        note_made(lake, root, "dataset", path, anew=anew)
    except PermanentError as error:
        what = f"{root.mades} cannot be written ({error.message}): `hathi forget` will not find {path}"
        print(f"warning: {escape(what)}", file=sys.stderr)


def _settings(given: Path | None) -> Settings | None:
    """The configuration, where there is one."""
    path = given or default_config()
    return load(path, os.environ) if given is not None or path.is_file() else None


def _wanted(args: argparse.Namespace) -> Wanted:
    from pipeline.training.dataset.labels import Asked
    from pipeline.training.dataset.making import DEFAULT, Wanted
    from pipeline.training.dataset.manifest import Split
    from pipeline.training.dataset.sides import split_of

    if args.split_column and args.split:
        raise ConfigError("--split and --split-column say two things", "", "leave one of them out")
    if not 0 <= args.seed < 2**63:
        raise ConfigError(f"--seed {args.seed}", "it is less than 0, or too great", "a whole number from 0 on")
    split = None
    if args.split_column:
        split = Split(by="column", seed=args.seed, column=args.split_column)
    elif args.split or args.extend is None:
        split = split_of(args.split or DEFAULT, args.by, args.seed)
    names = {"external_id": args.external_id_column, "item_id": args.item_id_column, "partner_id": args.partner_column}
    columns = ItemColumns.model_validate({name: [given] for name, given in names.items() if given})
    asked = Asked(args.label, args.split_column or "", columns, args.partner, args.ids == "as_written")
    return Wanted(asked, split, args.two_labels, args.extend)


def _object(out: Path, made: Manifest) -> dict[str, Any]:
    assert made.law is not None
    law = made.law.model_dump(mode="json")
    return {
        "dataset": str(out),
        "kind": made.kind,
        **law,
        "classes": made.classes,
        "labels": made.labels,
        "sides": {name: side.model_dump(mode="json") for name, side in made.sides.items()},
        "warnings": made.warnings,
    }


def _lines(out: Path, made: Manifest) -> list[str]:
    from pipeline.training.dataset.law import table_of
    from pipeline.training.dataset.telling import smallest

    assert made.law is not None
    told = table_of(made.law)
    wide = max(len(what) for what, _ in told)
    long = max(len(f"{count:,}") for _, count in told)
    name, least = smallest(made)
    sides = ", ".join(f"{side} {of.examples:,}" for side, of in made.sides.items())
    return [
        f"{out}: {counted(made.examples, 'example')} of {made.kind}",
        *(f"{what:<{wide}}  {count:>{long},}" for what, count in told),
        f"sides: {sides}",
        f"classes: {len(made.labels)}; the smallest: {name} with {least:,}",
    ]
