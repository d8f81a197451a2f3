"""Show the effective settings and where each came from, or check whether this host can work with them."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from pipeline.clock import Clock
from pipeline.errors import ConfigError, PipelineError
from pipeline.process.redaction import redact_text, redact_tree
from pipeline.settings import FeatureSet, Settings, reading
from pipeline.settings.leaves import flatten
from pipeline.settings.places import folder_of
from pipeline.stage_names import ON_THE_LAKE, STAGES
from pipeline.stores.store import Store

DIFF = "say which settings of two files differ that have to match between a gateway and a box"
LEFT_OUT = 10
"""Paths of a source that are not read, of those that a check names."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What `check` has to say of one setting."""

    level: Literal["ok", "warning", "error"]
    key: str
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`hathi config show|get|check|reference [--config FILE] [--json]`, for `check` also the stages of this host;
    `hathi config diff A B`."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True, dest="action")
    purposes = {
        "show": "print the effective settings",
        "get": "print the values of some settings, one a line",
        "check": "say what would not work here",
        "reference": "print every setting with its meaning and default: config/reference.toml",
    }
    between = actions.add_parser("diff", help=DIFF, description=f"{DIFF}.  Exit codes: 0 equal, 1 different.")
    between.add_argument("first", type=Path, metavar="A", help="a configuration file, e.g. the gateway's")
    between.add_argument("second", type=Path, metavar="B", help="another one, e.g. the box's")
    between.add_argument("--all", action="store_true", help="every setting, not only what has to match")
    between.add_argument("--json", action="store_true", help="for programs")
    for name, purpose in purposes.items():
        below = actions.add_parser(name, help=purpose, description=purpose)
        if name == "reference":
            continue
        below.add_argument(
            "--config", type=Path, metavar="FILE", help="the configuration file (default: $HATHI_CONFIG, else none)"
        )
        if name == "get":
            below.add_argument("keys", nargs="+", metavar="KEY", help="the path of a setting, e.g. logs.folder")
        else:
            below.add_argument("--json", action="store_true", help="for programs")
        if name == "check":
            below.add_argument(
                "stages",
                nargs="*",
                metavar="STAGE",
                help=(f"the stages that this host runs: {', '.join(STAGES)} (default: all)"),
            )


def run(args: argparse.Namespace) -> int:
    """0; 1 when `diff` found a difference; 2 when `check` found an error."""
    if args.action == "reference":
        from pipeline.settings.reference import reference

        print(reference(), end="")
        return 0
    if args.action == "diff":
        return _diff(args)
    path = args.config or (Path(os.environ["HATHI_CONFIG"]) if os.environ.get("HATHI_CONFIG") else None)
    effective = reading.read(Settings, path, os.environ, {})
    settings = reading.validate(Settings, effective)
    if args.action == "show":
        _show(settings, effective, args.json)
        return 0
    if args.action == "get":
        _get(settings, args.keys)
        return 0
    stages = tuple(args.stages) or STAGES
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise ConfigError(f"unknown stage {unknown[0]}", f"stages: {', '.join(STAGES)}")
    findings = [*check(settings, stages), *_unread_variables(os.environ)]
    for finding in findings:
        if args.json:
            print(json.dumps(redact_tree(asdict(finding))))
        else:
            print(redact_text(f"{finding.level:8} {finding.key:32} {finding.text}"))
    errors = sum(finding.level == "error" for finding in findings)
    if not args.json:
        warnings = sum(finding.level == "warning" for finding in findings)
        print(f"{path or 'settings'}: {errors} errors, {warnings} warnings")
    return 2 if errors else 0


def _diff(args: argparse.Namespace) -> int:
    from pipeline.app.config_diff import Side, everything, that_matters  # reads nets: not for who shows a setting

    first, second = Side.of(args.first), Side.of(args.second)
    found = list(everything(first, second) if args.all else that_matters(first, second))
    if args.json:
        print(json.dumps([redact_tree(asdict(one)) for one in found], indent=1))
        return int(bool(found))
    for one in found:
        print(redact_text(one.key))
        print(redact_text(f"  {args.first}: {one.first}"))
        print(redact_text(f"  {args.second}: {one.second}"))
    what = f"{len(found)} different" if found else "nothing differs"
    whole = "of all settings" if args.all else "of what has to match between a gateway and a box"
    print(f"{what}, {whole}" + ("" if args.all else "; --all shows every setting that differs"))
    return int(bool(found))


