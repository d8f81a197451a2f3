"""`hathi dataset import`: a dataset of an archive of pictures, a list of images, a database or HDF5."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.amounts import counted
from pipeline.cli import dataset_archive
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.training.dataset.examples import Example
    from pipeline.training.dataset.image_files import How


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi dataset import`."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="an archive (tar, tar.gz, zip) of folders of pictures, or its URL; a list (`path label` a line); the "
        "folder of a database; an HDF5 file, or a list of such files",
    )
    parser.add_argument("out", type=Path, metavar="FOLDER", help="the folder to make")
    of_list = parser.add_argument_group("of a list of images")
    of_list.add_argument("--lmdb", action="store_true", help="make an LMDB, as Caffe's convert_imageset does")
    of_list.add_argument("--root", default="", metavar="TEXT", help="stands before each path of the list, as it is")
    of_list.add_argument("--resize", type=size, metavar="HxW", help="resize each image, e.g. 256x256")
    of_list.add_argument("--gray", action="store_true", help="read images as grey")
    of_list.add_argument("--shuffle", type=int, metavar="SEED", help="shuffle the list by this seed, as Caffe does")
    of_list.add_argument(
        "--encode",
        nargs="?",
        const="",
        metavar="FORM",
        help="keep images encoded, in this form (default: the one that the file's name ends with)",
    )
    of_list.add_argument("--check-size", action="store_true", help="refuse images of another size than the first")
    of_list.add_argument("--skip", action="store_true", help="leave out images that cannot be read, and name them")
    dataset_archive.add_arguments(parser.add_argument_group("of an archive"))


def size(text: str) -> tuple[int, int]:
    """`HEIGHTxWIDTH`."""
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH")
    return int(height), int(width)


def run(args: argparse.Namespace) -> int:
    """0; `--skip`: 1 when something was left out."""
    of_list: dict[str, object] = {
        "--root": args.root, "--resize": args.resize, "--gray": args.gray, "--shuffle": args.shuffle is not None,
        "--encode": args.encode is not None, "--check-size": args.check_size, "--skip": args.skip,
    }  # fmt: skip
    given = [option for option, value in of_list.items() if value]
    if dataset_archive.is_url(args.source) or dataset_archive.is_one(args.source):
        _demand_none([*given, *(["--lmdb"] if args.lmdb else [])], "a list of images", args.source, "an archive")
        return dataset_archive.run(args)
    _demand_none(dataset_archive.given(args), "an archive", args.source, "none")
    return _of_files(args, Path(args.source), given)


def _demand_none(given: list[str], kind: str, source: str, what: str) -> None:
    if given:
        raise ConfigError(f"{', '.join(given)} is for {kind}", f"{source} is {what}", "leave it out")


def _of_files(args: argparse.Namespace, source: Path, given: list[str]) -> int:
    """given: options that are for a list of images."""
    left_out: list[str] = []

    def skip(name: str, says: str) -> None:
        left_out.append(name)
        print(f"left out: {name}: {says}", file=sys.stderr)

    from pipeline.training.dataset import examples, hdf5_rows, image_files

    of_rows = hdf5_rows.is_source(source)
    if source.is_dir() or of_rows:
        _demand_none(given, "a list of images", args.source, "of HDF5" if of_rows else "a folder")
        found = hdf5_rows.examples(source) if of_rows else examples.read(source)
    else:
        found = image_files.examples(source, _how(args), skip if args.skip else None)
    count = write(args.out, found, args.lmdb, args.source)
    print(f"{args.out}: {counted(count, 'example')}" + (f", {len(left_out)} left out" if left_out else ""))
    return int(bool(left_out))


def _how(args: argparse.Namespace) -> How:
    from pipeline.training.dataset.image_files import How

    return How(args.root, args.resize, not args.gray, args.shuffle, args.encode, args.check_size)


def write(out: Path, found: Iterator[Example], as_lmdb: bool, source: str) -> int:
    """Writes examples into a new folder; their number.  source: for people."""
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
