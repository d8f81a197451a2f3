"""`hathi sample loop`: the way round, each step by the command that a person would type, explained and measured.

Refs and labels become datasets, a head is trained on delivered features and put into use, a better one takes its place,
and the features are made anew.  What a step said is kept in steps/ of the folder: a second start says what stands, and
goes on where the first one ended.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.amounts import counted
from pipeline.errors import FormatError

PARTNER, ITEM, NEAREST = 404, "mug-29", 5
"""Whose neighbours are looked at before and after; it has no label on the first day."""
CONFIG = "hathi.toml"
_HATHI = """
import sys
from pipeline.process.life import die_with

die_with(int(sys.argv.pop(1)))
from pipeline.cli.main import entry

entry()
"""
"""A command that ends with who typed it, however that one ends."""
_JUDGED = {"first": "first-judged.json", "all": "all-judged.json"}


@dataclass(frozen=True)
class Step:
    """A command with why a person types it.  words: as typed, made when all steps before are done.

    stands: whether what it makes is there, of what must not be made twice.  live: it only looks, each time anew.
    """

    why: str
    words: Callable[[Path], str]
    stands: Callable[[Path], bool] | None = None
    live: bool = False


@dataclass(frozen=True)
class Told:
    """What a step said, and how long it took."""

    command: str
    lines: tuple[str, ...]
    seconds: float


def steps() -> list[Step]:
    """All of them, in order."""
    similar = _typed(f"hathi similar {PARTNER} {ITEM} --set things --count {NEAREST}")
    stats = "hathi stats 'lake/things/*.000.*' 'lake/things/*.00[1-9].*'"
    return [
        Step(
            "The pipeline fetches the pictures of four lists. It keeps them (set pictures), and computes features\n"
            "of them with a net that never learned anything (set colours).",
            _typed("hathi run"),
        ),
        *_trained("first", "The first day has few labels.", ""),
        Step(
            "How good is it? The judge takes pictures that the head never saw through the engine that will serve.",
            _typed(_evaluate("first")),
        ),
        Step(
            "A set is added to the configuration. It follows a model: the net that was promoted last computes it.",
            _typed(f"cat sample/things.toml >> {CONFIG}"),
            _follows,
        ),
        Step("The head is the best there is, so it goes into use.", lambda folder: _promote(folder, "first")),
        Step("The pipeline computes set things, the scores of 12 categories, for all items.", _typed("hathi run")),
        Step("Which items are like this one? By these features:", similar),
        *_trained("all", "Days later most items have labels. Earlier pictures keep their side.", " --extend first"),
        Step("Both heads are judged side by side, on the test side of all pictures.", _typed(_evaluate("all"))),
        Step(
            "The new head goes into use if it is right at least as often as the one in use, and in 6 of 10 cases.",
            lambda folder: _promote(folder, "all"),
        ),
        Step(
            "The features of the old head stay where they are. This asks for all of them by the new one:",
            _typed("hathi backfill things"),
        ),
        Step("The pipeline computes them; the old ones stand beside them.", _typed("hathi run")),
        Step("Which items are like that one now?", similar),
        Step("How far do old and new features differ?", _typed(stats)),
        Step("Who is in use, since when, and why?", _typed("hathi models"), live=True),
    ]


def _trained(name: str, why: str, extend: str) -> Iterator[Step]:
    """Two datasets of the same items and sides, and the head that learns from the one of features."""
    labels = "labels-first.csv" if name == "first" else "labels.csv"
    shares = "" if extend else " --split 60/20/20"
    make = f"hathi dataset make {name} --labels {labels} --features colours{shares}{extend}"
    yield Step(f"{why} Labels and delivered features become a dataset.", _typed(make), _there(f"{name}/_manifest.json"))
    images = make.replace(f"make {name} ", f"make {name}-pictures ").replace("--features colours", "--images pictures")
    images = images.replace("--extend first", "--extend first-pictures")
    yield Step("The same of the pictures themselves, to judge with; every item stands on the same side.",
               _typed(images), _there(f"{name}-pictures/_manifest.json"))  # fmt: skip
    train = f"hathi train head {name} {name}-head --like colours"
    yield Step("A linear layer learns the categories, to the optimum, and is joined to the net below it.",
               _typed(train), _there(f"{name}-head/head.json"))  # fmt: skip


def _typed(command: str) -> Callable[[Path], str]:
    return lambda folder: command


def _there(name: str) -> Callable[[Path], bool]:
    return lambda folder: (folder / name).exists()


def _follows(folder: Path) -> bool:
    return "[sets.things]" in (folder / CONFIG).read_text(encoding="utf-8")


def _net(name: str) -> str:
    return f"{name}-head/deploy.prototxt"


def _weights(name: str) -> str:
    return f"{name}-head/weights.caffemodel"


def _evaluate(name: str) -> str:
    against = f" --against {_net('first')} {_weights('first')}" if name != "first" else ""
    return (
        f"hathi evaluate --net {_net(name)} --weights {_weights(name)} --dataset {name}-pictures{against} "
        f"--config {CONFIG} --preprocess sample --list 5 --out {_JUDGED[name]}"
    )


def _promote(folder: Path, name: str) -> str:
    """The figures are those that the judge wrote down."""
    found = judged(folder, name)
    bar = " --least accuracy=0.6 --against current" if name != "first" else ""
    return (
        f"hathi promote things --net {_net(name)} --weights {_weights(name)} --data {name} "
        f"--figures accuracy={found['accuracy']:.6g}{bar} --why {shlex.quote(f'labels of {name}')}"
    )


def judged(folder: Path, name: str) -> dict[str, Any]:
    """What `hathi evaluate` wrote of the head `name`.  Raises FormatError where it is not that."""
    path = folder / _JUDGED[name]
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {**found, "accuracy": float(found["accuracy"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path} does not say how good a head is", str(error), "delete the folder steps") from error


def run(folder: Path) -> int:
    """0; the exit code of the command that failed.  folder: with the sample and its configuration."""
    kept = folder / "steps"
    kept.mkdir(exist_ok=True)
    print(f'$ cd {shlex.quote(os.path.relpath(folder))}\n$ export HATHI_CONFIG="$PWD/{CONFIG}"', flush=True)
    told: list[Told] = []
    for number, step in enumerate(steps(), 1):
        command = step.words(folder)
        print(f"\n{number}. {step.why}\n$ {command}", flush=True)
        before = None if step.live else _kept(kept / f"{number:02}.json", command)
        there = step.stands is not None and step.stands(folder)
        if before is not None and (there or step.stands is None):
            print("\n".join([*before.lines, f"[it stands; it took {before.seconds:.1f} s]"]), flush=True)
            told.append(before)
        elif there:
            print("[it stands]", flush=True)
        else:
            code, done = _run(command, folder)
            print(f"[{done.seconds:.1f} s]", flush=True)
            if code:
                print(f"step {number} ended with exit code {code}; once that is mended, the same command goes on here")
                return code
            _keep(kept / f"{number:02}.json", done)
            told.append(done)
    print("\n".join(["", *_summary(folder, told)]))
    return 0


def _run(command: str, folder: Path) -> tuple[int, Told]:
    """Types a command and prints its lines as they come.  It ends with this process, and an interrupt is handed on."""
    began, lines = time.monotonic(), []
    environ = {**os.environ, "HATHI_CONFIG": str(folder / CONFIG)}
    program, *words = shlex.split(command)
    # No preexec_fn: an interrupt that meets the hooks around such a fork is lost.
    typed = [sys.executable, "-c", _HATHI, str(os.getpid()), *words] if program == "hathi" else ["sh", "-c", command]
    with subprocess.Popen(
        typed, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", process_group=0,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line.rstrip("\n"))
            code = process.wait()
        except BaseException:
            process.send_signal(signal.SIGINT)
            raise
    return (code if code >= 0 else 128 - code), Told(command, tuple(lines), time.monotonic() - began)


def _kept(path: Path, command: str) -> Told | None:
    """What the step said when it was done; None where it was not, or by another command."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        told = Told(found["command"], tuple(found["lines"]), float(found["seconds"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path} is damaged", str(error), f"delete {path}; the step is done again") from error
    return told if told.command == command else None