def check(settings: Settings, stages: tuple[str, ...] = STAGES, *, probing: bool = True) -> Iterator[Finding]:
    """Everything that can be known before work: folders, nets, rules that are lifted, stores unless not `probing`."""
    folders = list(_folders(settings, stages))
    yield from folders
    yield from _sets(settings, stages)
    yield from _lifted_rules(settings)
    yield from _metrics(settings)
    yield from _lakes(settings, stages)
    if probing:
        broken = {finding.key for finding in folders if finding.level == "error"}
        yield from probe_stores(settings, stages, broken)


def probe_stores(settings: Settings, stages: tuple[str, ...], broken: set[str]) -> Iterator[Finding]:
    """Ask each store whether its put-if-absent really refuses the second writer (docs/protocol.md 2).

    broken: stores of which it is known already that they cannot be used.
    """
    from pipeline.stores.opening import hasty, open_bucket, open_lake, probe

    settings = hasty(settings)
    stores: list[tuple[str, Callable[[], Store], str]] = [("bucket.url", lambda: open_bucket(settings), "")]
    if "deliver" in stages:
        roots = sorted({one.folder for one in settings.sets.values()}) or [""]
        for name in settings.lakes:
            stores.append((f"lakes.{name}.url", partial(open_lake, settings, name), f"{roots[0]}/_tmp/"))
    for key, opened, prefix in stores:
        if key in broken:
            continue
        try:
            probe(opened(), prefix)
        except PipelineError as error:
            yield Finding("error", key, str(error))
        else:
            yield Finding("ok", key, "put-if-absent lets one writer win")


def _show(settings: Settings, effective: reading.Effective, as_json: bool) -> None:
    rows = [(key, redact_tree(value), effective.origin(key)) for key, value in flatten(settings)]
    if as_json:
        print(json.dumps({key: {"value": value, "from": origin} for key, value, origin in rows}, indent=1))
        return
    for key, value, origin in rows:
        print(f"{key} = {json.dumps(value, ensure_ascii=False)}  # {origin}")


def _get(settings: Settings, keys: list[str]) -> None:
    """Texts as they are, all else as JSON: what a shell script can use."""
    values = dict(flatten(settings))
    for key in keys:
        if key not in values:
            raise ConfigError(f"no such setting: {key}", hint="`hathi config show` names them all")
        print(values[key] if isinstance(values[key], str) else json.dumps(values[key]))


def _folders(settings: Settings, stages: tuple[str, ...]) -> Iterator[Finding]:
    places = [("state", settings.state), ("logs.folder", settings.logs.folder), ("bucket.url", settings.bucket.url)]
    if set(ON_THE_LAKE) & set(stages):
        places += [(f"lakes.{name}.url", lake.url) for name, lake in settings.lakes.items()]
    for key, url in places:
        if (folder := folder_of(url)) is not None:
            yield _writable(key, folder)


def _writable(key: str, folder: Path) -> Finding:
    """A file is really written where the folder exists; else its nearest parent has to allow it."""
    parent = folder
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        return Finding("error", key, f"{parent} is not a folder")
    try:
        with tempfile.NamedTemporaryFile(dir=parent, prefix=".hathi-check-"):
            pass
    except OSError as error:
        return Finding("error", key, f"{parent} cannot be written: {error.strerror}")
    return Finding("ok", key, f"{folder} can be written" if parent == folder else f"{folder} will be made")


def _sets(settings: Settings, stages: tuple[str, ...]) -> Iterator[Finding]:
    if not settings.sets:
        yield Finding("warning", "sets", "no feature set is configured: there is nothing to compute")
    for name, feature_set in settings.sets.items():
        lakes = list(settings.lakes) if feature_set.lakes is None else feature_set.lakes
        if not lakes:
            yield Finding("warning", f"sets.{name}.lakes", "no lake: nothing is ever shipped for this set")
        if "compute" in stages:
            yield from _net(f"sets.{name}", feature_set)


