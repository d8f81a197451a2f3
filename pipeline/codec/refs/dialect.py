"""How the cells of a file with separated values are written: what parts them, quotes them, escapes them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from pipeline.settings import Text

AUTO = "auto"
_NEVER = "\n"
"""What no line holds."""
_SEPARATORS = (",", "\t", ";", "|", "\x01")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_STANDS_FOR = {"t": "\t", "n": "\n", "r": "\r"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """quote, escape: one character, or "" for none."""

    separator: str
    quote: str
    escape: str = ""
    patterns: Patterns = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "patterns", _patterns(self))


@dataclass(frozen=True, slots=True)
class Patterns:
    """Of a dialect.

    quoted: what a cell holds, up to its closing quote.  bare: a cell that is not quoted, up to the next separator or
    the line's end.  escaped: a sign that an escape makes text.
    """

    quoted: re.Pattern[str]
    bare: re.Pattern[str]
    escaped: re.Pattern[str]


def _patterns(dialect: Dialect) -> Patterns:
    quote, escape, separator = map(re.escape, (dialect.quote, dialect.escape, dialect.separator))
    if not escape:
        quoted = rf"([^{quote}]*+(?:{quote}{quote}[^{quote}]*+)*+){quote}" if quote else r"(?!)"
        return Patterns(
            re.compile(quoted), re.compile(rf"[^{separator}]*+"), re.compile(rf"{quote or '(?!)'}({quote})")
        )
    doubled = rf"|{quote}{quote}" if quote and quote != escape else ""
    quoted = rf"([^{quote}{escape}]*+(?:(?:{escape}.{doubled})[^{quote}{escape}]*+)*+){quote}" if quote else r"(?!)"
    bare = rf"[^{separator}{escape}]*+(?:{escape}(?:.|$)[^{separator}{escape}]*+)*+"
    # What may follow an escape and then stands for itself; before anything else the escape is text.
    itself = rf"{escape}([{separator}{quote}{escape}\n])" + (rf"|{quote}({quote})" if doubled else "")
    return Patterns(re.compile(quoted, re.DOTALL), re.compile(bare, re.DOTALL), re.compile(itself))


@dataclass(frozen=True, slots=True)
class Form:
    """How the rows of one file are read: by the first dialect under which a row has as many cells as the header."""

    dialects: tuple[Dialect, ...]
    unescapes: bool = False
    """Cells hold `\\t`, `\\n`, `\\r` and `\\\\`, as Hive and MySQL write them."""
    quoted_urls: bool = False
    """Quotes are text; but no URL has them around it, so there they are those of a CSV writer."""

    @property
    def separator(self) -> str:
        return self.dialects[0].separator

    @property
    def signs(self) -> tuple[str, str, str]:
        """What makes a line more than the parts between its separators: a quote, an escape, an escape at its end."""
        first = self.dialects[0]
        return first.quote or _NEVER, first.escape or _NEVER, self.tail or _NEVER

    @property
    def tail(self) -> str:
        """An escape that joins a line to the next one where it ends it; "" for none."""
        first, *others = self.dialects
        return others[0].escape if others and not first.quote else ""


def form(kind: Literal["csv", "tsv"], text: Text, separator: str = "", quoted_header: bool = False) -> Form:
    """What the settings say, or else what is usual.

    kind: by the file's name.  separator: another than the usual one.  quoted_header: all names stand in quotes.
    """
    separator = separator or ("\t" if kind == "tsv" else ",")
    # No CSV writer parts cells by a control character: that is Hive's text, in which quotes mean nothing, as in a TSV.
    of_hive = separator < " " and separator != "\t"
    has_quotes = quoted_header or (not of_hive and (kind == "csv" or separator != "\t"))
    quote = ('"' if has_quotes else "") if text.quote == AUTO else text.quote
    if text.escape == AUTO:
        if quote:
            return Form((Dialect(separator, quote), Dialect(separator, quote, "\\")))
        further = (Dialect(separator, '"'),) if text.quote == AUTO else ()
        return Form(
            (Dialect(separator, ""), Dialect(separator, "", "\\"), *further),
            unescapes=True,
            quoted_urls=text.quote == AUTO,
        )
    escape = "" if text.escape == quote else text.escape
    unescapes = not quote and escape == "\\"
    return Form((Dialect(separator, quote, escape),), unescapes)


def separators(kind: Literal["csv", "tsv"], text: Text) -> tuple[str, ...]:
    """What may part the cells, the likeliest first."""
    if text.separator != AUTO:
        return (text.separator,)
    usual = "\t" if kind == "tsv" else ","
    return (usual, *(one for one in _SEPARATORS if one != usual))


def unescaped(cell: str, separator: str) -> str:
    """The text that a cell of Hive or MySQL stands for; `\\N` alone says that there is none."""
    if "\\" not in cell or cell == "\\N":
        return cell
    return _ESCAPED.sub(lambda found: _STANDS_FOR.get(found[1]) or _itself(found, separator), cell)


def _itself(found: re.Match[str], separator: str) -> str:
    """What follows a backslash, or both where it is none that escapes."""
    return found[1] if found[1] in ("\\", "\n", "\r", separator) else found[0]
