"""Run every stage on a small sample lake: pictures, refs and a net that Hathi makes, and a shop that serves them.
With `digits`: make a sample for `hathi train`, handwritten digits with the files of a solver and its nets.
With `loop`: go the whole way round on a lake with labels: datasets, a head, its promotion, features made anew.

FOLDER gets the sample, its configuration hathi.toml, and everything that the run writes.  A second run finds nothing to
do.  The shop stays open for some minutes after its last picture, so that `hathi similar --out` can show pictures.
A folder whose name is digits or loop is written ./digits, ./loop.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.cli import run as run_command
from pipeline.errors import ConfigError, PermanentError
from pipeline.process.installed import INSTALLATION, PACKAGED

PORT, MINUTES = 8973, 10.0
NET = "random_features.prototxt"
THINGS = "things.toml"
DIGITS = "digits"
"""The word that is no folder, and the folder that it makes unless another one is given."""
LOOP, LOOP_PORT = "loop", 8974
"""The other such word, and the port of its shop: that of the sample may be open still."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`hathi sample [digits|loop] [FOLDER] [--port N] [--minutes N]`."""
    parser.usage = "hathi sample [FOLDER] [--port N] [--minutes N]\n       hathi sample digits [FOLDER]\n"
    parser.usage += "       hathi sample loop [FOLDER] [--port N] [--minutes N]"
    default = "hathi-sample here" if PACKAGED else "work/ of the checkout, with config/local.toml"
    parser.add_argument(
        "words",
        nargs="*",
        metavar="FOLDER",
        help=f"where to make it (default: {default}; of digits: {DIGITS} here; "
        f"of loop: {'hathi-loop here' if PACKAGED else 'work/loop of the checkout'})",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=int(_number("SAMPLE_PORT", 0)),
        help=f"the shop's port (default: $SAMPLE_PORT, else {PORT}, of loop {LOOP_PORT})",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=_number("SAMPLE_MINUTES", MINUTES),
        help="how long the shop stays open after its last picture; 0: it ends with the run "
        f"(default: $SAMPLE_MINUTES, else {MINUTES:g})",
    )


def run(args: argparse.Namespace) -> int:
    """As `hathi run`; 2 where the sample cannot be made or served."""
    word = args.words[0] if args.words[:1] in ([DIGITS], [LOOP]) else ""
    folders = [Path(one) for one in args.words[int(bool(word)) :]]
    if len(folders) > 1:
        raise ConfigError("hathi sample takes one folder", f"given: {' '.join(args.words)}",
                          "hathi sample FOLDER, hathi sample digits FOLDER, or hathi sample loop FOLDER")  # fmt: skip
    folder = folders[0] if folders else None
    if word == DIGITS:
        return _digits(folder or Path(DIGITS))
    if word == LOOP:
        return _loop(folder, args.port or LOOP_PORT, args.minutes)
    return _lake(folder, args.port or PORT, args.minutes)


def _digits(folder: Path) -> int:
    """0; a sample that is there stays as it is."""
    from pipeline.training.dataset import digits

    near = _near(folder)
    if digits.is_there(folder):
        print(f"{near}: the sample is there already, and stays as it is")
    else:
        made = digits.make(folder)
        print(f"{near}: {made.train:,} digits to learn from, and {made.test:,} others for the test")
    print(f"next: cd {shlex.quote(near)} && hathi train solver.prototxt")
    return 0


def _lake(folder: Path | None, port: int, minutes: float) -> int:
    if PACKAGED and folder is None:
        folder = Path("hathi-sample")
    work = (folder or INSTALLATION / "work").resolve()
    if code := _rendered(work, port):
        return code
    config = _configuration(work) if folder else INSTALLATION / "config" / "local.toml"
    parser = argparse.ArgumentParser()
    run_command.add_arguments(parser)
    with _shop(work / "sample" / "web", port, minutes):
        code = run_command.run(parser.parse_args(["--config", str(config)]))
    if minutes:
        print(f"shop:     {_stays(port, minutes)}")
    if folder:
        print(f"next:     cd {_near(work)} && hathi status")
    return code


def _loop(folder: Path | None, port: int, minutes: float) -> int:
    from pipeline.cli import sample_loop

    work = (folder or (Path("hathi-loop") if PACKAGED else INSTALLATION / "work" / LOOP)).resolve()
    if code := _rendered(work, port, "--labels"):
        return code
    sample = work / "sample"
    for name, place in ((NET, sample / NET), (THINGS, sample / THINGS), ("loop.toml", work / sample_loop.CONFIG)):
        if not place.exists():  # the configuration is the reader's to change
            place.write_bytes((INSTALLATION / "sample" / name).read_bytes())
    with _shop(work / "sample" / "web", port, minutes):
        code = sample_loop.run(work)
    if minutes and not code:
        print(f"shop:       {_stays(port, minutes)}; for more time, type the same command again")
    return code


def _stays(port: int, minutes: float) -> str:
    return f"http://127.0.0.1:{port}/ stays open until {minutes:g} min after its last picture"


def _rendered(work: Path, port: int, *more: str) -> int:
    """Makes pictures and refs; the exit code."""
    script = INSTALLATION / "sample" / "render.py"
    words = [sys.executable, str(script), "--work", str(work), "--port", str(port), *more]
    return subprocess.run(words, check=False).returncode


def _number(variable: str, default: float) -> float:
    text = os.environ.get(variable, "")
    try:
        return float(text) if text else default
    except ValueError as error:
        raise ConfigError(f"{variable}={text} is no number", "", f"write a number, such as {default:g}") from error


def _configuration(work: Path) -> Path:
    """The sample's configuration in a folder of its own: local.toml, with everything beside the file.  One that is
    there stays: it is the reader's to change."""
    path = work / "hathi.toml"
    if not path.exists():
        net = INSTALLATION / "sample" / NET
        (work / "sample" / NET).write_bytes(net.read_bytes())
        text = (INSTALLATION / "config" / "local.toml").read_text(encoding="utf-8")
        settings = text[text.index("\n\n") :].lstrip("\n")
        path.write_text(
            "# The sample of `hathi sample`.  Paths are relative to the folder of this file.\n\n"
            + settings.replace("../work/", "").replace("../", ""),
            encoding="utf-8",
        )
    return path


@contextmanager
def _shop(web: Path, port: int, minutes: float) -> Iterator[None]:
    """The shop that serves a folder.  It ends with this process, however that ends, unless the run came to its end."""
    if _is_open(web, port):
        yield
        return
    command = [sys.executable, str(INSTALLATION / "sample" / "server.py"), str(web), "--port", str(port), "--wait"]
    # A session of its own: the terminal's Ctrl-C is for the run.  Its stderr is ours until it is ready.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as shop:
        assert shop.stdin is not None
        assert shop.stdout is not None
        if shop.stdout.readline() != "ready\n":
            raise ConfigError("the sample's shop did not start", "see the line above", "")
        try:
            yield
            shop.stdin.write(f"{minutes * 60:g}\n")
            shop.stdin.flush()
            if shop.stdout.readline() not in ("stays\n", "ends\n"):
                raise PermanentError("the sample's shop ended during the run", "", "run it again")
        except BaseException:
            shop.kill()
            raise
        if minutes:
            shop.returncode = 0  # it goes on without us: nobody waits for it


def _is_open(web: Path, port: int) -> bool:
    """Whether the shop of that folder is open still, from an earlier run."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/shop", timeout=2) as answer:
            return bool(answer.read(4096).decode(errors="replace") == str(web))
    except (OSError, ValueError):
        return False


def _near(path: Path) -> str:
    return os.path.relpath(path)
