"""Put a model into use: the sets that follow it are computed with its files from now on.

MODEL is a training of the bucket (`hathi train list`), or NAME@NUMBER, an older promotion: the way back.  With --net
and --weights the files are given by hand, and SET stands alone.  Exit code 3: refused, since it is not good enough, or
since somebody else was first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.amounts import counted
from pipeline.app import promoting, trainings
from pipeline.app.candidates import Candidate, Files, data_of, of_files, of_promotion, of_training
from pipeline.app.contexts import contexts
from pipeline.app.promoting import Judged, Outcome, Wanted
from pipeline.app.promotion_bar import Bar
from pipeline.cli.wiring.assembly import add_place, place_of
from pipeline.errors import ConfigError
from pipeline.ledger.manifest import Promoted
from pipeline.ledger.protocol import Context
from pipeline.process import logs
from pipeline.settings import load
from pipeline.stages.snapshots import takes

REFUSED = 3
_OLDER = re.compile(r"([a-z0-9][a-z0-9_-]{0,62})@([1-9][0-9]{0,9})")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi promote`."""
    parser.usage = (
        "hathi promote MODEL SET [options]\n"
        "       hathi promote SET --net FILE [--weights FILE] [--mean FILE] [options]"
    )
    option = parser.add_argument
    option("words", nargs="+", metavar="MODEL", help="a training, or NAME@NUMBER, an older promotion; then the set")
    option("--net", type=Path, metavar="FILE", help="the net that serves: a deploy .prototxt, or an .onnx model")
    option("--weights", type=Path, metavar="FILE", help="its .caffemodel")
    option("--mean", type=Path, metavar="FILE", help="its mean (.binaryproto or .npy), in place of the set's")
    option("--figures", action="append", default=[], metavar="NAME=NUMBER,...",
           help="how good it is, by name; over those of the training's own test")  # fmt: skip
    option("--least", action="append", default=[], metavar="NAME=NUMBER,...",
           help="refuse it where a figure is worse; of a loss or an error it is the most")  # fmt: skip
    option(
        "--against",
        choices=("current",),
        help="refuse it where a figure of the model in use is better, or is missing here, "
        "and where a head has another number of classes",
    )
    option(
        "--data",
        action="append",
        default=[],
        metavar="NAME",
        help="what it was trained on: a dataset's folder, or any name",
    )
    option("--why", default="", metavar="TEXT", help="why; it is kept with the promotion")
    option("--yes", action="store_true", help="whatever the bar says")
    option("--lake", metavar="NAME", help="in this lake alone (default: in all that the set takes)")
    option("--json", action="store_true", help="print one JSON object a lake, for programs")
    add_place(parser)


def run(args: argparse.Namespace) -> int:
    """0: it is in use, or was; 3: refused."""
    model, name = _named(args)
    settings = load(place_of(args), os.environ)
    follows = promoting.model_of(settings, name)
    where = [one for one in contexts(settings, ["compute"], lambda: False, "promote") if takes_it(one, name, args.lake)]
    if not where:
        lakes = [lake for lake in sorted(settings.lakes) if takes(settings.sets[name], lake)]
        raise ConfigError(f"set {name} takes no lake {args.lake or ''}".rstrip(), "", f"lakes are: {', '.join(lakes)}")
    code = 0
    with _candidate(args, model, where) as candidate:
        wanted = Wanted(
            follows,
            candidate,
            _numbers(args.figures, "--figures"),
            data_of(args.data),
            Bar(_numbers(args.least, "--least"), args.against is not None),
            args.why,
            args.yes,
        )
        for judged in [promoting.judge(context, wanted) for context in where]:
            code = max(code, _promote(judged, args.json))
    return code


def takes_it(context: Context, name: str, lake: str | None) -> bool:
    """Whether a set is served in a context's lake.  lake: the only one that is asked for."""
    return takes(context.settings.sets[name], context.lake_name) and lake in (None, context.lake_name)


def _named(args: argparse.Namespace) -> tuple[str, str]:
    """The model, "" where its files are given by hand, and the set."""
    words: list[str] = args.words
    if len(words) == 2:
        if _OLDER.fullmatch(words[0]) and (args.net or args.weights or args.mean):
            raise ConfigError(f"{words[0]} has its files already", "", "leave out --net, --weights and --mean")
        if args.weights:
            raise ConfigError(f"{words[0]} has weights already", str(args.weights), "leave out --weights")
        return words[0], words[1]
    if len(words) == 1 and args.net is not None:
        return "", words[0]
    raise ConfigError(
        "which model, for which set?",
        f"given: {' '.join(words)}",
        "hathi promote MODEL SET, or hathi promote SET --net FILE --weights FILE",
    )


