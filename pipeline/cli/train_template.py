"""`hathi train template finetune OUT`: a solver, its net and its data, to train a net anew for other classes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.amounts import counted
from pipeline.cli.wiring.numbers import number_from
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.training.finetuning import Base, Source

_MEAN = "104,117,123"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `train template`, beside --net and --blob of `train head`."""
    group = parser.add_argument_group(
        "train template finetune OUT",
        "files to fine-tune the net of --net: with --blob a new layer stands on that blob, "
        "else it takes the place of the last layer that learns",
    )
    group.add_argument("--dataset", type=Path, metavar="FOLDER", help="images to train with: a dataset, or an LMDB")
    group.add_argument("--test", type=Path, metavar="FOLDER", help="images to test with (default: the side validation, "
                       "else test, of the dataset); of train linear: examples to judge the model by")  # fmt: skip
    group.add_argument("--classes", type=number_from(2), metavar="N", help="how many (default: as the dataset has)")
    group.add_argument("--freeze", metavar="LAYER", help="this layer and those before it learn nothing; all: all but "
                       "the new one (default: all learn, the new one ten times faster)")  # fmt: skip
    group.add_argument("--mean", metavar="B,G,R", help=f"what is subtracted (default: {_MEAN}; of a net of "
                       "grey images: 0)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """0.  Raises ConfigError, NetError and FormatError for a net or a dataset that cannot be used."""
    from google.protobuf import text_format

    from pipeline.training import finetuning
    from pipeline.training.dataset.folders import whole

    if len(args.words) != 3 or args.words[1] != "finetune":
        hint = "hathi train template finetune OUT --net FILE --dataset FOLDER"
        given = f"given: {' '.join(args.words)}"
        raise ConfigError("hathi train template takes the word finetune and a folder to make", given, hint)
    if args.net is None or args.dataset is None:
        raise ConfigError("a template needs a net and a dataset", "", "give --net FILE and --dataset FOLDER")
    base, out = finetuning.base_of(Path(args.net)), Path(args.words[2]).absolute()
    with whole(out) as folder:
        train, test, labels = _sources(args, base, folder, out)
        classes = args.classes or labels
        if classes is None or (labels or 0) > classes:
            says = "an LMDB does not tell" if classes is None else f"the dataset has labels up to {(labels or 0) - 1}"
            raise ConfigError("--classes does not fit" if classes else "how many classes there are is not known", says,
                              "give --classes N, more than the largest label")  # fmt: skip
        wanted = finetuning.Wanted(classes, args.blob, args.freeze, _mean(args.mean, base.channels))
        made = finetuning.texts(base, wanted, train, test)
        for name, net in (("train_val.prototxt", made.train_val), ("deploy.prototxt", made.deploy)):
            (folder / name).write_text(text_format.MessageToString(net), encoding="utf-8")
        text = finetuning.solver(out / "train_val.prototxt", out / "tuned", train, test)
        (folder / "solver.prototxt").write_text(text, encoding="utf-8")
    counts = f"{counted(train.examples, 'example')} to train with, {test.examples:,} to test with"
    print(f"{out}: layer '{made.new}' is new, of {classes} classes; {counts}")
    print(f"next: hathi train {out / 'solver.prototxt'} --weights FILE, with the weights of {args.net}")
    return 0


def _sources(args: argparse.Namespace, base: Base, folder: Path, out: Path) -> tuple[Source, Source, int | None]:
    """LMDBs to train and to test with, made in `folder` where they are none yet; and how many classes are known."""
    from pipeline.training.dataset.manifest import MANIFEST, read_manifest

    side = None
    known: list[int] = []
    sides = []
    if (args.dataset / MANIFEST).is_file():
        manifest = read_manifest(args.dataset)
        if manifest.kind == "features":
            raise ConfigError(f"the dataset {args.dataset} holds features", "a whole net is trained on images",
                              "train a head on them: hathi train head; or make a dataset of images")  # fmt: skip
        known = [int(label) for label in (*manifest.labels, *manifest.classes)]
        sides = [name for name, one in manifest.sides.items() if one.examples]
        side = "train" if "train" in sides else None
    other = next((name for name in ("validation", "test") if name in sides), None)
    if args.test is None and (other is None or side is None):
        raise ConfigError(f"nothing to test with: {args.dataset} has no side validation or test", "",
                          "make the dataset with --split, or name other images by --test")  # fmt: skip
    train = _source(args.dataset, side, base, (folder, out, "train_lmdb"))
    test = _source(args.test or args.dataset, None if args.test else other, base, (folder, out, "test_lmdb"))
    return train, test, max(known) + 1 if known else None


def _source(path: Path, side: str | None, base: Base, made: tuple[Path, Path, str]) -> Source:
    """made: the folder to fill, what it is called in the end, and the name in it."""
    from pipeline.training.dataset import database, examples
    from pipeline.training.dataset.forgetting import note_export
    from pipeline.training.dataset.resized import resized
    from pipeline.training.finetuning import Source

    folder, out, name = made
    if (path / "data.mdb").is_file():
        if base.size[0] != base.size[1]:
            says = f"its input is {base.size[0]} x {base.size[1]}"
            raise ConfigError("crops of a Data layer are square, the net's input is not", says, "bring a dataset in")
        count = sum(1 for _ in examples.read(path))
        return Source(path.absolute(), count, base.size[0])
    note_export(path, out / name, out)
    (folder / name).mkdir()
    count = database.write(folder / name, resized(examples.read(path, side), base.size, base.channels))
    if not count:
        raise ConfigError(f"{path} holds no images", "", "look at the dataset: hathi dataset show")
    return Source(out / name, count, 0)


def _mean(given: str | None, channels: int) -> tuple[float, ...]:
    text = given if given is not None else _MEAN if channels == 3 else "0"
    try:
        found = tuple(float(one) for one in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--mean {text} holds no numbers", str(error), f"for example {_MEAN}, or 0") from error
    if len(found) not in (1, channels):
        raise ConfigError(
            f"--mean {text} is of {len(found)} channels",
            "",
            f"give one number, or three for colour: {_MEAN}",
        )
    return found