def _net(key: str, feature_set: FeatureSet) -> Iterator[Finding]:
    if feature_set.net.endswith(".prototxt") and feature_set.weights is None:
        yield Finding("warning", f"{key}.weights", "a prototxt without weights: its blobs are what its fillers make")
    mean = feature_set.preprocess.mean
    named = {"net": feature_set.net, "weights": feature_set.weights, "preprocess.mean": mean}
    if os.path.basename(feature_set.net) == "hog":  # a descriptor, not a file
        named["net"] = None
        yield Finding("ok", f"{key}.net", "hog: a descriptor that needs no file")
    for part, path in named.items():
        if isinstance(path, str):
            readable = os.path.isfile(path) and os.access(path, os.R_OK)
            text = path if readable else f"{path} is not a file that can be read"
            yield Finding("ok" if readable else "error", f"{key}.{part}", text)


def _lifted_rules(settings: Settings) -> Iterator[Finding]:
    fetch = settings.fetch
    if fetch.allow_private:
        yield Finding("warning", "fetch.allow_private", "true: URLs may reach this host and its private networks")
    if fetch.allow_downgrade:
        yield Finding("warning", "fetch.allow_downgrade", "on: redirects from https to http are followed")
    if fetch.contact == type(fetch).model_fields["contact"].default:
        yield Finding("warning", "fetch.contact", "not set: the owner of a host cannot ask you before blocking Hathi")
    if not settings.logs.redact_queries:
        yield Finding("warning", "logs.redact_queries", "false: logs and reports show signed URLs, which are secrets")


def _metrics(settings: Settings) -> Iterator[Finding]:
    file = settings.metrics.file
    if file is not None and not file.endswith(".prom"):
        yield Finding("warning", "metrics.file", f"{file} does not end in .prom: the node exporter ignores it")


def _lakes(settings: Settings, stages: tuple[str, ...]) -> Iterator[Finding]:
    if set(ON_THE_LAKE) & set(stages):
        try:
            settings.check_lakes()
        except ConfigError as error:
            yield Finding("error", "lakes", str(error))
    if not settings.lakes:
        yield Finding("warning", "lakes", "no lake is configured: there is nothing to ship")
    for name, lake in settings.lakes.items():
        if "ship" not in stages:
            continue
        if not lake.sources:
            yield Finding("warning", f"lakes.{name}.sources", "no source: nothing is shipped from this lake")
        if (folder := folder_of(lake.url)) is not None:
            yield from _sources(settings, name, folder)


def _sources(settings: Settings, name: str, folder: Path) -> Iterator[Finding]:
    """What ship would find in a folder lake, and what it would leave out."""
    from pipeline.sources.conventions import Sources  # the readers of tables take their time to import
    from pipeline.stores.local import LocalStore

    lake = settings.lakes[name]
    store = LocalStore(folder, fsync=False, links=lake.follow_links)
    for number, source in enumerate(lake.sources):
        key = f"lakes.{name}.sources.{number}.path"
        if not folder.is_dir():
            yield Finding("warning", key, f"{folder / source.path} does not exist (yet)")
            continue
        named = Sources(store, [source], settings.delivered(name), lake.url).look(Clock().now())
        for why in named.troubles.values():
            yield Finding("warning", key, why)
        for path, why in list(named.left.first.items())[:LEFT_OUT]:
            yield Finding("warning", key, f"not read: {path}: {why}")
        if named.left.number > LEFT_OUT:
            yield Finding("warning", key, f"not read: {named.left.number - LEFT_OUT:,} more files or folders")


def _unread_variables(environ: Mapping[str, str]) -> Iterator[Finding]:
    """HATHI_ variables that name no setting; those with sections were refused when the settings were read."""
    known = {reading.PREFIX + name.upper() for name in Settings.model_fields} | {"HATHI_CONFIG"}
    for name in sorted(environ):
        if name.startswith(reading.PREFIX) and reading.DELIMITER not in name and name not in known:
            yield Finding("warning", name, "this variable names no setting")
