"""Fetch URLs with the pipeline's own fetcher, by its own rules: to see why an image is missing, or to get it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TextIO

from pipeline.amounts import counted
from pipeline.errors import ConfigError
from pipeline.process.logs import escape
from pipeline.process.redaction import redact_query, redact_text, redact_tree

if TYPE_CHECKING:
    from pipeline.fetch import Fetched
    from pipeline.records import Failure

_SHOWN = 200
"""Characters of a URL in the text output: a data: URL can be a whole image."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`hathi fetch [--config FILE] [--allow-private] [--json] [--urls FILE|-] [--save DIR] [URL...]`."""
    parser.add_argument("url", nargs="*", metavar="URL", help="the URLs to fetch")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=("the configuration file (default: $HATHI_CONFIG, else built-in defaults)"),
    )
    parser.add_argument(
        "--allow-private",
        action="store_true",
        help=("also fetch from private addresses and any port; all other rules stay"),
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object for each URL as it ends, with its place in the list, from 0",
    )
    parser.add_argument("--urls", metavar="FILE", help="a file with one URL a line; - is standard input")
    parser.add_argument(
        "--save", type=Path, metavar="DIR", help=("save the images in this folder; their names are their SHA-256")
    )


def run(args: argparse.Namespace) -> int:
    """0, whatever the URLs did."""
    from pipeline.fetch import Fetcher
    from pipeline.fetch.objects import reader_of
    from pipeline.settings import load_bucket, load_fetch, load_logs

    path = args.config or (Path(os.environ["HATHI_CONFIG"]) if os.environ.get("HATHI_CONFIG") else None)
    limits = load_fetch(path, os.environ, {"fetch.allow_private": True} if args.allow_private else {})
    if not args.url and args.urls is None:
        raise ConfigError("no URL is given", "", "hathi fetch URL, or hathi fetch --urls FILE")
    if args.save is not None:
        _make(args.save)
    hides = load_logs(path, os.environ).redact_queries
    steps = None if args.json else Steps(sys.stdout, hides)
    objects = reader_of(load_bucket(path, os.environ), limits) if limits.allow_buckets else None
    fetcher = Fetcher(limits, trace=None if steps is None else steps.note, read_object=objects)
    for result in fetcher.stream(_timed(_given(args.url, args.urls))):
        if result is None:
            continue
        (number, started), outcome = result
        seconds = time.monotonic() - started
        name = _save(outcome, args.save) if args.save is not None else ""
        if steps is None:
            body = {**as_object(outcome, seconds), "number": number}
            print(json.dumps(redact_tree(body) if hides else body, ensure_ascii=True), flush=True)
        else:
            steps.end(outcome, seconds, name)
    if steps is not None:
        print(fetcher.counts.summary())
    return 0


def as_object(outcome: Fetched | Failure, seconds: float) -> dict[str, object]:
    """What `--json` prints of one URL; seconds: from its turn to its end, with waits and tries."""
    from pipeline.records import Failure

    if isinstance(outcome, Failure):
        status = int(outcome.detail) if outcome.detail.isdigit() else None
        return {
            "url": outcome.url,
            "ok": False,
            "reason": outcome.reason,
            "retriable": outcome.retriable,
            "detail": outcome.detail,
            "final_url": None,
            "status": status,
            "bytes": None,
            "sha256": None,
            "seconds": round(seconds, 3),
        }
    return {
        "url": outcome.url,
        "ok": True,
        "reason": None,
        "retriable": None,
        "detail": None,
        "final_url": outcome.final_url,
        "status": outcome.status,
        "bytes": len(outcome.content),
        "sha256": outcome.sha256.hex(),
        "seconds": round(seconds, 3),
    }


class Steps:
    """The text output: the steps of each fetch under its URL, told when it has ended."""

    def __init__(self, out: TextIO, hides: bool) -> None:
        """hides: what is secret in URLs."""
        self._out = out
        self._hides = hides
        self._steps: dict[str, list[str]] = defaultdict(list)

    def note(self, url: str, step: str, text: str) -> None:
        """From the fetcher's threads."""
        self._steps[url].append(f"  {step:<11} {(redact_text(text) if self._hides else text)[:_SHOWN]}")

    def end(self, outcome: Fetched | Failure, seconds: float, name: str) -> None:
        from pipeline.records import Failure

        shown = redact_query(outcome.url) if self._hides else outcome.url
        lines = [shown[:_SHOWN], *self._steps.pop(outcome.url, ())]
        if isinstance(outcome, Failure):
            again = "may be tried again" if outcome.retriable else "final"
            rule = outcome.reason == "blocked" and not outcome.detail.startswith("scheme ")
            lifted = "; --allow-private lifts the rules on addresses and ports" if rule else ""
            lines.append(f"  {'verdict':<11} {outcome.reason}: {outcome.detail} ({again}; {_meaning(outcome)}{lifted})")
        else:
            size = counted(len(outcome.content), "byte")
            lines.append(f"  {'verdict':<11} ok: {size} in {seconds:.3f} s, sha256 {outcome.sha256.hex()}")
            lines.append(f"  {'decoded':<11} {_decoded(outcome.content)}")
        if name:
            lines.append(f"  {'saved':<11} {name}")
        print("\n".join(map(escape, lines)), file=self._out, flush=True)


def _decoded(content: bytes) -> str:
    """What the pipeline makes of the bytes before the net sees them."""
    from pipeline.images import decode
    from pipeline.records import Failure

    image = decode(content)
    if isinstance(image, Failure):
        return f"no feature: {image.reason}: {image.detail} ({_meaning(image)})"
    return f"{image.shape[1]} x {image.shape[0]} pixels"


def _meaning(failure: Failure) -> str:
    from pipeline.records import REASONS

    return REASONS[failure.reason].meaning


def _given(urls: Iterable[str], file: str | None) -> Iterator[str | None]:
    """URLs of the command line, then those of the file; None while the file has no more yet."""
    yield from urls
    if file is None:
        return
    lines: SimpleQueue[str | OSError | None] = SimpleQueue()
    threading.Thread(target=_read, args=(file, lines), daemon=True).start()
    while True:
        try:
            line = lines.get_nowait()
        except Empty:
            yield None
            continue
        if line is None:
            return
        if isinstance(line, OSError):
            raise ConfigError("the file of URLs cannot be read", f"{file}: {line.strerror}", "check --urls") from line
        if url := line.rstrip("\r\n"):
            yield url


def _read(file: str, lines: SimpleQueue[str | OSError | None]) -> None:
    """A thread of its own: a pipe that says nothing must not hold up the results that are there."""
    try:
        with open(
            0 if file == "-" else file,
            encoding="utf-8-sig",
            errors="surrogateescape",
            newline="\n",
            closefd=file != "-",
        ) as stream:
            for line in stream:
                while lines.qsize() > 10_000:
                    time.sleep(0.01)
                lines.put(line)
    except OSError as error:
        lines.put(error)
    lines.put(None)


def _timed(urls: Iterator[str | None]) -> Iterator[tuple[tuple[int, float], str] | None]:
    number = 0
    for url in urls:
        if url is None:
            yield None
            continue
        yield (number, time.monotonic()), url
        number += 1


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("the folder cannot be made", f"{folder}: {error.strerror}", "check --save") from error


def _save(outcome: Fetched | Failure, folder: Path) -> str:
    from pipeline.fetch import Fetched, image_format

    if not isinstance(outcome, Fetched):
        return ""
    path = folder / f"{outcome.sha256.hex()}.{image_format(outcome.content[:64])}"
    path.write_bytes(outcome.content)
    return str(path)
