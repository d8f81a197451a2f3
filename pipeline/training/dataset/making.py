"""`hathi dataset make`: labels and what a root delivers -> a dataset.

Two passes over the deliveries: the first for keys (ids and two hashes a row), from which joining, sides and order
follow; the second deals the rows out.  The folder appears whole, its manifest written last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.amounts import counted
from pipeline.errors import FormatError, LawBroken
from pipeline.stores.store import Lake
from pipeline.training.dataset import joining, splitting, telling
from pipeline.training.dataset.assembling import Assembly, Order, labels_of
from pipeline.training.dataset.delivered import Deliveries
from pipeline.training.dataset.earlier import read_earlier
from pipeline.training.dataset.folders import whole
from pipeline.training.dataset.joining import NONE, Joined
from pipeline.training.dataset.labels import Asked, Labels, read_labels
from pipeline.training.dataset.manifest import Manifest, Parents, Side, Split
from pipeline.training.dataset.material import Material, law_for, material_of
from pipeline.training.dataset.origin import Origin
from pipeline.training.dataset.sides import pictures_of, sides_of, split_of

DEFAULT = "80/10/10"


@dataclass(frozen=True)
class Wanted:
    """What is to be made.

    split: None for what the dataset that is extended has, else DEFAULT.  rule: of `joining.RULES`.  extends: a dataset
    whose examples keep their sides; None for none.
    """

    labels: Asked = field(default_factory=Asked)
    split: Split | None = None
    rule: str = "refuse"
    extends: Path | None = None


def make(out: Path, deliveries: Deliveries, tables: Iterable[tuple[Lake, str]], wanted: Wanted) -> Manifest:
    """The dataset as it stands in the new folder `out`.  tables: of labels, each with the lake that it lies on.

    Raises ConfigError for what contradicts itself: two labels for one item, no example, a side that is none;
    FormatError for a file that cannot be read, LawBroken where a row is lost.
    """
    return make_of(out, deliveries, lambda: read_labels(tables, wanted.labels), wanted)


def make_of(out: Path, origin: Origin, read: Callable[[], Labels], wanted: Wanted) -> Manifest:
    """As `make`, of rows from anywhere.  read: the labels, once it is sure that `out` can be made."""
    with whole(out) as folder:
        labels = read()
        if not len(labels.items):
            raise telling.without_rows(labels)
        keys = origin.keys()
        earlier = None if wanted.extends is None else read_earlier(wanted.extends, origin.kind, origin.dim)
        material = material_of(labels, keys, earlier, one_net=origin.kind == "features")
        joined = joining.join(material.table, material.images, wanted.rule, material.before)
        if joined.two:
            raise telling.two_labels(material, joined)
        law = law_for(material, joined, origin)
        if not joined.examples:
            raise telling.without_examples(law)
        split = wanted.split or (earlier and earlier.manifest.split) or split_of(DEFAULT, "class", 0)
        order, places, moved = _ordered(material, joined, split)
        assembly = Assembly(folder, order, origin.dim, material.bytes)
        _fill(assembly, material, origin, places)
        shards = assembly.write()
        rows = sum(one.rows for one in shards)
        if rows != law.examples:
            raise LawBroken(
                "a dataset lost rows", f"{rows:,} of {counted(law.examples, 'example')}", "please report it"
            )
        made = _manifest(material, joined, origin, order).model_copy(
            update={"law": law, "split": split, "shards": shards, "examples": rows}
        )
        odd = [*origin.beside(material.table.items).warnings, *telling.warnings(material, joined, made, moved)]
        found = made.model_copy(update={"warnings": odd})
        found.write(folder)
    return found


def _ordered(material: Material, joined: Joined, split: Split) -> tuple[Order, NDArray[np.int64], int]:
    """The order of the dataset, the place of each image in it (NONE for no example), and how many were moved."""
    names = sides_of(material, joined, split)
    chosen = np.flatnonzero(joined.labels != NONE)
    shares = [split.shares.get(name, 0) for name in names] if split.shares else [1] * len(names)
    divided = splitting.divide(
        pictures_of(material, joined, names), shares, split.seed, by_content=split.by == "content"
    )
    sides, ranks, images = divided.sides[: len(chosen)], divided.ranks[: len(chosen)], material.images
    order = np.lexsort((images.items[chosen], images.partners[chosen], ranks, sides))
    places = np.full(len(images), NONE, np.int64)
    places[chosen[order]] = np.arange(len(order))
    numbers = material.numbers(joined)
    by_code = np.array([numbers.get(name, NONE) for name in material.names], np.int32)
    return Order(by_code[joined.labels[chosen[order]]], sides[order], names), places, divided.moved


def _fill(assembly: Assembly, material: Material, origin: Origin, places: NDArray[np.int64]) -> None:
    """The second pass."""
    keys, count = material.keys, len(material.standing)
    of_row = np.full(len(keys), NONE, np.int64)
    of_row[material.standing] = places[:count]
    first = 0
    for table in origin.tables():
        last = first + len(table)
        if not np.array_equal(table["item_id"].to_numpy().view(np.uint64), keys.items[first:last]):
            break
        assembly.add(table, of_row[first:last])
        first = last
    if first != len(keys):
        raise FormatError("the deliveries changed while they were read", origin.where, "make the dataset again")
    if material.earlier is None:
        return
    of_earlier = np.full(len(material.earlier), NONE, np.int64)
    of_earlier[material.alone] = places[count:]
    first = 0
    for rows in material.earlier.tables():
        assembly.add(rows, of_earlier[first : first + len(rows)])
        first += len(rows)


def _manifest(material: Material, joined: Joined, origin: Origin, order: Order) -> Manifest:
    """All but its law, split and shards."""
    labels = labels_of(order)
    every = sum(labels.values(), Counter[int]())
    classes = {str(number): name for name, number in material.numbers(joined).items()}
    return Manifest(
        source=origin.where,
        examples=len(order),
        labels=_told(every),
        shards=[],
        kind=origin.kind,
        classes=dict(sorted(classes.items(), key=lambda one: int(one[0]))),
        dim=origin.dim,
        fingerprints=material.fingerprints(joined),
        sides={name: Side(examples=of.total(), labels=_told(of)) for name, of in labels.items()},
        parents=Parents(
            root=origin.where,
            shipments={partner: list(names) for partner, names in origin.shipments.items()},
            labels=list(material.labels.files),
            **({} if origin.archive is None else {"archive": origin.archive}),
            extends="" if material.earlier is None else material.earlier.digest,
        ),
    )


def _told(labels: Counter[int]) -> dict[str, int]:
    return {str(label): labels[label] for label in sorted(labels)}
