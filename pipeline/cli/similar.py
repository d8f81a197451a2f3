"""Find the items of a partner whose features are nearest to an item's, or to an image's.

ITEM is an item id as an unsigned decimal, or an external id; Hathi tries digits as both.  It compares the newest
feature of every item.  --approximate asks an index instead, which Hathi builds the first time and keeps.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.amounts import counted
from pipeline.cli.wiring.assembly import add_place
from pipeline.cli.wiring.assembly import place_of as config_of
from pipeline.errors import ConfigError
from pipeline.process import logs
from pipeline.settings import Settings, load

if TYPE_CHECKING:
    from pipeline.app.similar import Similar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi similar`."""
    parser.add_argument("partner", type=int, metavar="PARTNER")
    parser.add_argument("item", nargs="?", metavar="ITEM", help="an item id (unsigned decimal) or an external id")
    parser.add_argument("--image", type=Path, metavar="FILE", help="an image file instead of an item")
    parser.add_argument("--url", help="an image on the web instead of an item")
    parser.add_argument(
        "--metric", choices=("l1", "l2", "cosine"), default="l2", help="the distance between features (default: l2)"
    )
    parser.add_argument("--count", type=int, default=10, metavar="N", help="the number of items to find (default: 10)")
    parser.add_argument(
        "--approximate",
        action="store_true",
        help=("use an index, which is faster and may miss items (l2, cosine; needs the extra `index`)"),
    )
    parser.add_argument(
        "--out", type=Path, metavar="SHEET.png", help="write a picture of the found images to this file"
    )
    parser.add_argument("--allow-private", action="store_true", help="also fetch from private addresses and any port")
    parser.add_argument("--set", help="the feature set, where there are several")
    parser.add_argument("--lake", help="the lake, where there are several")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_place(parser)


def run(args: argparse.Namespace) -> int:
    """0."""
    from pipeline.app.similar import Wanted, as_tree, place_of, similar  # NumPy and pyarrow take their time to import

    if sum(one is not None for one in (args.item, args.image, args.url)) != 1:
        raise ConfigError("hathi similar needs an item or an image", "", "give one of ITEM, --image FILE and --url URL")
    if args.count < 1:
        raise ConfigError("--count is too small", str(args.count), "1 or more")
    overrides = {"fetch.allow_private": True} if args.allow_private else {}
    settings = load(config_of(args), os.environ, overrides)
    wanted = Wanted(args.partner, args.item, args.image, args.url, args.metric, args.count)
    one = similar(settings, place_of(settings, args.set, args.lake), wanted, by_index=args.approximate)
    if args.out is not None:
        _sheet(settings, args.out, one)
    if args.json:
        print(json.dumps(as_tree(one, redact_queries=settings.logs.redact_queries), sort_keys=True))
        return 0
    _print(one, settings.logs.redact_queries)
    if args.out is not None:
        print(f"drawn: {args.out}")
    return 0


def _sheet(settings: Settings, out: Path, one: Similar) -> None:
    from pipeline.analysis.similar.images import fetched, pixels_of
    from pipeline.analysis.similar.sheet import Picture, draw

    redacted = settings.logs.redact_queries
    label = _shown(one.label, redacted)
    urls = [known.url for known in one.about] + ([] if one.content is not None else [one.url])
    contents = fetched(settings, urls)
    first = one.content if one.content is not None else contents[one.url]
    own = Picture(*pixels_of(first), ("asked about", label))
    near = [
        Picture(
            *pixels_of(contents[known.url]),
            (f"{near.distance:.6g}", str(near.item_id), _shown(known.external_id, redacted)),
        )
        for near, known in zip(one.found.nearest, one.about, strict=True)
    ]
    draw(out, f"partner {one.wanted.partner}: nearest to {label}, {one.wanted.metric}", own, near)


def _shown(text: str, redacted: bool) -> str:
    """URLs hold secrets; also an external id can be one."""
    return logs.redact(text) if redacted else text


def _print(one: Similar, redacted: bool) -> None:
    found = one.found
    left = f"; {found.left_out:,} left out, of other nets" if found.left_out else ""
    lines = [f"nearest to {one.label} by {one.wanted.metric}, of {counted(found.compared, 'item')}{left}"]
    for place, (near, known) in enumerate(zip(found.nearest, one.about, strict=True), 1):
        named = f"  {known.external_id}" if known.external_id else ""
        lines.append(f"{place:>3}  {near.distance:<12.6g} {near.item_id:>20}{named}  {known.url}".rstrip())
    for line in lines:
        print(logs.escape(_shown(line, redacted)))
