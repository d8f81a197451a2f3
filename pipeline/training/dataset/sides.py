"""Sides by name: which there are, and what each picture wishes before the split decides."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.amounts import counted
from pipeline.errors import ConfigError
from pipeline.training.dataset import joining
from pipeline.training.dataset.joining import NONE, Joined
from pipeline.training.dataset.manifest import Split
from pipeline.training.dataset.material import Material
from pipeline.training.dataset.splitting import Pictures

SIDES = ("train", "validation", "test")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def split_of(shares: str, by: str, seed: int) -> Split:
    """`80/20` is train and test, `80/10/10` has validation between them.  Raises ConfigError."""
    numbers = shares.split("/")
    if not (2 <= len(numbers) <= 3 and all(one.isascii() and one.isdecimal() and len(one) < 10 for one in numbers)):
        raise ConfigError(f"--split {shares}", "it is no list of two or three whole numbers", "for example 80/10/10")
    if not sum(map(int, numbers)):
        raise ConfigError(f"--split {shares}", "no side has a share", "for example 80/10/10")
    names = SIDES if len(numbers) == 3 else (SIDES[0], SIDES[2])
    return Split(by=by, shares=dict(zip(names, map(int, numbers), strict=True)), seed=seed)


def sides_of(material: Material, joined: Joined, split: Split) -> tuple[str, ...]:
    """The names of the sides: those of the earlier dataset first.  Raises ConfigError for what a column cannot say."""
    earlier = material.earlier
    before = () if earlier is None else tuple(earlier.manifest.sides)
    new: Sequence[str] = tuple(split.shares)
    if split.by == "column":
        used = np.unique(joined.sides[joined.labels != NONE])
        said = [material.labels.side_names[code] for code in used.tolist() if code != NONE]
        if strange := next((name for name in said if not _NAME.fullmatch(name)), None):
            raise ConfigError(
                f"the column {split.column} names a side {strange[:80]!r}",
                "a side is a word of letters, digits, `_`, `-` and `.`",
                "correct the labels",
            )
        empty = int(((joined.labels != NONE) & (joined.sides == NONE) & ~_known(material)).sum())
        if empty:
            raise ConfigError(
                f"{counted(empty, 'example')} of the labels {'has' if empty == 1 else 'have'} no side",
                f"the column {split.column} is empty there",
                "fill it, or use --split",
            )
        new = sorted(said, key=lambda name: (SIDES.index(name) if name in SIDES else len(SIDES), name))
    return tuple(dict.fromkeys([*before, *new]))


def _known(material: Material) -> NDArray[np.bool_]:
    """Which images are of items that the earlier dataset has."""
    return np.asarray(_places(material) != NONE)


def _places(material: Material) -> NDArray[np.int64]:
    """Of each image the place of its item in the earlier dataset, NONE where it has none."""
    images, earlier = material.images, material.earlier
    if earlier is None or not len(images):
        return np.full(len(images), NONE, np.int64)
    both = joining.numbered(
        np.concatenate([earlier.partners, images.partners]), np.concatenate([earlier.items, images.items])
    )
    place = np.full(int(both.max()) + 1, NONE, np.int64)
    place[both[: len(earlier)]] = np.arange(len(earlier))
    return place[both[len(earlier) :]]


def _ranked(names: Sequence[str]) -> NDArray[np.int32]:
    """The place of each name in their order: codes have that of the rows, which decides nothing."""
    ranks = np.empty(len(names), np.int32)
    ranks[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names), dtype=np.int32)
    return ranks


def pictures_of(material: Material, joined: Joined, names: Sequence[str]) -> Pictures:
    """The examples, in the order of images, and behind them the pictures of the earlier dataset that are replaced."""
    chosen = np.flatnonzero(joined.labels != NONE)
    content, value = (words[chosen] for words in material.words)
    by_code = np.array([names.index(name) if name in names else NONE for name in material.labels.side_names], np.int32)
    said = joined.sides[chosen]
    sides = np.where(said == NONE, NONE, by_code[said] if len(by_code) else NONE).astype(np.int32)
    fixed = np.zeros(len(chosen), np.bool_)
    labels = _ranked(material.names)[joined.labels[chosen]]
    earlier = material.earlier
    if earlier is None:
        return Pictures(content, value, labels, sides, fixed)
    place = _places(material)[chosen]
    known = np.flatnonzero(place != NONE)
    old = place[known]
    same = (content[known] == earlier.content[old]) | (value[known] == earlier.value[old])
    stays = known[same | (sides[known] == NONE)]  # another picture of the item goes where a column says, if one does
    sides[stays] = earlier.sides[place[stays]]
    fixed[known[same]] = True
    gone = np.setdiff1d(np.arange(len(earlier)), old[same])
    return Pictures(
        np.concatenate([content, earlier.content[gone]]),
        np.concatenate([value, earlier.value[gone]]),
        np.concatenate([labels, np.full(len(gone), NONE, np.int32)]),
        np.concatenate([sides, earlier.sides[gone]]),
        np.concatenate([fixed, np.ones(len(gone), np.bool_)]),
    )
