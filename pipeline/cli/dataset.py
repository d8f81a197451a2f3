"""Make a dataset from the lake, image lists or databases; write it for Caffe, look at it, compute its mean image."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.amounts import counted
from pipeline.cli import dataset_import, dataset_make
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.training.dataset.summary import Summary

_NAMED = 10
_SIDE = "only this side of a dataset that has sides: train, validation, test, ..."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`hathi dataset make|import|export|show|mean ...`."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    dataset_make.add_arguments(actions.add_parser("make", help="make a dataset of labels and of what a set delivers"))
    bring = actions.add_parser(
        "import", help="make a dataset of an archive of pictures, a list of images, an LMDB, a LevelDB or HDF5"
    )
    dataset_import.add_arguments(bring)
    export = actions.add_parser("export", help="write a dataset as an LMDB")
    export.add_argument("dataset", type=Path, metavar="DATASET", help="the folder of a dataset, an LMDB or a LevelDB")
    export.add_argument("out", type=Path, metavar="FOLDER", help="the LMDB to make")
    export.add_argument("--side", metavar="NAME", help=_SIDE)
    export.add_argument("--resize", type=dataset_import.size, metavar="HxW",
                        help="decode each image and resize it, in colour, as for a net, e.g. 256x256")  # fmt: skip
    show = actions.add_parser("show", help="count examples, classes and sizes, and name what is damaged")
    show.add_argument("dataset", type=Path, metavar="DATASET", help="the folder of a dataset, an LMDB or a LevelDB")
    show.add_argument("--side", metavar="NAME", help=_SIDE)
    show.add_argument("--json", action="store_true", help="print one JSON object")
    mean = actions.add_parser("mean", help="compute the mean image, as Caffe's compute_image_mean does")
    mean.add_argument("dataset", type=Path, metavar="DATASET", help="the folder of a dataset, an LMDB or a LevelDB")
    mean.add_argument("out", type=Path, metavar="FILE", help="the .binaryproto to write")
    mean.add_argument("--side", metavar="NAME", help=_SIDE)


def run(args: argparse.Namespace) -> int:
    """0; `show`: 1 when something is damaged; `import --skip`: 1 when something was left out."""
    runs = {"make": dataset_make.run, "import": dataset_import.run, "export": _export, "show": _show, "mean": _mean}
    return runs[args.action](args)


def _export(args: argparse.Namespace) -> int:
    from pipeline.training.dataset.examples import read
    from pipeline.training.dataset.forgetting import note_export
    from pipeline.training.dataset.resized import resized

    note_export(args.dataset, args.out, args.out)
    found = read(args.dataset, args.side)
    count = dataset_import.write(args.out, resized(found, args.resize) if args.resize else found, True, "")
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
