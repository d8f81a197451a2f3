"""Make a dataset from the lake, image lists or databases; write it for Caffe, look at it, compute its mean image."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.amounts import counted
from pipeline.cli import dataset_make
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.training.dataset.examples import Example
    from pipeline.training.dataset.image_files import How
    from pipeline.training.dataset.summary import Summary

_NAMED = 10
_SIDE = "only this side of a dataset that has sides: train, validation, test, ..."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`hathi dataset make|import|export|show|mean ...`."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    dataset_make.add_arguments(actions.add_parser("make", help="make a dataset of labels and of what a set delivers"))
    bring = actions.add_parser("import", help="make a dataset of a list of images, an LMDB, a LevelDB or HDF5")
    bring.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="a list (`path label` a line), the folder of a database, an HDF5 file, or a list of such files",
    )
    bring.add_argument("out", type=Path, metavar="FOLDER", help="the folder to make")
    bring.add_argument("--lmdb", action="store_true", help="make an LMDB, as Caffe's convert_imageset does")
    bring.add_argument("--root", default="", metavar="TEXT", help="stands before each path of the list, as it is")
    bring.add_argument("--resize", type=_size, metavar="HxW", help="resize each image, e.g. 256x256")
    bring.add_argument("--gray", action="store_true", help="read images as grey")
    bring.add_argument("--shuffle", type=int, metavar="SEED", help="shuffle the list by this seed, as Caffe does")
    bring.add_argument(
        "--encode",
        nargs="?",
        const="",
        metavar="FORM",
        help="keep images encoded, in this form (default: the one that the file's name ends with)",
    )
    bring.add_argument("--check-size", action="store_true", help="refuse images of another size than the first")
    bring.add_argument("--skip", action="store_true", help="leave out images that cannot be read, and name them")
    export = actions.add_parser("export", help="write a dataset as an LMDB")
    export.add_argument("dataset", type=Path, metavar="DATASET", help="the folder of a dataset, an LMDB or a LevelDB")
    export.add_argument("out", type=Path, metavar="FOLDER", help="the LMDB to make")
    export.add_argument("--side", metavar="NAME", help=_SIDE)
    export.add_argument("--resize", type=_size, metavar="HxW",
                        help="decode each image and resize it, in colour, as for a net, e.g. 256x256")  # fmt: skip
    show = actions.add_parser("show", help="count examples, classes and sizes, and name what is damaged")
    show.add_argument("dataset", type=Path, metavar="DATASET", help="the folder of a dataset, an LMDB or a LevelDB")
    show.add_argument("--side", metavar="NAME", help=_SIDE)
    show.add_argument("--json", action="store_true", help="print one JSON object")
    mean = actions.add_parser("mean", help="compute the mean image, as Caffe's compute_image_mean does")
    mean.add_argument("dataset", type=Path, metavar="DATASET", help="the folder of a dataset, an LMDB or a LevelDB")
    mean.add_argument("out", type=Path, metavar="FILE", help="the .binaryproto to write")
    mean.add_argument("--side", metavar="NAME", help=_SIDE)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH")
    return int(height), int(width)


def run(args: argparse.Namespace) -> int:
    """0; `show`: 1 when something is damaged; `import --skip`: 1 when something was left out."""
    return {"make": dataset_make.run, "import": _import, "export": _export, "show": _show, "mean": _mean}[args.action](
        args
    )


def _import(args: argparse.Namespace) -> int:
    left_out: list[str] = []

    def skip(name: str, says: str) -> None:
        left_out.append(name)
        print(f"left out: {name}: {says}", file=sys.stderr)

    from pipeline.training.dataset import examples, hdf5_rows, image_files

    of_list: dict[str, object] = {
        "--root": args.root, "--resize": args.resize, "--gray": args.gray, "--shuffle": args.shuffle is not None,
        "--encode": args.encode is not None, "--check-size": args.check_size, "--skip": args.skip,
    }  # fmt: skip
    of_rows = hdf5_rows.is_source(args.source)
    if args.source.is_dir() or of_rows:
        given = [option for option, value in of_list.items() if value]
        if given:
            kind = "of HDF5" if of_rows else "a folder"
            raise ConfigError(f"{', '.join(given)} is for a list of images", f"{args.source} is {kind}", "leave it out")
        found = hdf5_rows.examples(args.source) if of_rows else examples.read(args.source)
    else:
        found = image_files.examples(args.source, _how(args), skip if args.skip else None)
    count = _write(args.out, found, args.lmdb, str(args.source))
    print(f"{args.out}: {counted(count, 'example')}" + (f", {len(left_out)} left out" if left_out else ""))
    return int(bool(left_out))


def _how(args: argparse.Namespace) -> How:
    from pipeline.training.dataset.image_files import How

    return How(args.root, args.resize, not args.gray, args.shuffle, args.encode, args.check_size)


def _write(out: Path, found: Iterator[Example], as_lmdb: bool, source: str) -> int:
    from pipeline.training.dataset import database, shards
    from pipeline.training.dataset.folders import whole

    with whole(out) as folder:
        if as_lmdb:
            count = database.write(folder, found)
        else:
            count = shards.write(folder, ((one.key, one.datum) for one in found), source)
        if not count:
            raise ConfigError(f"{out} was not made", "there is no example", "look at the source")
    return count


def _export(args: argparse.Namespace) -> int:
    from pipeline.training.dataset.examples import read
    from pipeline.training.dataset.forgetting import note_export
    from pipeline.training.dataset.resized import resized

    note_export(args.dataset, args.out, args.out)
    found = read(args.dataset, args.side)
    count = _write(args.out, resized(found, args.resize) if args.resize else found, True, "")
    print(f"{args.out}: {counted(count, 'example')}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from pipeline.training.dataset.examples import read
    from pipeline.training.dataset.summary import summary

    found = summary(read(args.dataset, args.side))
    sides = _sides(args.dataset) if args.side is None else {}
    if args.json:
        print(json.dumps({**vars(found), "damaged": [asdict(one) for one in found.damaged], "sides": sides}))
    else:
        print("\n".join(_lines(found, sides)))
    return int(bool(found.damaged))


def _sides(dataset: Path) -> dict[str, int]:
    """Examples by side; nothing where the dataset has none."""
    from pipeline.training.dataset.manifest import MANIFEST, read_manifest

    if not (dataset / MANIFEST).is_file():
        return {}
    return {name: one.examples for name, one in read_manifest(dataset).sides.items()}


def _lines(found: Summary, sides: dict[str, int]) -> list[str]:
    lines = [f"examples: {found.examples:,}"]
    if sides:
        lines.append("sides: " + ", ".join(f"{name} {count:,}" for name, count in sides.items()))
    if found.labels:
        ordered = sorted(found.labels.items())
        small, large = (pick(found.labels, key=lambda label: found.labels[label]) for pick in (min, max))
        lines.append(f"labels: {len(ordered)}, from {ordered[0][0]} to {ordered[-1][0]}")
        lines.append(
            f"smallest: label {small} with {found.labels[small]:,}; largest: label {large} with {found.labels[large]:,}"
        )
    for name, counts in (("size", found.sizes), ("form", found.forms)):
        lines += [f"{name}: {value}, {counted(count, 'example')}" for value, count in counts.most_common(_NAMED)]
        if len(counts) > _NAMED:
            lines.append(f"{name}: {len(counts) - _NAMED} more")
    lines += [f"damaged: {one.key}: {one.says}" for one in found.damaged[:_NAMED]]
    if len(found.damaged) > _NAMED:
        lines.append(f"damaged: {len(found.damaged) - _NAMED} more")
    return lines


def _mean(args: argparse.Namespace) -> int:
    from pipeline.training.dataset.examples import read
    from pipeline.training.dataset.mean import as_binaryproto, mean_image

    mean = mean_image(read(args.dataset, args.side))
    try:
        args.out.write_bytes(as_binaryproto(mean))
    except OSError as error:
        raise ConfigError(f"{args.out} cannot be written", error.strerror or str(error), "give another file") from error
    values = ", ".join(f"{value:.3f}" for value in mean.mean(axis=(1, 2)))
    print(f"{args.out}: {' x '.join(map(str, mean.shape))}; mean of each channel: {values}")
    return 0
