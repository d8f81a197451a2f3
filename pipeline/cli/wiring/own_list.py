"""A person's own list: options become settings, and a list that is to be shipped again is."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.amounts import counted
from pipeline.app import own_folder
from pipeline.cli.wiring import set_options
from pipeline.cli.wiring.brought import bring, path_of
from pipeline.errors import ConfigError, PermanentError
from pipeline.ledger.layout import ShipmentName
from pipeline.ledger.manifest import End, Plan, Reading
from pipeline.ledger.protocol import Context, exists, readable
from pipeline.ledger.state import next_of
from pipeline.process.logs import redact
from pipeline.settings import BUILT_IN, Settings
from pipeline.sources.conventions import Sources
from pipeline.sources.found import Left
from pipeline.stages import operator_requests

COLUMNS = ("url", "partner_id", "item_id", "external_id", "content")
TEXT = {
    "separator": "CSV, TSV: the character between cells: tab, ';', '|' ... (default: Hathi finds it)",
    "quote": "CSV, TSV: the character around cells; '': quotes are text (default: Hathi finds it)",
    "escape": "CSV, TSV: the character before a quote that is text, such as Spark's '\\'; '': no such "
    "character (default: Hathi finds it)",
    "encoding": "the encoding of a text file: utf-16, latin-1, cp1252 ... (default: UTF-8, or what the "
    "first bytes say)",
}
SET, LAKE = own_folder.SET, own_folder.LAKE


class _Once(argparse.Action):
    """An option that stands once: of two values the first would be dropped without a word."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest)
        if before is not None and before != values:
            parser.error(
                f"{option_string} is given twice: {redact(str(before))} and {redact(str(values))}; Hathi "
                "reads one list."
                " Name a folder or a pattern (in quotes) that holds both, or run once for each, with a --features "
                "folder of its own"
            )
        setattr(namespace, self.dest, values)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a list of one's own."""
    own = parser.add_argument_group("a list of your own")
    kinds = "CSV, TSV, JSONL, Parquet, ORC, Avro, text of URLs, protobuf"
    own.add_argument("--refs", metavar="GLOB", action=_Once, help=f"a file, a folder, a glob, a URL or -: {kinds}")
    own.add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        help=("the folder for the features; Hathi keeps its own files in DIR/.hathi"),
    )
    own.add_argument("--net", type=Path, help="a deploy .prototxt or an .onnx model")
    own.add_argument("--weights", type=Path, help="a .caffemodel")
    own.add_argument("--blob", help="the blob of the net whose values are the feature (default: its output)")
    set_options.add_arguments(own)
    own.add_argument("--format", help="the format of the refs (default: by the name of the file)")
    own.add_argument("--partner", type=int, help="the partner of rows without a partner (default: 0)")
    for column in COLUMNS:
        name = column.replace("_", "-")
        none = "; '': no column does" if column == "content" else ""
        own.add_argument(f"--{name}-column", metavar="NAME", help=f"the column that holds the {name}{none}")
    for option, what in TEXT.items():
        own.add_argument(f"--{option}", metavar="SIGN" if option != "encoding" else "NAME", help=what)
    own.add_argument(
        "--no-header",
        action="store_true",
        help=("CSV, TSV: the first line is a row, not names of columns; see --names"),
    )
    own.add_argument("--names", metavar="A,B,...", help="CSV, TSV with --no-header: the names of the columns")
    own.add_argument(
        "--ids",
        choices=("normalised", "as_written"),
        help=("how external ids become item ids (default: normalised: case and percent-coding do not matter)"),
    )
    what = "also write all features of DIR, one row an item, as one file: x.parquet, or x.npy with x.ids.parquet"
    own.add_argument("--out", type=Path, metavar="FILE", help=what)
    own.add_argument(
        "--keep",
        metavar="A,B,...",
        help="further columns of the list that stand beside the features, in hathi.read_features and --out (default: "
        "those of the last time; '': none)",
    )
    own.add_argument("--again", action="store_true", help="compute and deliver the whole list once more")


