"""`hathi train head DATASET OUT`: a linear layer on delivered features, to the optimum, joined to the net below it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.wiring import given_set, set_options
from pipeline.cli.wiring.given_set import Given
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.settings import FeatureSet

AUTO = "auto"
TAKES = {"loss", "l2", "net", "weights", "blob", "like", "set", "pool", "input_size", "preprocess", "scratch", "config",
         "json"}  # fmt: skip
"""The options of `hathi train` that are looked at."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `train head`, beside those of `train`."""
    group = parser.add_argument_group("train head DATASET OUT", "a linear layer on the features of a dataset")
    group.add_argument("--loss", choices=("softmax", "logistic", "hinge", "squared-hinge"),
                       help="softmax (default); or each class against the rest: logistic, squared hinge; of train "
                       "linear: hinge (default), squared-hinge or logistic")  # fmt: skip
    group.add_argument("--l2", metavar="NUMBER", help="the penalty l2/2 |weights|^2 on standardised features, or auto: "
                       "found on the validation side (default: auto where there is one, else 0.01; "
                       "of train linear: 1 / examples)")  # fmt: skip
    group.add_argument("--net", metavar="FILE", help="the .prototxt that the features come from: the head is joined to "
                       "it, with the weights of --weights (default: the head is a net of its own)")  # fmt: skip
    group.add_argument("--blob", metavar="NAME", help="the blob of the features (default: the output of the net)")
    group.add_argument("--like", metavar="SET", help="take net, weights, blob and all else from this set of --config")
    set_options.add_arguments(group)
    group.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                       help=f"a setting of the feature set: {set_options.FORMS}")  # fmt: skip
    group.add_argument("--scratch", type=Path, metavar="FOLDER", help="where the features lie while it trains, 4 bytes "
                       "a number (default: the folder of OUT)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """0.  Raises ConfigError, FormatError and NetError for a dataset or a net that cannot be used."""
    from pipeline.training.dataset.folders import whole
    from pipeline.training.linear import head, joining
    from pipeline.training.linear.reading import of_features

    if len(args.words) != 3:
        raise ConfigError("hathi train head takes a dataset and a folder to make", f"given: {' '.join(args.words)}",
                          "hathi train head DATASET OUT")  # fmt: skip
    dataset, out = map(Path, args.words[1:])
    manifest = of_features(dataset)
    below = feature_set(args)
    trunk = None if below is None else joining.trunk_of(below, manifest, dataset)

    def say(text: str) -> None:
        print(text, file=sys.stderr if args.json else sys.stdout, flush=True)

    with whole(out) as folder:
        wanted = head.Wanted(_loss(args.loss), _l2(args.l2), args.l2 == AUTO, args.scratch or out.parent)
        trained = head.train(dataset, wanted, say)
        joining.write(folder, trained, trunk, dataset, manifest)
    if args.json:
        print(json.dumps(json.loads((out / joining.ABOUT).read_text()) | {"out": str(out)}))
    else:
        net, weights = out / joining.NET, out / joining.WEIGHTS
        kind = "joined to the net below it" if trunk else "a net that takes features"
        print(f"{net}, {weights}: the head, {kind}")
    return 0


def _loss(name: str | None) -> str:
    return "hinge" if name == "squared-hinge" else name or "softmax"


def _l2(text: str | None) -> float | None:
    if text in (None, AUTO):
        return None
    try:
        return float(str(text))
    except ValueError as error:
        raise ConfigError(f"--l2 {text} is no number", "", "give a number above 0, or auto") from error


def feature_set(args: argparse.Namespace) -> FeatureSet | None:
    """The set that the features come from; None where the head stands alone."""
    if args.like is not None:
        return _of_config(args)
    weights = args.weights[0] if args.weights else None
    if args.net is None:
        if weights or args.blob or args.set or set_options.values(args):
            raise ConfigError("options of a net are given, and no net", "", "give --net, or leave them out")
        return None
    if len(args.weights or ()) > 1 or "," in (weights or ""):
        raise ConfigError("a net below a head has one file of weights", "", "--weights FILE")
    from pipeline.nets.loading import default_blob

    blob = args.blob or default_blob(args.net, weights)
    return given_set.feature_set(Given(args.net, weights, blob, tuple(args.set), set_options.values(args)), args.config)


def _of_config(args: argparse.Namespace) -> FeatureSet:
    import os

    from pipeline.app.contexts import loadable
    from pipeline.app.installation import default_config
    from pipeline.settings import load
    from pipeline.stages.snapshots import takes

    settings = load(args.config or default_config(), os.environ)
    if args.like not in settings.sets:
        hint = f"sets are: {', '.join(sorted(settings.sets)) or 'none'}"
        raise ConfigError(f"--like {args.like}: the configuration has no such set", "", hint)
    lakes = [lake for lake in sorted(settings.lakes) if takes(settings.sets[args.like], lake)]
    return loadable(settings, args.like, lakes[0] if lakes else "", "train").sets[args.like]
