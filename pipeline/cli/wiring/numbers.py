"""Numbers on the command line, as argparse asks for them."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def number_from(least: int) -> Callable[[str], int]:
    """A `type` of argparse: whole numbers, in decimal digits alone, that are `least` or more."""

    def number(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} on")
        return int(text)

    return number
