"""Write a configuration, show its settings and where each came from, compare two, or check one on this host."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from pipeline.app.config_init import QUESTIONS, ROLES, Question, option, questions, text_of, write
from pipeline.app.installation import DEFAULT, default_config
from pipeline.errors import ConfigError
from pipeline.process.redaction import redact_text, redact_tree
from pipeline.settings import Settings, reading
from pipeline.settings.leaves import flatten
from pipeline.stage_names import STAGES

INIT = "write a minimal configuration for a host, with your own values"
DIFF = "say which settings of two files differ that have to match between a gateway and a box"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`hathi config show|get|check|reference [--config FILE] [--json]`, for `check` also the stages of this host;
    `hathi config diff A B`; `hathi config init ROLE [FILE]`."""
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
    between.add_argument("--json", action="store_true", help="print JSON, for programs")
    made = actions.add_parser("init", help=INIT, description=f"{INIT}.  On a terminal it asks for what is not given.")
    made.add_argument("role", choices=ROLES, help="what the host is")
    made.add_argument("file", nargs="?", type=Path, metavar="FILE", help="default: ROLE.toml in this folder")
    for one in QUESTIONS:
        whose = "" if one.roles == ROLES else f" ({', '.join(one.roles)})"
        default = f" (default: {one.default})" if one.default else ""
        made.add_argument(option(one.name), dest=one.name, metavar="TEXT", help=f"{one.asks}{whose}{default}")
    made.add_argument("--yes", action="store_true", help="write over a file that is there")
    for name, purpose in purposes.items():
        below = actions.add_parser(name, help=purpose, description=purpose)
        if name == "reference":
            continue
        below.add_argument("--config", type=Path, metavar="FILE", help=f"the configuration file (default: {DEFAULT})")
        if name == "get":
            below.add_argument("keys", nargs="+", metavar="KEY", help="the path of a setting, e.g. logs.folder")
        else:
            below.add_argument("--json", action="store_true", help="print JSON, for programs")
        if name == "check":
            below.add_argument(
                "stages",
                nargs="*",
                metavar="STAGE",
                help=(f"the stages that this host runs: {', '.join(STAGES)} (default: those of its role)"),
            )


def run(args: argparse.Namespace) -> int:
    """0; 1 when `diff` found a difference; 2 when `check` found an error."""
    if args.action == "reference":
        from pipeline.settings.reference import reference

        print(reference(), end="")
        return 0
    if args.action == "init":
        return _init(args)
    if args.action == "diff":
        return _diff(args)
    path = args.config or default_config()
    effective = reading.read(Settings, path, os.environ, {})
    settings = reading.validate(Settings, effective)
    if args.action == "show":
        _show(settings, effective, args.json)
        return 0
    if args.action == "get":
        _get(settings, args.keys)
        return 0
    stages = tuple(args.stages) or settings.stages
    if unknown := [stage for stage in stages if stage not in STAGES]:
        raise ConfigError(f"unknown stage {unknown[0]}", f"stages: {', '.join(STAGES)}")
    from pipeline.app.config_check import Finding, check, unread_variables  # opens stores and loads nets

    findings: list[Finding] = [*check(settings, stages), *unread_variables(os.environ)]
    for finding in findings:
        if args.json:
            print(json.dumps(redact_tree(asdict(finding))))
        else:
            print(redact_text(f"{finding.level:8} {finding.key:32} {finding.text}"))
    errors = sum(finding.level == "error" for finding in findings)
    if not args.json:
        warnings = sum(finding.level == "warning" for finding in findings)
        print(f"{path}: {errors} errors, {warnings} warnings")
    return 2 if errors else 0


def _init(args: argparse.Namespace) -> int:
    path = args.file or Path(f"{args.role}.toml")
    given = {one.name: getattr(args, one.name) for one in QUESTIONS if getattr(args, one.name) is not None}
    if path.exists() and not args.yes:
        write(path, "", over=False)
    if sys.stdin.isatty():
        for one in questions(args.role):
            if one.name not in given and one.is_of(given):
                given[one.name] = _asked(one)
    text = text_of(args.role, given, path)
    write(path, text, over=args.yes)
    print(f"wrote {path}; next: hathi config check --config {shlex.quote(str(path))}")
    return 0


def _asked(one: Question) -> str:
    """A person's answer; one that is needed is asked for until it is given."""
    known = f" [{one.default}]" if one.default else " (optional)" if one.default == "" else ""
    while True:
        print(f"{one.name.replace('_', ' ')}: {one.asks}{known}: ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise ConfigError(f"no answer: {one.asks}", "nothing was written", f"give {option(one.name)}")
        if line.strip() or one.default is not None:
            return line.strip()


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
