"""The pictures of a folder that look alike: duplicates, and the nearest neighbours of each.

    python examples/duplicates.py pictures/ --net vit.onnx --preprocess imagenet --same 0.98

The features have length 1 (`normalise="l2"`), so their product is the cosine: 1 is the same picture.  Without --net it
is OpenCV's HOG, which finds the same shape in another size or another format.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import hathi

ROWS = 1024
"""Pictures that are compared with all others at once: 1,024 x 100,000 cosines are 400 MB."""


def main() -> int:
    """0; 1 where no picture can be read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--net", default="hog")
    parser.add_argument("--weights")
    parser.add_argument("--blob")
    parser.add_argument("--preprocess", help="caffe, imagenet, clip, dinov2, unit, none: what it was trained with")
    parser.add_argument("--same", type=float, default=0.98, help="a cosine from which two pictures count as duplicates")
    parser.add_argument("--near", type=int, default=3, help="how many neighbours of each picture are shown")
    args = parser.parse_args()

    files = sorted(path for path in args.folder.rglob("*") if path.is_file())
    found = hathi.features(files, net=args.net, weights=args.weights, blob=args.blob, preprocess=args.preprocess)
    names: list[str] = []
    vectors: list[np.ndarray] = []
    for one in sorted(found, key=lambda one: one.index):
        if one.vector is not None:
            names.append(str(Path(one.url).relative_to(args.folder)))
            vectors.append(one.vector)
        elif one.failure is not None:
            print(f"left out: {one.url}: {one.failure.reason} {one.failure.detail}", file=sys.stderr)
    if not vectors:
        return 1
    matrix = np.stack(vectors)
    for begin in range(0, len(matrix), ROWS):
        cosines = matrix[begin : begin + ROWS] @ matrix.T
        for row, name in enumerate(names[begin : begin + ROWS]):
            cosines[row, begin + row] = -1.0  # itself
            nearest = np.argsort(-cosines[row])[: min(args.near, len(matrix) - 1)]
            shown = ", ".join(f"{names[at]} {cosines[row, at]:.3f}" for at in nearest)
            print(f"{name}: {shown}")
            for at in np.flatnonzero(cosines[row] >= args.same):
                if at > begin + row:  # each pair once
                    print(f"  duplicate: {name} = {names[at]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
