"""What is odd about labels and examples, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.amounts import counted
from pipeline.codec.refs.rows import sample_of
from pipeline.errors import ConfigError
from pipeline.training.dataset.joining import NONE, Joined
from pipeline.training.dataset.labels import Labels
from pipeline.training.dataset.law import table_of
from pipeline.training.dataset.manifest import Law, Manifest
from pipeline.training.dataset.material import OTHER_NET, Material

_NAMED = 5


def without_rows(labels: Labels) -> ConfigError:
    """No row of the labels names an item."""
    first = f"; the first: row {labels.samples[0][1].row + 1}: {labels.samples[0][1].why}" if labels.samples else ""
    return ConfigError(
        "the labels name no item", f"{counted(labels.rows, 'row')}{first}", "look at the table and its columns"
    )


def two_labels(material: Material, joined: Joined) -> ConfigError:
    """Rows of one item say different labels, and no rule says which holds."""
    table, names = material.table, material.names
    shown = []
    for first, second in joined.two[:_NAMED]:
        who = f"partner {table.partners[first]} item {table.items[first]}"
        says = " and ".join(sample_of(names[table.labels[row]]) for row in (first, second))
        shown.append(f"{who}: {says} (rows {first + 1} and {second + 1})")
    more = f"; and {joined.differing - len(shown)} more" if joined.differing > len(shown) else ""
    return ConfigError(
        f"{counted(joined.differing, 'item')} {'has' if joined.differing == 1 else 'have'} two labels",
        "; ".join(shown) + more,
        "correct the labels, or say which holds: --two-labels first, last or leave-out",
    )


def without_examples(law: Law) -> ConfigError:
    """Every row ended as something else."""
    told = ", ".join(f"{what.strip()} {count:,}" for what, count in table_of(law))
    hint = (
        "labels and images have to name the same partners and items: look at a row of each. A row with a url alone "
        "names an item that has no other id"
    )
    return ConfigError("no example is left, so nothing was made", told, next(iter(_of_another_net(law)), hint))


def _of_another_net(law: Law | None) -> list[str]:
    count = law.without_image.get(OTHER_NET, 0) if law is not None else 0
    what = f"only another net has features of {counted(count, 'item')}, left out here"
    return [f"{what}: `hathi backfill SET` first"] if count else []


def warnings(material: Material, joined: Joined, made: Manifest, moved: int) -> list[str]:
    """Whatever somebody should know who trains with it."""
    return [*_of_another_net(made.law), *_of_rows(material, joined, moved), *_of_classes(made)]


def _of_rows(material: Material, joined: Joined, moved: int) -> list[str]:
    found = []
    labels, earlier = material.labels, material.earlier
    if labels.rejected:
        path, first = labels.samples[0]
        why = f"{path}, row {first.row + 1}: {first.why}"
        found.append(f"{counted(labels.rejected, 'row')} of the labels cannot be read; the first: {why}")
    if joined.differing:
        found.append(f"{counted(joined.differing, 'item')} with two labels; the rule of --two-labels decided")
    if moved:
        found.append(f"{counted(moved, 'example')} moved to the side of an equal picture")
    if earlier is not None:
        kept = int((joined.labels[len(material.standing) :] != NONE).sum())
        if kept:
            found.append(
                f"{counted(kept, 'example')} of {earlier.folder} no longer delivered (pruned, or of another root); "
                "kept as they stand there"
            )
        if joined.relabelled:
            found.append(
                f"{counted(joined.relabelled, 'item')} with another label than in {earlier.folder}; the new one holds"
            )
    prints = material.fingerprints(joined)
    if len(prints) > 1:
        found.append(f"images of {len(prints)} fingerprints: they were kept with different settings")
    return found


def _of_classes(made: Manifest) -> list[str]:
    found = []
    if len(made.labels) == 1:
        found.append(f"one class only ({_named(made, made.labels)}): there is nothing to tell apart")
    single = [label for label, count in made.labels.items() if count == 1]
    if single and len(made.labels) > 1:
        found.append(f"{counted(len(single), 'class', 'classes')} with one example: {_named(made, single)}")
    for name, side in made.sides.items():
        lacking = [label for label in made.labels if label not in side.labels]
        if lacking:
            found.append(
                f"side {name} has no example of {counted(len(lacking), 'class', 'classes')}: {_named(made, lacking)}"
            )
    return found


def _named(made: Manifest, labels: Sequence[str] | dict[str, int]) -> str:
    some = [sample_of(made.classes.get(label, label)) for label in labels]
    return ", ".join(some[:_NAMED]) + (f" and {len(some) - _NAMED} more" if len(some) > _NAMED else "")


def smallest(made: Manifest) -> tuple[str, int]:
    """The class with the fewest examples, and their number."""
    label = min(made.labels, key=lambda one: (made.labels[one], one))
    return made.classes.get(label, label), made.labels[label]
