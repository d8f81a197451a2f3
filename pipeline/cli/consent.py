"""A command that deletes says what will go, and asks.

`--yes` answers beforehand.  Without it a question needs a terminal: a script that forgot `--yes` is refused before
anything is read or deleted, so that it fails on its first run, not on the first day with something to delete.
"""

from __future__ import annotations

import argparse
import sys

from pipeline.errors import ConfigError


def add_yes(parser: argparse.ArgumentParser) -> None:
    """The option `--yes`."""
    parser.add_argument(
        "--yes", action="store_true", help=("do not ask before deleting; needed where there is no terminal")
    )


def need_terminal(command: str, yes: bool, look: str) -> None:
    """Raises ConfigError where nobody can be asked.  look: the command that shows what would go."""
    if not yes and not sys.stdin.isatty():
        raise ConfigError(
            f"{command} deletes, and nobody can be asked: there is no terminal",
            "nothing was deleted",
            f"look with `{look}`, then add --yes",
        )


def agreed(what: str, yes: bool) -> bool:
    """Whether to go on: `--yes`, or a person who reads what will go and answers y or yes.  Questions go to stderr."""
    if yes:
        return True
    print(f"{what}\nGo on? [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline().strip().lower()
    if answer in ("y", "yes"):
        return True
    print("nothing was deleted", file=sys.stderr)
    return False
