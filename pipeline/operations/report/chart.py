"""Small charts as inline SVG: no script, no style of their own, colours by class; each says in words what it shows."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from pipeline.operations.report.html import attribute

HEIGHT = 64


def bar(part: float, whole: float, kind: str) -> Markup:
    """One bar as long as its share; the figures stand beside it, so it is for the eye alone."""
    width = 100 * part / whole if whole else 0.0
    if 0 < width < 0.4:
        width = 0.4
    return Markup(
        f'<svg class="bar" aria-hidden="true" focusable="false" viewBox="0 0 100 10" preserveAspectRatio="none">'
        f'<rect class="rail" width="100" height="10"/><rect class="{kind}" width="{width:.2f}" height="10"/></svg>'
    )


def bars(label: str, values: Sequence[float], titles: Sequence[str], kind: str = "good") -> Markup:
    """A bar for each value, 0 at the ground; titles say each one in words."""
    most = max(values, default=0.0)
    step = 10.0
    drawn = []
    for at, (value, title) in enumerate(zip(values, titles, strict=True)):
        height = HEIGHT * value / most if most else 0.0
        if 0 < height < 1:
            height = 1.0
        left, top = at * step, HEIGHT - height
        drawn.append(
            f'<g><title>{attribute(title)}</title><rect class="hit" x="{left:.0f}" width="10" height="{HEIGHT}"/>'
            f'<rect class="{kind}" x="{left + 1:.0f}" y="{top:.2f}" width="8" height="{height:.2f}"/></g>'
        )
    width = max(1, len(values)) * step
    return Markup(
        f'<svg class="chart" role="img" aria-label="{attribute(label)}" viewBox="0 0 {width:.0f} {HEIGHT}" '
        f'preserveAspectRatio="none"><rect class="ground" y="{HEIGHT - 0.5}" width="{width:.0f}" height="0.5"/>'
        f"{''.join(drawn)}</svg>"
    )
