"""`hathi remote train|resume|clone|jobs|watch|cancel|log|fetch`: trainings of a service."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pipeline.cli import remote
from pipeline.cli.output.progress import shown
from pipeline.cli.output.training import Tested
from pipeline.cli.remote_data import Add, datafile_of, imported, told
from pipeline.errors import ConfigError, Diverged, OutOfMemory, PermanentError
from pipeline.process.interrupts import INTERRUPTED

if TYPE_CHECKING:
    from pipeline.remote.client import Client
    from pipeline.remote.documents import Job, JobSeen, Solver


def add_to(add: Add) -> None:
    """Their command lines."""
    from pipeline.remote.documents import State

    train = add("train", "queue a training; data that is not there yet is pushed and imported first")
    train.add_argument("solver", type=Path, metavar="SOLVER", help="its .prototxt")
    train.add_argument("net", type=Path, metavar="NET", help="its .prototxt")
    train.add_argument(
        "--data", default="", metavar="DATASET|FILE|URL", help="a dataset's id, or an archive of pictures"
    )
    train.add_argument("--input", action="append", default=[], type=_input, metavar="NAME=DATAFILE|FILE",
                       help="what a data layer reads, by the name of its source; without --data")  # fmt: skip
    train.add_argument("--name", default="", help="of all that is made (default: the solver's file)")
    _asked_of(train, ("--seed", *_OF_ALL))
    train.set_defaults(does=_train)
    resume = add(
        "resume", "queue a training that goes on from a snapshot of another one, bit for bit as if it had never ended"
    )
    clone = add("clone", "queue a training with the solver and the data of another one, from iteration 0")
    for one, options, does in (
        (resume, ("--iteration", "--max-iter"), _resume),
        (clone, ("--max-iter", "--seed"), _clone),
    ):
        one.add_argument("job", metavar="JOB", help="its id, which `hathi remote jobs` shows")
        one.add_argument("--name", default=None, help="of the new one (default: the same)")
        _asked_of(one, (*options, *_OF_ALL))
        one.set_defaults(does=does)
    jobs = add("jobs", "list the trainings, the newest first")
    jobs.add_argument("--state", default="", choices=get_args(State), help="only those")
    jobs.set_defaults(does=_jobs)
    for name, purpose, does in (
        ("watch", "show a training until it is over; Ctrl-C leaves it running", _watch),
        ("cancel", "end a training", _cancel), ("log", "print the end of a training's log", _log),
        ("fetch", "download the newest snapshot of a training", _fetch),
    ):  # fmt: skip
        one = add(name, purpose)
        one.add_argument("job", metavar="JOB", help="its id, which `hathi remote jobs` shows")
        one.set_defaults(does=does)
        if name == "fetch":
            one.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="where to (default: here)")


_OF_ALL = ("--priority", "--max-seconds")
_SAID = {
    "--seed": "of all draws", "--priority": "among the tenant's own; the greater first",
    "--max-seconds": "the job fails when it has run so long", "--max-iter": "in place of the solver's",
    "--iteration": "of the snapshot to go on from (default: the newest)",
}  # fmt: skip


def _asked_of(parser: argparse.ArgumentParser, options: Sequence[str]) -> None:
    for option in options:
        parser.add_argument(option, type=int, default=None, metavar="N", help=_SAID[option])
    parser.add_argument("--follow", action="store_true", help="show it until it is over; Ctrl-C leaves it running")


def _input(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name or not value:
        raise argparse.ArgumentTypeError(f"{text} is not as NAME=FILE")
    return name, value


def _train(args: argparse.Namespace) -> int:
    texts = {path: _text(path) for path in (args.solver, args.net)}
    service, name = remote.client(), args.name or args.solver.stem
    if args.data and args.input:
        raise ConfigError("--data and --input were both given", "", "a net reads a dataset, or files by their names")
    dataset = _dataset_of(service, args, name) if args.data else None
    inputs = {one: datafile_of(service, word) for one, word in args.input}
    solver = service.make_solver(name, texts[args.solver], texts[args.net], dataset)
    if not args.json:
        _warn(solver)
    return _queued(service, service.train(name, solver["id"], inputs or None, **_changes(args, "seed")), args)


def _changes(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those that were given, by the names of the API."""
    found = {name: getattr(args, name) for name in (*names, "priority", "max_seconds")}
    return {name: value for name, value in found.items() if value is not None}


def _resume(args: argparse.Namespace) -> int:
    service = remote.client()
    return _queued(service, service.resume(args.job, **_changes(args, "name", "iteration", "max_iter")), args)


def _clone(args: argparse.Namespace) -> int:
    service = remote.client()
    return _queued(service, service.clone(args.job, **_changes(args, "name", "seed", "max_iter")), args)


