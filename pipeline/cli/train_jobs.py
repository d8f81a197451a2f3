"""`hathi train list|show|fetch|stop|log`: trainings in the bucket."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from typing import Any

from pipeline.amounts import counted
from pipeline.app import trainings
from pipeline.app.contexts import contexts
from pipeline.app.installation import default_config
from pipeline.app.trainings import Training
from pipeline.cli.output.columns import columns
from pipeline.cli.output.training import Tested
from pipeline.cli.train import JOB_WORDS
from pipeline.errors import ConfigError
from pipeline.ledger.protocol import Context
from pipeline.process import logs
from pipeline.settings import load


def run(args: argparse.Namespace) -> int:
    """0; 2 where what is named is no training, or is at its end already."""
    action, *names = args.words
    if len(args.words) != JOB_WORDS[action]:
        takes = "takes no name" if action == "list" else "takes one training"
        raise ConfigError(f"hathi train {action} {takes}", f"given: {' '.join(names)}", "`hathi train list` names all")
    where = _contexts(args)
    if action == "list":
        return _list(trainings.trainings(where), args.json)
    one = trainings.training(where, names[0])
    if action == "fetch":
        return _fetch(one, args)
    return {"show": _show, "stop": _stop, "log": _log}[action](one, args.json)


def _contexts(args: argparse.Namespace) -> list[Context]:
    settings = load(args.config or default_config(), os.environ)
    if args.lake is not None and args.lake not in settings.lakes:
        raise ConfigError(f"no lake {args.lake}", "", f"lakes are: {', '.join(sorted(settings.lakes)) or 'none'}")
    where = contexts(settings, ["compute"], lambda: False, "train")
    return [one for one in where if args.lake in (None, one.lake_name)]


def _list(found: list[Training], as_json: bool) -> int:
    if as_json:
        for one in found:
            _put(trainings.as_tree(one))
    elif not found:
        print("no training is in the bucket")
    else:
        body = [(one.name, one.word, _reached(one), logs.redact(one.why)) for one in found]
        for line in columns([("training", "state", "iteration", ""), *body], {2}):
            print(line)
    return 0


def _reached(one: Training) -> str:
    return f"{one.standing.iteration:,}" + (f" of {one.of:,}" if one.of is not None else "")


def _show(one: Training, as_json: bool) -> int:
    tree = trainings.as_tree(one, details=True)
    if as_json:
        _put(tree)
        return 0
    _say(f"{one.name}: {one.word} {one.why}".rstrip() + f"; iteration {_reached(one)}")
    for made in tree["attempts"]:
        end = f"{made['ended']}: {made['cause']}" if made["ended"] else "has no end: it runs, or was killed"
        closed = made["ended"] is None and one.job.out is not None
        _say(f"  attempt {made['number']} by {made['process']}" + ("" if closed else f" {end}"))
    for link in tree["snapshots"]:
        size = sum(file["bytes"] for file in link["files"])
        kept = "" if all(file["there"] for file in link["files"]) else "; its files are pruned"
        best = "; the best" if link["best"] else ""
        _say(f"  snapshot {link['iteration']:,} by {link['process']}, {size:,} bytes{best}{kept}")
    if tree["engine"]:
        _say(f"  computed by {tree['engine']}" + (f" on {tree['cpu']}" if tree["cpu"] else ""))
    for file in tree["model"] or ():
        _say(f"  model: {file['key']}, {file['bytes']:,} bytes, SHA-256 {file['sha256']}")
    for line in ahead(one):
        _say(f"  {line}")
    return 0


def ahead(one: Training) -> Iterator[str]:
    """What its last test said, and what to type to have its files.  one: with its whole chain."""
    tested = Tested()
    for row in trainings.rows(one):
        tested.take(row)
    if said := tested.said(one.standing.iteration):
        yield said
    if one.job.snapshots:
        yield f"next: hathi train fetch {one.name}"


def _fetch(one: Training, args: argparse.Namespace) -> int:
    found = trainings.fetch(one, args.out, best=args.best)
    if args.json:
        _put({"job": one.name, "iteration": found.iteration, "files": [str(path) for path in found.paths]})
        return 0
    _say(f"{one.name} at iteration {found.iteration:,}, which is {one.word}:")
    for path in found.paths:
        _say(f"  {path}")
    return 0


def _stop(one: Training, as_json: bool) -> int:
    by = trainings.stop(one)
    if as_json:
        _put({"job": one.name, "stopped_by": by})
    else:
        _say(f"{one.name} is ended by {by}; who trains it stops within seconds, and its snapshots stay")
    logs.log("train").info("%s is ended by %s", one.name, by)
    return 0


def _log(one: Training, as_json: bool) -> int:
    found = trainings.rows(one)
    if not found and not as_json:
        _say(f"{one.name} has no metrics yet: they come with its snapshots")
    for row in found:
        if as_json:
            _put(row)
        else:
            _say(" ".join(_words(row)))
    return 0


def _words(row: dict[str, Any]) -> Iterator[str]:
    yield f"Iteration {row.get('step')}, {row.get('kind')}:"
    shown = [f"{name} = {value:.6g}" if isinstance(value, float) else f"{name} = {value}"
             for name, value in row.get("values", {}).items()]  # fmt: skip
    yield ", ".join(shown) or counted(0, "value")


def _put(tree: dict[str, Any]) -> None:
    print(json.dumps(tree, sort_keys=True))


def _say(text: str) -> None:
    print(logs.escape(logs.redact(text)))
