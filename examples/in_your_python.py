"""Features in a program of your own: URLs, files and bytes in, vectors out; here, what a picture shows is guessed.

    python examples/in_your_python.py labels.csv unknown.jpg URL --net x.prototxt --weights x.caffemodel --blob fc7

labels.csv has two columns, `image` (a URL, or a file beside the list) and `label`.  A label is the mean of the features
of its pictures; an unknown picture gets the label that is nearest.  Without --net it is OpenCV's HOG.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import hathi


def main() -> int:
    """0; 1 where no labelled picture has a feature; 2 where Hathi cannot use the net."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("unknown", nargs="+")
    parser.add_argument("--net", default="hog")
    parser.add_argument("--weights")
    parser.add_argument("--blob")
    parser.add_argument("--allow-private", action="store_true", help="URLs inside your own network, and any port")
    args = parser.parse_args()

    with args.labels.open(newline="") as file:
        rows = [(row["image"], row["label"]) for row in csv.DictReader(file)]
    images = [place(name, args.labels.parent) for name, _ in rows] + [place(name, Path()) for name in args.unknown]
    try:
        vectors = features(images, args)
    except hathi.Error as error:  # the net, the weights, a setting; an image never raises
        print(f"{error.message}; {error.hint}", file=sys.stderr)
        return 2

    by_label = defaultdict(list)
    for (_, label), vector in zip(rows, vectors, strict=False):
        if vector is not None:
            by_label[label].append(vector)
    if not by_label:
        return 1
    labels = sorted(by_label)
    means = np.stack([np.mean(by_label[label], axis=0) for label in labels])
    for name, vector in zip(args.unknown, vectors[len(rows) :], strict=True):
        if vector is not None:
            distances = np.linalg.norm(means - vector, axis=1)
            print(f"{name}: {labels[int(np.argmin(distances))]} (distance {distances.min():.3f})")
    return 0


def place(name: str, folder: Path) -> str | Path:
    """A URL as it is, a file as a path."""
    return name if "://" in name else folder / name


def features(images: Sequence[str | Path], args: argparse.Namespace) -> list[np.ndarray | None]:
    """The vector of each image, (dim,) float32; None, and a line, where there is none."""
    vectors: list[np.ndarray | None] = [None] * len(images)
    found = hathi.features(images, net=args.net, weights=args.weights, blob=args.blob, allow_private=args.allow_private)
    print(f"{found.dim} values; {found.preprocessing}", file=sys.stderr)
    for one in found:  # as they end: images of a slow host come late
        vectors[one.index] = one.vector
        if one.failure is not None:
            print(f"no feature: {one.url}: {one.failure.reason} {one.failure.detail}", file=sys.stderr)
    return vectors


if __name__ == "__main__":
    sys.exit(main())
