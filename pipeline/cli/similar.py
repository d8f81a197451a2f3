"""Find the items of a partner whose features are nearest to an item's, or to an image's.

ITEM is an item id as an unsigned decimal, or an external id; digits are tried as both.  The newest feature of each item
counts.  Every item is looked at, unless --approximate asks an index, which is built the first time and kept.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.wiring.assembly import add_place, place_of
from pipeline.errors import ConfigError, PermanentError
from pipeline.process import logs
from pipeline.process.redaction import redact_query
from pipeline.settings import Settings, load

if TYPE_CHECKING:
    from pipeline.analysis.similar.catalogue import About, Catalogue
    from pipeline.analysis.similar.nearest import Found, Query
    from pipeline.ledger.layout import Root
    from pipeline.stores.store import Lake


@dataclass(frozen=True)
class _Asked:
    """What is looked for, in words and as a picture.  content: its bytes, where they are known already."""

    query: Query
    label: str
    url: str
    content: bytes | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `hathi similar`."""
    parser.add_argument("partner", type=int, metavar="PARTNER")
    parser.add_argument("item", nargs="?", metavar="ITEM", help="an item id (unsigned decimal) or an external id")
    parser.add_argument("--image", type=Path, metavar="FILE", help="an image of your own in place of an item")
    parser.add_argument("--url", help="an image on the web in place of an item")
    parser.add_argument("--metric", choices=("l1", "l2", "cosine"), default="l2", help="default: l2")
    parser.add_argument("--count", type=int, default=10, metavar="N", help="how many; default: 10")
    parser.add_argument("--approximate", action="store_true", help="ask an index (l2, cosine; needs the extra `index`)")
    parser.add_argument("--out", type=Path, metavar="SHEET.png", help="draw the images side by side")
    parser.add_argument("--allow-private", action="store_true", help="fetch from addresses inside your network, too")
    parser.add_argument("--set", help="the feature set, where there are several")
    parser.add_argument("--lake", help="the lake, where there are several")
    parser.add_argument("--json", action="store_true", help="one object")
    add_place(parser)


def run(args: argparse.Namespace) -> int:
    """0."""
    from pipeline.analysis.similar.catalogue import Catalogue, sources_of
    from pipeline.analysis.similar.indexed import approximate
    from pipeline.analysis.similar.nearest import exact

    if sum(one is not None for one in (args.item, args.image, args.url)) != 1:
        raise ConfigError("similar to what?", "", "give one of ITEM, --image FILE, --url URL")
    if args.count < 1:
        raise ConfigError("--count is too small", str(args.count), "1 or more")
    overrides = {"fetch.allow_private": True} if args.allow_private else {}
    settings = load(place_of(args), os.environ, overrides)
    set_name, lake, root = _place(settings, args)
    catalogue = Catalogue(lake, sources_of(lake, root, args.partner))
    asked = _asked(settings, set_name, catalogue, args)
    if args.approximate:
        found = approximate(catalogue, asked.query, Path(settings.state) / "similar")
    else:
        found = exact(catalogue, asked.query)
    if not found.compared and found.left_out:
        what = f"{found.left_out} items of partner {args.partner} have features of other nets"
        raise PermanentError("nothing can be compared", what, "hathi backfill, or the set that they were made with")
    about = catalogue.about([one.row for one in found.nearest])
    if args.out is not None:
        _sheet(settings, args, asked, found, about)
    if args.json:
        print(_as_json(args, asked, found, about, settings.logs.redact_queries))
    else:
        _print(asked, found, about, settings.logs.redact_queries)
        if args.out is not None:
            print(f"drawn: {args.out}")
    return 0


def _place(settings: Settings, args: argparse.Namespace) -> tuple[str, Lake, Root]:
    from pipeline.ledger.layout import Root
    from pipeline.stages.snapshots import takes
    from pipeline.stores.opening import open_lake

    set_name = _one_of("set", args.set, sorted(settings.sets))
    one = settings.sets[set_name]
    lake_name = _one_of("lake", args.lake, sorted(name for name in settings.lakes if takes(one, name)))
    return set_name, open_lake(settings, lake_name), Root(one.root.strip("/"))


