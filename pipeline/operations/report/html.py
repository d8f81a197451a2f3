"""Text from anywhere as HTML: nothing in it is markup, and what hides or turns text is made visible."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from html import escape

LONG = 300
"""Characters of a foreign text that are shown."""
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode's categories of controls, directions and joiners, surrogates, private and unassigned, line ends."""


def visible(text: str) -> str:
    """The text with each character that cannot be seen, or that turns others round, as `<U+202E>`; cut when long."""
    shown = ""
    for one in text:
        if len(shown) >= LONG:
            return f"{shown} ... ({len(text):,} characters)"
        shown += f"<U+{ord(one):04X}>" if unicodedata.category(one) in _HIDDEN else one
    return shown


def attribute(text: str) -> str:
    """A text within an attribute's double quotes, ours or foreign."""
    return escape(visible(text), quote=True)


def text(value: str) -> str:
    """Foreign text within an element; its direction is its own and turns nothing around it."""
    return f"<bdi>{escape(visible(value), quote=True)}</bdi>"


def code(value: str) -> str:
    """As `text`, for URLs, ids and names."""
    return f"<code>{text(value)}</code>"


def figure(number: float) -> str:
    """12,345; from a million on 1.23 M."""
    if number >= 9_999_500:
        return f"{number / 1e6:,.1f}\u00a0M"
    return f"{number:,.0f}"


def share(part: float, whole: float) -> str:
    """As percent; what is not nothing and not all never looks like it."""
    if not whole:
        return "\u2013"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1\u00a0%"
    if 99.9 < percent < 100:
        return "> 99.9\u00a0%"
    return f"{percent:.1f}\u00a0%"


def table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table that scrolls within itself where it is too wide.  Cells and headings are HTML; a heading that begins
    with `#` has figures under it, one that begins with `~` long texts; `=` alone stands above bars.
    """
    head = "".join(map(_head, headings))
    body = "".join(
        "<tr>" + "".join(_cell(at, cell, headings) for at, cell in enumerate(row)) + "</tr>\n" for row in rows
    )
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{attribute(caption)}"><table{_class(kind)}>'
        f"<caption>{attribute(caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def _head(heading: str) -> str:
    if heading == "=":
        return "<td></td>"
    return f'<th scope="col"{_kind(heading)}>{heading.lstrip("#~")}</th>'


def _cell(at: int, cell: str, headings: Sequence[str]) -> str:
    if at == 0:
        return f'<th scope="row"{_kind(headings[0])}>{cell}</th>'
    return f"<td{_kind(headings[at])}>{cell}</td>"


def _kind(heading: str) -> str:
    return _class({"#": "n", "~": "long", "=": "b"}.get(heading[:1], ""))


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
