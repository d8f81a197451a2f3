"""`hathi remote models|version|alias|promote|classifier|classify`: what came of trainings, and asking it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipeline.cli import remote
from pipeline.cli.remote_data import Add
from pipeline.errors import ConfigError, NotFound, PermanentError

if TYPE_CHECKING:
    from pipeline.remote.documents import Classified


def add_to(add: Add) -> None:
    """Their command lines."""
    add("models", "list the models, and which version each alias names").set_defaults(does=_models)
    version = add(
        "version", "make a training's snapshot the next version of a model, which is made where it is missing"
    )
    version.add_argument("model", metavar="MODEL", help="its name")
    version.add_argument("job", metavar="JOB")
    version.add_argument("--alias", default="", metavar="ALIAS", help="it names this version from now on")
    version.add_argument("--note", default="", help="what is to be remembered of it")
    version.set_defaults(does=_version)
    alias = add("alias", "let an alias name a version of a model")
    alias.add_argument("model", metavar="MODEL", help="its name")
    alias.add_argument("alias", metavar="ALIAS")
    alias.add_argument("version", metavar="VERSION", type=int)
    alias.set_defaults(does=_alias)
    promote = add(
        "promote", "put a version of a model into use in the lake, for a feature set that is granted to the tenant"
    )
    promote.add_argument("model", metavar="MODEL", help="its name")
    promote.add_argument("feature_set", metavar="SET", help="the feature set that follows it from now on")
    promote.add_argument("--alias", default="", metavar="ALIAS", help="the version that it names now")
    promote.add_argument("--version", type=int, default=None, metavar="N", help="this version")
    promote.add_argument("--backfill", action="store_true", help="also compute anew what the set has delivered before")
    promote.add_argument("--why", default="", help="what is to be remembered of it")
    promote.set_defaults(does=_promote)
    classifier = add("classifier", "make a classifier of a training, or of a model's version or alias")
    classifier.add_argument("name", metavar="NAME")
    classifier.add_argument("--job", default="", metavar="JOB", help="the newest snapshot of this training")
    classifier.add_argument("--model", default="", metavar="MODEL", help="a model's name, with --alias or --version")
    classifier.add_argument("--alias", default="", metavar="ALIAS", help="whichever version it names when asked")
    classifier.add_argument("--version", type=int, default=None, metavar="N", help="this version")
    classifier.set_defaults(does=_classifier)
    classify = add("classify", "say what pictures show")
    classify.add_argument("classifier", metavar="CLASSIFIER", help="its id")
    classify.add_argument("pictures", nargs="+", metavar="FILE|URL")
    classify.add_argument("--top", type=int, default=3, metavar="N", help="so many of the likeliest (default: 3)")
    classify.set_defaults(does=_classify)


def _models(args: argparse.Namespace) -> int:
    def aliases(one: Any) -> str:
        return ", ".join(f"{name} = {version}" for name, version in sorted(one["aliases"].items()))

    heads: dict[str, Callable[[Any], str]] = {
        "model": lambda one: one["id"], "name": lambda one: one["name"], "aliases": aliases,
        "made": lambda one: remote.at(one["created_at"]),
    }  # fmt: skip
    return remote.table(args, remote.client().models(), heads)


def _version(args: argparse.Namespace) -> int:
    service = remote.client()
    try:
        model = service.model_named(args.model)
    except NotFound:
        model = service.make_model(args.model)
    made = service.add_version(model["id"], args.job, note=args.note)
    if args.alias:
        service.put_alias(model["id"], args.alias, made["number"])
    if args.json:
        remote.put(made)
        return 0
    figures = ", ".join(f"{name} {value:.4g}" for name, value in sorted(made["figures"].items()))
    called = f", which {args.alias} names" if args.alias else ""
    remote.say(f"{model['name']} has version {made['number']}{called}" + (f": {figures}" if figures else ""))
    return 0


def _alias(args: argparse.Namespace) -> int:
    service = remote.client()
    found = service.put_alias(service.model_named(args.model)["id"], args.alias, args.version)
    if args.json:
        remote.put(found)
    else:
        remote.say(f"{args.alias} of {args.model} names version {found['version']}")
    return 0


def _promote(args: argparse.Namespace) -> int:
    if bool(args.alias) == (args.version is not None):
        raise ConfigError("it is not clear which version goes into use", "", "--alias ALIAS or --version N")
    service = remote.client()
    which: dict[str, Any] = {"alias": args.alias} if args.alias else {"version": args.version}
    model = service.model_named(args.model)
    made = service.promote(args.feature_set, model["id"], **which, backfill=args.backfill, why=args.why)
    found = service.promoted(made["id"])
    if args.json:
        remote.put(found)
    if found["state"] != "succeeded":
        said = f"{found['reason']}: {found['detail']}"
        raise PermanentError(
            f"the promotion {found['id']} {found['state']}", said, "ask an operator of the installation"
        )
    for one in () if args.json else found["in_use"] or ():
        again = "" if one["new"] else ", as before"
        remote.say(f"{one['lake']}: {found['feature_set']} follows {one['model']}@{one['number']}{again}")
    return 0


def _classifier(args: argparse.Namespace) -> int:
    service = remote.client()
    if bool(args.job) == bool(args.model) or (args.model and bool(args.alias) == (args.version is not None)):
        raise ConfigError(
            "it is not clear of what the classifier is", "", "--job JOB, or --model MODEL with --alias or --version"
        )
    of: dict[str, Any] = {"training_job_id": args.job}
    if args.model:
        of = {"model_id": service.model_named(args.model)["id"]}
        of |= {"alias": args.alias} if args.alias else {"version": args.version}
    made = service.make_classifier(args.name, **of)
    if args.json:
        remote.put(made)
    else:
        remote.say(f"{made['id']}: {made['name']}; next: hathi remote classify {made['id']} PICTURE")
    return 0


def _classify(args: argparse.Namespace) -> int:
    """0; 1 where a picture has no prediction."""
    failed = 0
    for one in remote.client().classify(args.classifier, args.pictures, args.top):
        failed += one["failure"] is not None
        if args.json:
            remote.put(one)
        else:
            remote.say(f"{one['name']}: {_said(one)}")
    return int(failed > 0)


def _said(one: Classified) -> str:
    if one["failure"] is not None:
        return f"failed, {one['failure']['reason']}: {one['failure']['detail']}"
    shown = []
    for found in one["predictions"] or ():
        value = found["probability"]
        shown.append(f"{found['label']} {value:.1%}" if value is not None else f"{found['label']} {found['score']:.4g}")
    return ", ".join(shown)
