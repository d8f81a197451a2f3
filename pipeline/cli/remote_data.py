"""`hathi remote push|datasets|dataset`: files for a service, and data sets of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipeline.amounts import counted
from pipeline.cli import remote
from pipeline.cli.output.progress import shown
from pipeline.errors import ConfigError, PermanentError, PipelineError

if TYPE_CHECKING:
    from pipeline.remote.client import Client
    from pipeline.remote.documents import Datafile, Dataset

Add = Callable[[str, str], argparse.ArgumentParser]


def add_to(add: Add) -> None:
    """Their command lines."""
    push = add("push", "upload an archive, an HDF5 file, an LMDB or a mean; or have an archive fetched from a URL")
    push.add_argument("file", metavar="FILE|URL")
    push.add_argument("--name", default="", help="the datafile's name (default: the file's)")
    push.add_argument("--datafile", default="", metavar="ID", help="go on with an upload that was begun before")
    push.set_defaults(does=_push)
    dataset = add("dataset", "make a dataset of a pushed archive, and wait until it is imported")
    dataset.add_argument("name", metavar="NAME")
    dataset.add_argument("datafile", metavar="DATAFILE", help="its id, or a file or URL to push first")
    dataset.add_argument(
        "--split", type=split, metavar="TRAIN/TEST", help="shares, as 80/20 or 70/10/20 with validation"
    )
    dataset.set_defaults(does=_dataset)
    add("datasets", "list the datasets").set_defaults(does=_datasets)


def split(text: str) -> dict[str, int]:
    """`80/20` or `70/10/20`: train, (validation,) test."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text} is not as 80/20 or 70/10/20")
    names = ("train", "test") if len(parts) == 2 else ("train", "validation", "test")
    return {name: int(part) for name, part in zip(names, parts, strict=True)}


def pushed(service: Client, file: str, name: str = "", datafile: str = "") -> Datafile:
    """A datafile of a path or a URL, with its progress on stderr."""
    if file.startswith(("http://", "https://")):
        return service.push_url(file)
    at = 0
    with shown() as show:

        def moved(to: int) -> None:
            nonlocal at
            show("push", to - at, 0)
            at = to

        begun = datafile or _announced(service, file, name)
        show("push", 0, _size(file))
        try:
            return service.push(file, datafile=begun, moved=moved)
        except (KeyboardInterrupt, PipelineError):
            remote.warn(f"what has come stays: hathi remote push {file} --datafile {begun} goes on")
            raise


def datafile_of(service: Client, word: str) -> str:
    """The id of a datafile that is named by it, or by what has to be pushed first."""
    return word if word.startswith("df_") else pushed(service, word)["id"]


def imported(service: Client, dataset: Dataset) -> Dataset:
    """It, once its import has succeeded.  Raises PermanentError."""
    so_far = 0
    with shown() as show:

        def looked(one: Dataset) -> None:
            nonlocal so_far
            now = int(one["progress"].get("entries") or 0)
            show("import", now - so_far, 0)
            so_far = now

        one = service.imported(dataset["id"], looked)
    if one["state"] != "succeeded":
        raise PermanentError(
            f"the import of {one['id']} {one['state']}", f"{one['reason']}: {one['detail']}", "push another archive"
        )
    return one


def _size(file: str) -> int:
    from pathlib import Path

    return Path(file).stat().st_size


def _announced(service: Client, file: str, name: str) -> str:
    from pathlib import Path

    path = Path(file)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", error.strerror or str(error), "give a file or a URL") from error
    if not path.is_file() or not size:
        raise ConfigError(f"{path} is no file with something in it", "", "give a file or a URL")
    return service.announce(name or path.name, size)["id"]


def _push(args: argparse.Namespace) -> int:
    found = pushed(remote.client(), args.file, args.name, args.datafile)
    if args.json:
        remote.put(found)
    else:
        remote.say(f"{found['id']}: {found['name']}, {found['size']:,} bytes")
    return 0


def _dataset(args: argparse.Namespace) -> int:
    service = remote.client()
    made = service.make_dataset(args.name, datafile_of(service, args.datafile), args.split)
    found = imported(service, made)
    if args.json:
        remote.put(found)
        return 0
    for line in told(found):
        remote.say(line)
    return 0


def told(one: Dataset) -> list[str]:
    """What came of an import."""
    held = one["contents"]
    if held is None:
        return [f"{one['id']}: {one['name']}"]
    sides = ", ".join(f"{name} {side['examples']:,}" for name, side in sorted(held["sides"].items()))
    lines = [
        f"{one['id']}: {one['name']}, {counted(held['examples'], 'picture')} of {len(held['classes'])} labels; {sides}"
    ]
    if held["duplicates"]:
        lines.append(f"  {counted(held['duplicates'], 'duplicate')}")
    lines += [f"  {number:,} rejected: {reason}" for reason, number in sorted(held["rejected"].items())]
    return lines + [f"  {text}" for text in held["warnings"]]


def _datasets(args: argparse.Namespace) -> int:
    def examples(one: Any) -> str:
        return f"{one['contents']['examples']:,}" if one["contents"] else ""

    heads: dict[str, Callable[[Any], str]] = {
        "dataset": lambda one: one["id"], "name": lambda one: one["name"], "state": lambda one: one["state"],
        "pictures": examples, "made": lambda one: remote.at(one["created_at"]),
    }  # fmt: skip
    return remote.table(args, remote.client().datasets(), heads)
