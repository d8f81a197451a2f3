"""What every page of a report has: its head, its policy that forbids all requests and scripts, and its foot."""

from __future__ import annotations

import base64
import hashlib

from markupsafe import Markup

from pipeline import __version__
from pipeline.operations.report.html import rendered
from pipeline.operations.report.style import STYLE
from pipeline.times import to_the_minute

BYTES = 1_000_000
"""No page is larger: one that would be goes without pictures."""


def framed(template: str, report: object, **values: object) -> str:
    """The template, which extends frame.html.jinja.  report: its facts, with a `title` and the time `made`."""
    style = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    return rendered(template, report=report, version=__version__, policy=Markup(policy), style=Markup(STYLE),
                    minute=to_the_minute, png=png, **values)  # fmt: skip


def png(content: bytes) -> Markup:
    """A picture that was made here, as the address of an image."""
    return Markup(f"data:image/png;base64,{base64.b64encode(content).decode()}")