def _keep(path: Path, told: Told) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(asdict(told)), encoding="utf-8")
    temporary.replace(path)


def _summary(folder: Path, told: list[Told]) -> list[str]:
    """The figures, from what the steps left behind."""
    from pipeline.training.dataset.shards import read_manifest

    manifest = read_manifest(folder / "all")
    assert manifest.law is not None
    sides = ", ".join(f"{side} {one.examples:,}" for side, one in manifest.sides.items())
    first, last = judged(folder, "first"), judged(folder, "all")
    looks = [one for one in told if one.command.startswith("hathi similar ")]
    label = _labels(folder)
    before, after = (sum(label[name] == label[ITEM] for name in _found(one, label)) for one in looks)
    return [
        f"rows:       {manifest.law.rows:,}, of them {counted(manifest.examples, 'example')}: {sides}",
        f"accuracy:   {first['accuracy']:.4f} for the first head on its {_tests(folder, 'first')} test pictures",
        f"            {last['against']['accuracy']:.4f} for the first head on all {_tests(folder, 'all')}",
        f"            {last['accuracy']:.4f} for the second head on the same",
        f"neighbours: of the {NEAREST} next to {ITEM}, {before} were a {label[ITEM]} as it is, now {after} are",
        f"time:       {sum(one.seconds for one in told):.0f} s in {counted(len(told), 'command')}",
        "way back:   hathi promote things@1 things && hathi backfill things && hathi run",
    ]


def _tests(folder: Path, name: str) -> int:
    from pipeline.training.dataset.shards import read_manifest

    return read_manifest(folder / f"{name}-pictures").sides["test"].examples


def _labels(folder: Path) -> dict[str, str]:
    """The category of each item that has one, by its name."""
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        return {row["sku"]: row["label"] for row in csv.DictReader(file)}


def _found(told: Told, label: dict[str, str]) -> list[str]:
    """The neighbours, by name, of what `hathi similar` said."""
    return [word for line in told.lines[1:] for word in line.split() if word in label]
