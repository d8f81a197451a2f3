"""Judge a net on a dataset, alone or beside another, on the engine and with the preparation that serve.

The dataset holds images, or features for a net that takes those, such as a head.  Exit code 1: examples were left out
because the net gave no answer for them; they are named.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.amounts import counted
from pipeline.cli.wiring import given_set, set_options
from pipeline.cli.wiring.given_set import Given
from pipeline.cli.wiring.numbers import number_from
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.training.judging.answers import Answers, Scoring
    from pipeline.training.judging.examples import Examples
    from pipeline.training.judging.figures import Difference, Figures

_NAMED = 10  # failed examples


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`hathi evaluate --net N --weights W --dataset D [--against N2 W2]`."""
    option = parser.add_argument
    option("--net", required=True, metavar="FILE", help="a .prototxt, or an .onnx model")
    option("--weights", metavar="FILE", help="the .caffemodel of a .prototxt")
    option("--against", nargs="+", metavar=("NET", "WEIGHTS"), help="another net, judged on the same examples")
    option("--dataset", required=True, type=Path, metavar="FOLDER", help="a dataset, an LMDB or a LevelDB")
    option("--side", metavar="NAME", help="of the dataset (default: test; a dataset without sides: all of it)")
    option("--blob", metavar="NAME", help="the blob of the scores, or of their shares (default: the net's output)")
    set_options.add_arguments(parser)
    option("--set", action="append", default=[], metavar="KEY=VALUE",
           help=f"a setting of the feature set that serves, of both nets: {set_options.FORMS}")  # fmt: skip
    option("--against-set", action="append", default=[], metavar="KEY=VALUE",
           help="a setting that differs for the net of --against, its blob as well: blob=prob")  # fmt: skip
    option("--config", type=Path, help="a configuration with presets of your own ([preprocess.NAME])")
    option("--engine", default="auto", help="what runs the nets (default: auto, the fastest that is installed)")
    option("--precision", default="fp32", choices=("fp32", "tf32", "bf16", "fp16"))
    option("--threads", type=number_from(0), default=0, help="cores to use (default: 0: all)")
    option("--list", type=number_from(0), default=20, metavar="N",
           help="examples to name on which the nets differ (default: 20; --out has all)")  # fmt: skip
    option("--json", action="store_true", help="print one JSON object")
    option("--out", type=Path, metavar="FILE", help="write that JSON object to a file")


def run(args: argparse.Namespace) -> int:
    """0; 1 where examples were left out.  Raises ConfigError, NetError and FormatError for what cannot be judged."""
    from pipeline.training.judging.answers import answer
    from pipeline.training.judging.examples import examples_of
    from pipeline.training.judging.figures import difference, figures

    examples = examples_of(args.dataset, args.side)
    first = answer(examples, _scoring(args, examples, _first(args)))
    found = figures(first, examples.names)
    told: dict[str, Any] = {**_told(first, found), "dataset": examples.digest, "side": examples.side}
    lines = [f"{examples}: {counted(len(first.keys), 'example')}", _line(args.net, found)]
    failed = list(first.failed)
    if args.against:
        second = answer(examples, _scoring(args, examples, _second(args)))
        other, apart = figures(second, examples.names), difference(first, second)
        told |= {"against": _told(second, other), "difference": asdict(apart)}
        failed += [one for one in second.failed if one not in failed]
        lines += [_line(args.against[0], other), *_compared(apart, args.list)]
    lines += _of_classes(found)
    lines += [f"no answer: {one.key}: {one.reason} {one.detail}".rstrip() for one in failed[:_NAMED]]
    if failed:
        lines.append(f"{counted(len(failed), 'example')} without an answer: no figure counts them")
    names = ",".join(f"{name}={told[name]:.6g}" for name in ("accuracy", "top5", "loss"))
    lines.append(f"for hathi promote: --figures {names}")
    if args.out is not None:
        _write(args.out, told)
    print(json.dumps(told) if args.json else "\n".join(lines))
    return int(bool(failed))


def _first(args: argparse.Namespace) -> Given:
    return Given(args.net, args.weights, args.blob or "", tuple(args.set), _settings(args))


def _second(args: argparse.Namespace) -> Given:
    if len(args.against) > 2:
        raise ConfigError("--against takes a net and its weights", f"given: {' '.join(args.against)}", "")
    net, *weights = args.against
    more = [one for one in args.against_set if not one.startswith("blob=")]
    blobs = [one.removeprefix("blob=") for one in args.against_set if one.startswith("blob=")]
    blob = blobs[-1] if blobs else ""
    return Given(net, weights[0] if weights else None, blob, (*args.set, *more), _settings(args))


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """normalise: the values are compared as the net gives them, whatever the set delivers."""
    return {"engine": args.engine, "precision": args.precision, "normalise": "none", **set_options.values(args)}


def _scoring(args: argparse.Namespace, examples: Examples, given: Given) -> Scoring:
    from pipeline.nets import load
    from pipeline.nets.features import FeatureNet
    from pipeline.nets.loading import default_blob
    from pipeline.training.judging.answers import OfFeatures, OfImages

    blob = given.blob or default_blob(given.net, given.weights)
    if examples.features:
        net = load(given.net, given.weights, blobs=[blob], engine=args.engine, precision=args.precision,
                   threads=args.threads)  # fmt: skip
        return OfFeatures(net, blob)
    chosen = given_set.feature_set(Given(given.net, given.weights, blob, given.more, given.settings), args.config)
    served = FeatureNet(chosen, args.threads)
    print(f"{given.net}: {served.engine}; {served.preprocessing}", file=sys.stderr)
    return OfImages(served)


def _told(answers: Answers, found: Figures) -> dict[str, Any]:
    return {**asdict(found), "failed": [asdict(one) for one in answers.failed]}


def _line(net: str, found: Figures) -> str:
    low, high = found.interval
    return (
        f"{net}: accuracy {found.accuracy:.4f} (95 %: {low:.4f} to {high:.4f}), top-5 {found.top5:.4f}, "
        f"loss {found.loss:.4f}"
    )


def _compared(apart: Difference, most: int) -> list[str]:
    low, high = apart.interval
    sure = "the first is better" if low > 0 else "the second is better" if high < 0 else "neither is shown to be better"
    lines = [
        f"difference: {apart.difference:+.4f} (95 %: {low:+.4f} to {high:+.4f}): {sure}",
        f"right in the first alone: {apart.only_first:,}, in the second alone: {apart.only_second:,}; "
        f"McNemar's exact p {apart.p:.3g}",
    ]
    for one in apart.differing[:most]:
        lines.append(f"differs: {one.key}: label {one.label}, first {one.first}, second {one.second}")
    if len(apart.differing) > most:
        lines.append(f"differs: {len(apart.differing) - most:,} more; --out FILE names all")
    return lines


def _of_classes(found: Figures) -> list[str]:
    """A line a class: its examples, recall, precision, and the class that it is most often taken for."""
    lines = []
    names = {one.label: one.name for one in found.classes}
    for one in found.classes:
        wrong = [(number, taken) for label, taken, number in found.confusion if label == one.label != taken]
        most = f", most often taken for '{names[max(wrong)[1]]}' ({max(wrong)[0]:,})" if wrong else ""
        lines.append(f"class '{one.name}': {counted(one.examples, 'example')}, recall {_part(one.recall)}, "
                     f"precision {_part(one.precision)}{most}")  # fmt: skip
    return lines


def _part(share: float | None) -> str:
    return "none" if share is None else f"{share:.4f}"


def _write(path: Path, told: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written", error.strerror or str(error), "--out FILE") from error