def _queued(service: Client, job: Job, args: argparse.Namespace) -> int:
    """Says that a training was asked for, or shows it until it is over."""
    if args.follow:
        remote.warn(f"{job['id']} is {job['state']}")
        return follow(service, job["id"], args.json, events=False)
    if args.json:
        remote.put(job)
    else:
        remote.say(f"{job['id']} is {job['state']}: hathi remote watch {job['id']}")
    return 0


def _dataset_of(service: Client, args: argparse.Namespace, name: str) -> str:
    if args.data.startswith("ds_"):
        return str(args.data)
    made = imported(service, service.make_dataset(name, datafile_of(service, args.data)))
    for line in told(made):
        remote.warn(line)
    return made["id"]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path} cannot be read", str(error), "give the text of a .prototxt") from error


def _warn(solver: Solver) -> None:
    for text in solver["warnings"]:
        remote.warn(f"warning: {text}")


def follow(service: Client, job: str, as_json: bool, *, events: bool) -> int:
    """Shows a training until it is over.  as_json: its document at the end; events: each event as it comes, too.

    Raises PermanentError where it did not succeed; an interrupt leaves it running.
    """
    tested, done = Tested(), 0
    try:
        with shown() as show:
            for event in service.events(job):
                if events and as_json:
                    remote.put({"id": event.id, "event": event.kind, "data": event.data})
                    continue
                if event.kind == "metrics":
                    for row in event.data["rows"]:
                        before = tested.said()
                        tested.take(row)
                        if (said := tested.said()) != before:
                            remote.warn(f"iteration {row['step']:,}: {said}")
                elif event.kind == "job":
                    progress = event.data["progress"]
                    now = int(progress.get("iteration") or 0)
                    if not done and now:
                        show("train", 0, int(progress.get("of") or 0))
                    show("train", now - done, 0)
                    done = now
    except KeyboardInterrupt:
        remote.warn(f"{job} goes on; hathi remote watch {job} shows it, hathi remote cancel {job} ends it")
        return INTERRUPTED
    return _ended(service.job(job), as_json and not events, quiet=as_json)


def _ended(one: JobSeen, as_json: bool, *, quiet: bool) -> int:
    """0.  Raises what fits the reason of a job that did not succeed."""
    if as_json:
        remote.put(one)
    if one["state"] == "succeeded":
        if not quiet:
            remote.say(f"{one['id']} succeeded; next: hathi remote classifier {one['name']} --job {one['id']}")
        return 0
    kinds = {"diverged": Diverged, "out_of_memory": OutOfMemory}
    said = f"{one['reason']}: {one['detail']}" if one["reason"] else one["detail"]
    raise kinds.get(one["reason"] or "", PermanentError)(
        f"{one['id']} is {one['state']}", said, f"its log: hathi remote log {one['id']}"
    )


def _jobs(args: argparse.Namespace) -> int:
    def reached(one: Any) -> str:
        iteration = one["progress"].get("iteration")
        return f"{iteration:,}" if iteration else ""

    heads: dict[str, Callable[[Any], str]] = {
        "job": lambda one: one["id"], "name": lambda one: one["name"],
        "state": lambda one: one["state"] + (f": {one['reason']}" if one["reason"] else ""),
        "iteration": reached, "queued": lambda one: remote.at(one["created_at"]),
    }  # fmt: skip
    return remote.table(args, remote.client().jobs(args.state), heads)


def _watch(args: argparse.Namespace) -> int:
    return follow(remote.client(), args.job, args.json, events=True)


def _cancel(args: argparse.Namespace) -> int:
    one = remote.client().cancel(args.job)
    if args.json:
        remote.put(one)
    else:
        remote.say(f"{one['id']} is {one['state']}" if one["finished_at"] else f"{one['id']} ends within seconds")
    return 0


def _log(args: argparse.Namespace) -> int:
    text = remote.client().log(args.job)
    if args.json:
        remote.put({"job": args.job, "log": text})
    else:
        for line in text.splitlines():
            remote.say(line)
    return 0


def _fetch(args: argparse.Namespace) -> int:
    service = remote.client()
    found = service.snapshots(args.job)
    if not found:
        raise PermanentError(f"{args.job} has no snapshot yet", "", f"hathi remote watch {args.job}")
    newest = found[0]
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{args.out} cannot be made", error.strerror or str(error), "give another folder") from error
    names = [Path(one["name"]).name for one in newest["files"]]
    files = [service.download(args.job, newest["iteration"], name, args.out / name) for name in names]
    if args.json:
        remote.put({"job": args.job, "iteration": newest["iteration"], "files": [str(path) for path in files]})
        return 0
    print(f"iteration {newest['iteration']:,}:", file=sys.stdout)
    for path in files:
        remote.say(f"  {path}")
    return 0