def _one_of(what: str, given: str | None, known: Sequence[str]) -> str:
    if given is None and len(known) == 1:
        return known[0]
    if given is None or given not in known:
        said = f"no {what} {given}" if given else f"which {what}?"
        raise ConfigError(said, "", f"--{what}: {', '.join(known) or 'none is configured'}")
    return given


def _asked(settings: Settings, set_name: str, catalogue: Catalogue, args: argparse.Namespace) -> _Asked:
    from pipeline.analysis.similar.nearest import Query

    if args.item is not None:
        item, row = _row_of(catalogue, args.partner, args.item)
        matrix, prints = catalogue.features([row])
        (about,) = catalogue.about([row])
        label = f"{about.external_id} (item {item})" if about.external_id else f"item {item}"
        return _Asked(Query(matrix[0], prints[0], args.metric, args.count, item), label, about.url, None)
    from pipeline.analysis.similar.images import feature_of, fetched

    if args.image is not None:
        try:
            content = args.image.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"the image {args.image} cannot be read", error.strerror or "", "check --image"
            ) from error
        label = str(args.image)
    else:
        got = fetched(settings, [args.url])[args.url]
        if isinstance(got, str):
            raise ConfigError("the image could not be fetched", got, "hathi fetch URL tells more")
        content, label = got, redact_query(args.url)
    vector, fingerprint = feature_of(settings, set_name, content, label)
    return _Asked(Query(vector, fingerprint, args.metric, args.count), label, "", content)


def _row_of(catalogue: Catalogue, partner: int, text: str) -> tuple[int, int]:
    from pipeline.operations.why.story import question_of

    for item in question_of(partner, text, as_written=True).items:
        row = catalogue.row_of(item)
        if row is not None:
            return item, row
    raise PermanentError(f"no feature of item {text}", f"partner {partner}", f"hathi why {partner} {text} tells why")


def _sheet(settings: Settings, args: argparse.Namespace, asked: _Asked, found: Found, about: Sequence[About]) -> None:
    from pipeline.analysis.similar.images import fetched, pixels_of
    from pipeline.analysis.similar.sheet import Picture, draw

    redacted = settings.logs.redact_queries
    label = _shown(asked.label, redacted)
    urls = [one.url for one in about] + ([] if asked.content is not None else [asked.url])
    contents = fetched(settings, urls)
    first = asked.content if asked.content is not None else contents[asked.url]
    own = Picture(*pixels_of(first), ("asked about", label))
    near = [
        Picture(
            *pixels_of(contents[known.url]),
            (f"{one.distance:.6g}", str(one.item_id), _shown(known.external_id, redacted)),
        )
        for one, known in zip(found.nearest, about, strict=True)
    ]
    title = f"partner {args.partner}: nearest to {label}, {args.metric}"
    draw(args.out, title, own, near)


def _shown(text: str, redacted: bool) -> str:
    """URLs hold secrets; also an external id can be one."""
    return logs.redact(text) if redacted else text


def _as_json(args: argparse.Namespace, asked: _Asked, found: Found, about: Sequence[About], redacted: bool) -> str:
    near = [
        {
            "item_id": str(one.item_id),
            "distance": one.distance,
            "external_id": _shown(known.external_id, redacted),
            "url": redact_query(known.url) if redacted else known.url,
        }
        for one, known in zip(found.nearest, about, strict=True)
    ]
    body = {
        "partner": args.partner,
        "asked": _shown(asked.label, redacted),
        "metric": args.metric,
        "compared": found.compared,
        "left_out": found.left_out,
        "nearest": near,
    }
    return json.dumps(body, sort_keys=True)


def _print(asked: _Asked, found: Found, about: Sequence[About], redacted: bool) -> None:
    left = f"; {found.left_out:,} left out, of other nets" if found.left_out else ""
    lines = [f"nearest to {asked.label} by {asked.query.metric}, of {found.compared:,} items{left}"]
    for place, (one, known) in enumerate(zip(found.nearest, about, strict=True), 1):
        named = f"  {known.external_id}" if known.external_id else ""
        lines.append(f"{place:>3}  {one.distance:<12.6g} {one.item_id:>20}{named}  {known.url}".rstrip())
    for line in lines:
        print(logs.escape(_shown(line, redacted)))