def given(args: argparse.Namespace) -> bool:
    """Whether the options name a list.  Raises ConfigError when they do so in part."""
    options = {"--refs": args.refs, "--features": args.features, "--net": args.net}
    of_the_set = (args.blob, args.preprocess, args.pool, args.input_size)
    if not any([*options.values(), *of_the_set]):
        return False
    for option, value in options.items():
        if not value:
            raise ConfigError(
                f"{option} is missing",
                "",
                "a list of your own needs --refs --features --net; the sets of a configuration say blob, pool, "
                "input_size and preprocess.preset themselves ([sets.NAME])",
            )
    return True


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that the options stand for.  Raises ConfigError for a net or weights that are not there."""
    out = args.features.resolve()
    if out.exists() and not out.is_dir():
        raise ConfigError(
            f"--features: {args.features} is not a folder", "", "name a folder; Hathi makes it if it does not exist"
        )
    source: dict[str, Any] = {
        "path": path_of(args.refs, out),
        "format": args.format or "auto",
        "columns": {
            name: [value] if value else []
            for name in COLUMNS
            if (value := getattr(args, f"{name}_column")) or (value is not None and name == "content")
        },
        "text": {name: value for name in TEXT if (value := getattr(args, name)) is not None},
    }
    if args.no_header:
        source["text"]["header"] = False
    if args.names:
        source["text"]["names"] = set_options.names(args.names)
    source["keep"] = own_folder.kept(out) if args.keep is None else set_options.names(args.keep)
    if args.ids:
        source["ids"] = args.ids
    if args.partner is not None:
        source["partner_id"] = args.partner
    found: dict[str, Any] = {
        "state": str(out / ".hathi" / "state"),
        "bucket.url": str(out / ".hathi" / "bucket"),
        "logs.folder": str(out / ".hathi" / "logs"),
        f"lakes.{LAKE}.url": "/",
        f"lakes.{LAKE}.sources": [source],
        f"sets.{SET}.net": str(args.net) if str(args.net) in BUILT_IN else str(args.net.resolve()),
        f"sets.{SET}.root": str(out),
        **set_options.overrides(args, SET),
        "deliver.compact": True,
    }
    if args.weights:
        found[f"sets.{SET}.weights"] = str(args.weights.resolve())
    for path, what in ((args.net, "--net"), (args.weights, "--weights")):
        if path is not None and str(path) not in BUILT_IN and not path.exists():
            raise ConfigError(f"{what}: no file {path}", "", "correct the path")
    return {**found, f"sets.{SET}.blob": args.blob or _default_blob(args)}


def _default_blob(args: argparse.Namespace) -> str:
    from pipeline.nets.loading import default_blob  # what reads a net takes its time to import

    return default_blob(args.net, args.weights)


def bring_to(settings: Settings, refs: str, say: Callable[[str], None]) -> Left:
    """Copy a list that is not here; what lies there and is not read.  As `bring`."""
    return bring(settings, settings.lakes[LAKE].sources[0], refs, Path(settings.sets[SET].root), say)


def ship_again(context: Context, *, everything: bool, ended: bool = False) -> None:
    """Announce what the list names, as far as it was shipped before, in a new round and as it is read now.

    everything: also what was read in the same way the last time.  ended: also what has ended as it was read then.
    """
    for name, plan, reading in _shipped(context):
        if everything or reading != plan.reading or (ended and exists(context, context.keys.out(name))):
            operator_requests.again(context, name, plan.model_copy(update={"reading": reading}))


def _shipped(context: Context) -> Iterator[tuple[ShipmentName, Plan, Reading]]:
    """Part 0 of what the list names now, as far as it was shipped: with its plan, and how it would be read now."""
    assert context.lake is not None
    lake = context.settings.lakes[context.lake_name]
    ours, url = context.settings.delivered(context.lake_name), context.settings.url_of(context.lake_name)
    sources = Sources(context.lake, lake.sources, ours, url)
    named = {one.digest: one.reading for one in sources.look(context.process.clock.now()).found}
    for name, plan in operator_requests.newest(context, "", [SET]):
        if (reading := named.get(plan.snapshot_digest)) is not None:
            yield name, plan, reading


def demand_kept(settings: Settings) -> None:
    """Raises ConfigError where the list lacks a column that is to be kept."""
    from pipeline.app.keepable import demand_columns  # pyarrow takes its time to import

    demand_columns(settings, settings.lakes[LAKE].sources[0].keep)


def keep_columns(context: Context, say: Callable[[str], None], stop: Callable[[], bool]) -> None:
    """Have the columns beside the features that are to be kept, where the lake is a list of one's own."""
    settings = context.settings
    if context.lake_name != LAKE or SET not in settings.sets or context.lake is None or stop():
        return
    source = next(iter(settings.lakes[LAKE].sources), None)
    if source is None or not source.keep:
        return
    from pipeline.app.keeping import keep_columns as keep

    done = keep(context, source.keep, stop)
    if done is not None:
        others = done.features - done.found
        rest = f"; the list holds no row for {counted(others, 'feature')}, where they are empty" if others else ""
        say(f"kept: {', '.join(source.keep)} beside {counted(done.found, 'feature')}{rest}")


def demand_refs(context: Context, refs: str) -> None:
    """Raises PermanentError where the list was read to its end and no row of it is an image ref: a wrong list, or a
    wrong idea of its columns, must not look like work that is done.  refs: the list, as the person named it.
    """
    shipped = list(_shipped(context))
    rows, first = 0, ""
    for name, plan, _ in shipped:
        part: ShipmentName | None = name
        while part is not None:
            end = readable(context, context.keys.end(part), End)
            if end is None or end.void is not None or end.refs:
                return
            rows += end.rows
            if not first and end.rejections:
                first = f"row {end.rejections[0].row + 1}: {end.rejections[0].why}"
            part = next_of(part, plan) if end.next is not None else None
    if not shipped:
        return
    rejected = f"{counted(rows, 'row')} rejected" if rows else "it holds no row"
    raise PermanentError(
        f"no row of {redact(refs)} is an image ref, so no feature was computed",
        f"{rejected}; the first: {first}" if first else rejected,
        "correct the list, or say how it is read: --url-column, --no-header with --names, --format, --separator",
    )
