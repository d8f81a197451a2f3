"""Show the models that were promoted: their versions, which one is in use, by which sets, and where each comes from.

With a name: of each version the way from data by training to promotion, sets and deliveries.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator

from pipeline.amounts import counted
from pipeline.app import models
from pipeline.app.contexts import contexts
from pipeline.app.models import Version
from pipeline.cli.output.columns import columns, when
from pipeline.cli.wiring.assembly import add_place, place_of
from pipeline.errors import ConfigError
from pipeline.process import logs
from pipeline.settings import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi models`."""
    parser.add_argument("model", nargs="?", default="", metavar="NAME", help="this model, version by version")
    parser.add_argument("--lake", metavar="NAME", help="of this lake alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object a version, for programs")
    add_place(parser)


def run(args: argparse.Namespace) -> int:
    """0; 2 where no such model was promoted."""
    settings = load(place_of(args), os.environ)
    if args.lake is not None and args.lake not in settings.lakes:
        raise ConfigError(f"no lake {args.lake}", "", f"lakes are: {', '.join(sorted(settings.lakes)) or 'none'}")
    where = [one for one in contexts(settings, ["compute"], lambda: False, "models")
             if args.lake in (None, one.lake_name)]  # fmt: skip
    found = models.versions(where, args.model, lineage=bool(args.model))
    if args.json:
        for one in found:
            print(json.dumps(models.as_tree(one), sort_keys=True))
    elif not found:
        print("no model was promoted yet: hathi promote MODEL SET puts one into use")
    elif args.model:
        for one in found:
            for line in _story(one):
                print(logs.escape(logs.redact(line)))
    else:
        several = len(settings.lakes) > 1
        rows = [(_name(one, several), _use(one), _when(one), _figures(one), _who(one)) for one in found]
        for line in columns([("model", "in use by", "since", "figures", "promoted by"), *rows]):
            print(logs.redact(line))
    return 0


def _name(one: Version, several: bool) -> str:
    return f"{one.lake}: {one.promoted}" if several else str(one.promoted)


def _use(one: Version) -> str:
    if one.body is None:
        return "cannot be read"
    lost = "; files lost" if one.lost else ""
    return ((", ".join(one.sets) or "no set here") if one.in_use else "-") + lost


def _when(one: Version) -> str:
    return when(one.body.at) if one.body is not None else ""


def _who(one: Version) -> str:
    return one.body.by if one.body is not None else ""


def _figures(one: Version) -> str:
    figures = one.body.figures if one.body is not None else {}
    return ", ".join(f"{name} {figure:.6g}" for name, figure in sorted(figures.items()))


def _story(one: Version) -> Iterator[str]:
    body = one.body
    use = "in use" if one.in_use else "not in use"
    yield f"{one.promoted} in lake {one.lake}: {use}"
    if body is None:
        yield f"  it cannot be read here: {one.why}"
        return
    why = f": {body.why}" if body.why else ""
    yield f"  promoted {when(body.at)} by {body.by}{why}"
    if body.again is not None:
        yield f"  it has the files of {body.model}@{body.again} again"
    if figures := _figures(one):
        yield f"  figures: {figures}"
    for name, digest in body.data.items():
        yield f"  data: {name}" + (f", SHA-256 {digest[:12]}" if digest else "")
    if body.job:
        yield f"  training: {body.job}"
    yield f"  model: {body.digest[:12]}, {counted(len(body.files), 'file')}, {sum(f.size for f in body.files):,} bytes"
    for key in one.lost:
        yield f"  lost: {key}"
    for name in one.sets if one.in_use else ():
        if name not in one.shipped:
            yield f"  set {name}: nothing was shipped with it yet"
    for name, some in sorted(one.shipped.items()):
        prints = ", ".join(text[:12] for text in sorted(some.fingerprints))
        features = counted(some.features, "feature")
        yield (
            f"  set {name}: {counted(some.delivered, 'shipment')} delivered with {features}, {some.open} open"
            + (f"; fingerprint {prints}" if prints else "")
        )
