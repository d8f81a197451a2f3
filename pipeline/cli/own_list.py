"""A person's own list: options become settings, and what `--features DIR` was made with is remembered beside it."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from pipeline.clock import Clock
from pipeline.errors import ConfigError
from pipeline.manifest import Reading
from pipeline.runner import Context
from pipeline.settings import Settings
from pipeline.stages import rounds
from pipeline.stages.source_files import find
from pipeline.stores.local import typed

COLUMNS = ("url", "partner_id", "item_id", "external_id", "content")
SET, LAKE = "features", "list"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a list of one's own."""
    own = parser.add_argument_group("a list of your own")
    kinds = "CSV, TSV, JSONL, Parquet, ORC, text of URLs, protobuf"
    own.add_argument("--refs", metavar="GLOB", help=f"a file, a folder or a glob: {kinds}")
    own.add_argument("--features", type=Path, metavar="DIR", help="where features are delivered; bucket in DIR/.hathi")
    own.add_argument("--net", type=Path, help="a deploy .prototxt or an .onnx model")
    own.add_argument("--weights", type=Path, help="a .caffemodel")
    own.add_argument("--blob", help="the blob that is the feature")
    own.add_argument("--format", help="of the refs, where the file's name does not tell")
    own.add_argument("--partner", type=int, help="the partner of refs that name none")
    for column in COLUMNS:
        name = column.replace("_", "-")
        own.add_argument(f"--{name}-column", metavar="NAME", help=f"the column that holds the {name}")
    own.add_argument("--again", action="store_true", help="ship the whole list once more")


def given(args: argparse.Namespace) -> bool:
    """Whether the options name a list.  Raises ConfigError when they do so in part."""
    options = {"--refs": args.refs, "--features": args.features, "--net": args.net, "--blob": args.blob}
    if not any(options.values()):
        return False
    for option, value in options.items():
        if not value:
            raise ConfigError(f"{option} is missing", "", "a list of your own needs --refs --features --net --blob")
    return True


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that the options stand for.  Raises ConfigError for a net or weights that are not there."""
    out = args.features.resolve()
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--features: {args.features} is not a folder", "", "name a folder, or one to be made")
    source: dict[str, Any] = {
        "path": os.path.abspath(args.refs),
        "format": args.format or "auto",
        "columns": {name: [value] for name in COLUMNS if (value := getattr(args, f"{name}_column"))},
    }
    if args.partner is not None:
        source["partner_id"] = args.partner
    found: dict[str, Any] = {
        "state": str(out / ".hathi" / "state"),
        "bucket.url": str(out / ".hathi" / "bucket"),
        "logs.folder": str(out / ".hathi" / "logs"),
        f"lakes.{LAKE}.url": "/",
        f"lakes.{LAKE}.sources": [source],
        f"sets.{SET}.net": str(args.net) if str(args.net) == "hog" else str(args.net.resolve()),
        f"sets.{SET}.blob": args.blob,
        f"sets.{SET}.root": str(out),
    }
    if args.weights:
        found[f"sets.{SET}.weights"] = str(args.weights.resolve())
    for path, what in ((args.net, "--net"), (args.weights, "--weights")):
        if path is not None and str(path) != "hog" and not path.exists():
            raise ConfigError(f"{what}: no file {path}", "", "look at the path")
    return found


def config_of(folder: Path) -> Path:
    """The configuration that stands beside the features of a list: what `hathi why --features DIR` reads."""
    path = folder / ".hathi" / "config.toml"
    if not path.exists():
        raise ConfigError(f"no list was run into {folder}", f"{path} is not there", "name the folder of --features")
    return path


def remember(settings: Settings) -> bool:
    """Write down what the folder is made with; whether reading changed, so that the list is to be shipped again.

    The first time the set is loaded first: nothing is remembered, and nothing shipped, for a net that cannot be used.
    Raises ConfigError when net, weights, blob or preprocessing are others than those it was made with, and as
    FeatureMaker does.
    """
    one = settings.sets[SET]
    private = Path(one.root) / ".hathi"
    features = {**one.model_dump(mode="json"), "files": [_stamp(path) for path in (one.net, one.weights) if path]}
    reading = {
        "allow_private": settings.fetch.allow_private,
        "columns": settings.lakes[LAKE].sources[0].columns.model_dump(mode="json"),
        "format": settings.lakes[LAKE].sources[0].format,
        "partner_id": settings.lakes[LAKE].sources[0].partner_id,
    }
    path = private / "options.json"
    before = json.loads(path.read_text()) if path.exists() else None
    if before is not None and before["features"] != features:
        changed = sorted(key for key in features if before["features"].get(key) != features[key])
        raise ConfigError(
            f"{one.root} holds features made otherwise",
            f"changed: {', '.join('net or weights (the file)' if key == 'files' else key for key in changed)}",
            "choose another --features folder: two kinds of features in one would mix",
        )
    if before is None:
        from pipeline.stages.features import FeatureMaker  # the net's engine takes its time to import

        FeatureMaker(settings, SET, Clock())
    try:
        private.mkdir(parents=True, exist_ok=True)
        (private / "config.toml").write_text(_toml(settings))
        path.write_text(json.dumps({"features": features, "reading": reading}, indent=1) + "\n")
    except OSError as error:
        raise typed(error, private) from error
    return before is not None and before["reading"] != reading


def ship_again(context: Context) -> None:
    """Announce what the list names, as far as it was shipped before, in a new round and as it is read now."""
    assert context.lake is not None
    source = context.settings.lakes[LAKE].sources[0]
    reading = Reading(format=source.format, columns=source.columns.model_dump(), partner_id=source.partner_id)
    ours = (context.settings.sets[SET].root.strip("/") + "/",)
    named = {one.snapshot.digest() for one in find(context.lake, source, context.process.clock.now(), ours)}
    for name, plan in rounds.newest(context, "", [SET]):
        if plan.snapshot_digest in named:
            rounds.again(context, name, plan.model_copy(update={"reading": reading}))


def _stamp(path: str) -> list[object]:
    found = Path(path)
    return [found.stat().st_size, found.stat().st_mtime_ns] if found.exists() else [path]


def _toml(settings: Settings) -> str:
    """Enough for the commands that look at the folder; strings of JSON are strings of TOML."""
    one, source = settings.sets[SET], settings.lakes[LAKE].sources[0]
    lines = [
        "# What this folder was made with, for `hathi why`, `status`, `verify` ... --features DIR.",
        f"state = {json.dumps(settings.state)}",
        f"bucket.url = {json.dumps(settings.bucket.url)}",
        f"logs.folder = {json.dumps(settings.logs.folder)}",
        f"[lakes.{LAKE}]",
        'url = "/"',
        f"[[lakes.{LAKE}.sources]]",
        f"path = {json.dumps(source.path)}",
        f"format = {json.dumps(source.format)}",
        *([f"partner_id = {source.partner_id}"] if source.partner_id is not None else []),
        f"[sets.{SET}]",
        f"net = {json.dumps(one.net)}",
        *([f"weights = {json.dumps(one.weights)}"] if one.weights else []),
        f"blob = {json.dumps(one.blob)}",
        f"root = {json.dumps(one.root)}",
    ]
    return "\n".join(lines) + "\n"
