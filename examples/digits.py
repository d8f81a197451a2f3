"""A net learns digits, and what it has learned makes features: a training by a program, with pycaffe's names.

    hathi sample digits
    python examples/digits.py digits

The program trains until the net knows enough of the held-out digits, writes its weights, and looks for the nearest
neighbour of each picture that the net never saw.  The features have length 1, so their product is the cosine.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np

import hathi
from hathi import training


def main() -> int:
    """0; 1 where the net has not learned enough; 2 where Hathi cannot train or use the net."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder that `hathi sample digits` made")
    parser.add_argument("--enough", type=float, default=0.98, help="the accuracy at which the training ends")
    parser.add_argument("--seed", type=int, help="other random numbers than the solver's")
    args = parser.parse_args()
    try:
        os.chdir(args.folder)  # the solver's paths are relative to it, as Caffe's are
        accuracy, weights = trained(args.enough, args.seed)
        labels, vectors = features(sorted(Path("pictures").glob("*.png")), weights)
    except (hathi.Error, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1.0)  # itself
    same = float((labels[np.argmax(cosines, axis=1)] == labels).mean())
    print(f"{same:.0%} of {len(labels)} unseen digits have a neighbour of their kind; weights: {weights}")
    return int(accuracy < args.enough)


def trained(enough: float, seed: int | None) -> tuple[float, Path]:
    """The accuracy on the held-out digits, and the weights that have it."""
    with training.load("solver.prototxt", seed=seed) as solver:
        accuracy = 0.0
        while accuracy < enough and solver.iter < solver.max_iter:
            solver.step(50)
            test = solver.test_nets[0]
            accuracy = float(np.mean([test.forward()["accuracy"] for _ in range(10)]))
            print(f"iteration {solver.iter}: accuracy {accuracy:.3f}", flush=True)
        return accuracy, Path(solver.snapshot()).with_suffix(".caffemodel")


def features(pictures: list[Path], weights: Path) -> tuple[np.ndarray, np.ndarray]:
    """The digit of each picture, as its name says, and its feature, (n, 500) float32."""
    found = hathi.features(pictures, net="deploy.prototxt", weights=weights, blob="ip1", preprocess="unit")
    pairs = [(int(Path(one.url).name[0]), one.vector) for one in found if one.vector is not None]
    return np.array([label for label, _ in pairs]), np.stack([vector for _, vector in pairs])


if __name__ == "__main__":
    sys.exit(main())
