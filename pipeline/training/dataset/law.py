"""The law of a dataset: each row of the labels and each item without one ends as exactly one thing."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.amounts import counted
from pipeline.errors import LawBroken
from pipeline.training.dataset.manifest import Law


def law_of(
    rows: int,
    examples: int,
    without_image: Mapping[str, int],
    without_label: Mapping[str, int],
    duplicates: int,
    forgotten: int = 0,
) -> Law:
    """rows = examples + without image + without label + duplicates + forgotten.  Raises LawBroken where it does not."""
    least = min(rows, examples, duplicates, forgotten, *without_image.values(), *without_label.values())
    found = examples + sum(without_image.values()) + sum(without_label.values()) + duplicates + forgotten
    if found != rows or least < 0:
        raise LawBroken(
            "a dataset lost rows",
            f"{counted(rows, 'row')}, but examples, rows without image or label and duplicates are {found:,}",
            "nothing was made; this is a bug in Hathi: please report it",
        )
    return Law(
        rows=rows,
        examples=examples,
        without_image=dict(sorted(without_image.items())),
        without_label=dict(sorted(without_label.items())),
        duplicates=duplicates,
        forgotten=forgotten,
    )


def table_of(law: Law) -> list[tuple[str, int]]:
    """The law as lines: what, and how many; a reason is set in by two blanks."""
    lines = [("rows", law.rows), ("examples", law.examples)]
    for name, reasons in (("without image", law.without_image), ("without label", law.without_label)):
        lines.append((name, sum(reasons.values())))
        lines += [(f"  {reason}", count) for reason, count in reasons.items()]
    lines.append(("duplicates", law.duplicates))
    return [*lines, ("forgotten", law.forgotten)] if law.forgotten else lines
