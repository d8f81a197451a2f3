"""Text from anywhere as HTML: nothing in it is markup, and what hides or turns text is made visible.

What is markup says so by its type, `Markup`; everything else is text from outside.  The template of the page asks for
nothing: whatever it shows goes through `attribute`, and Jinja2 would escape what had not.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from pipeline.amounts import counted, rounded

if TYPE_CHECKING:
    from jinja2 import Environment

LONG = 300
"""Characters of a foreign text that are shown."""
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode's categories of controls, directions and joiners, surrogates, private and unassigned, line ends."""


def visible(text: str) -> str:
    """The text with each character that cannot be seen, or that turns others round, as `<U+202E>`; cut when long."""
    if len(text) <= LONG and text.isprintable():
        return text
    shown = ""
    for one in text:
        if len(shown) >= LONG:
            return f"{shown} ... ({len(text):,} characters)"
        shown += f"<U+{ord(one):04X}>" if unicodedata.category(one) in _HIDDEN else one
    return shown


def attribute(value: object) -> Markup:
    """A value as text, anywhere on a page and within an attribute's double quotes; markup stays as it is."""
    return value if isinstance(value, Markup) else Markup(escape(visible(str(value)), quote=True))


def text(value: object) -> Markup:
    """Foreign text within an element; its direction is its own and turns nothing around it."""
    return Markup(f"<bdi>{attribute(value)}</bdi>")


def code(value: object) -> Markup:
    """As `text`, for URLs, ids and names."""
    return Markup(f"<code>{text(value)}</code>")


def figure(number: float) -> str:
    """12,345; from ten millions on 12.3 M, in one line."""
    return rounded(number).replace(" ", "\u00a0")


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


def rendered(template: str, **values: object) -> str:
    """The template of that name, which lies beside this module, with its values."""
    return environment().get_template(template).render(values)


@cache
def environment() -> Environment:
    """How templates are read: each value that they show goes through `attribute`, and a name without a value raises."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # only for who renders a page

    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=attribute,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters.update(text=text, code=code, figure=figure, share=share, counted=counted)
    return found