@contextlib.contextmanager
def _candidate(args: argparse.Namespace, model: str, where: Sequence[Context]) -> Iterator[Candidate]:
    given = Files(args.net, args.weights, args.mean)
    if not model:
        yield of_files(given)
    elif older := _OLDER.fullmatch(model):
        if len(where) > 1:
            raise ConfigError(f"{model} is another promotion in each lake", "", "name the lake with --lake")
        yield of_promotion(where[0], Promoted(model=older[1], number=int(older[2])))
    else:
        with of_training(trainings.training(where, model), given) as candidate:
            yield candidate


def _numbers(texts: Sequence[str], option: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in ",".join(texts).split(",") if texts else ():
        name, _, number = text.partition("=")
        try:
            found[name.strip()] = value = float(number)
        except ValueError:
            value = float("nan")
        if not name.strip() or value != value or abs(value) == float("inf"):
            raise ConfigError(f"{option} {text} is no figure", "", f"{option} accuracy=0.9, more of them with commas")
    return found


def _promote(judged: Judged, as_json: bool) -> int:
    refused = bool(judged.short) and not judged.wanted.yes
    outcome = None if refused or judged.in_use else promoting.promote(judged)
    if as_json:
        print(json.dumps(_tree(judged, outcome, refused), sort_keys=True))
    else:
        _tell(judged, outcome, refused)
    if outcome is not None and outcome.won:
        logs.log("promote").info("%s is in use in lake %s", outcome.promoted, judged.context.lake_name)
    return REFUSED if refused or (outcome is not None and not outcome.won) else 0


def _tell(judged: Judged, outcome: Outcome | None, refused: bool) -> None:
    lake = judged.context.lake_name
    if refused:
        for line in judged.short:
            _complain(f"not promoted in lake {lake}: {line}")
        _complain("hint: --yes promotes it all the same")
        return
    if outcome is None:
        _say(f"{judged.current} has these very files already: nothing was done in lake {lake}")
        return
    if not outcome.won:
        stands = outcome.stands
        _complain(f"not promoted in lake {lake}: {stands.by} was first, and put {outcome.promoted} into use")
        _complain("hint: look at it with `hathi models`, then promote yours if it is still wanted")
        return
    wanted = judged.wanted
    size = sum(piece.size for piece in wanted.candidate.pieces)
    files = counted(len(wanted.candidate.pieces), "file")
    _say(f"{outcome.promoted} is in use from now on in lake {lake}: {files}, {size:,} bytes")
    for line in judged.short:
        _say(f"  though {line}")
    for line in () if wanted.bar.against else judged.other:
        _say(f"  be aware: {line}")
    before = judged.body.figures if judged.body is not None else {}
    for name, figure in sorted(wanted.all_figures.items()):
        was = f" ({judged.current}: {before[name]:.6g})" if name in before else ""
        _say(f"  {name} {figure:.6g}{was}")
    anew = False
    for name, print_ in judged.fingerprints.items():
        was, anew = judged.before[name], anew or (bool(judged.before[name]) and judged.before[name] != print_)
        change = f"; it was {was[:12]}" if was else ""
        if was == print_:
            change = "; as before: nothing is computed anew"
        _say(f"  set {name}: fingerprint {print_[:12]}{change}")
    for line in judged.running:
        _say(f"  a back-fill goes on as it was planned: {line}; back-fill once more when it has ended")
    if anew:
        _say(f"next: {'; '.join(f'hathi backfill {name}' for name in judged.fingerprints)}")


def _tree(judged: Judged, outcome: Outcome | None, refused: bool) -> dict[str, object]:
    in_use = outcome.promoted if outcome is not None else judged.current
    return {
        "lake": judged.context.lake_name,
        "model": judged.wanted.model,
        "number": in_use.number if in_use is not None else None,
        "promoted": outcome is not None and outcome.won,
        "refused": list(judged.short) if refused else [],
        "other": list(judged.other),
        "figures": judged.wanted.all_figures,
        "fingerprints": dict(judged.fingerprints),
        "before": dict(judged.before),
        "running": list(judged.running),
    }


def _say(text: str) -> None:
    print(logs.escape(logs.redact(text)))


def _complain(text: str) -> None:
    print(logs.escape(logs.redact(f"hathi: {text}")), file=sys.stderr)
