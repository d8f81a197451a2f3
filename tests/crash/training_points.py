"""The commit points of a training in the bucket: every write that is made of one, by name, and its story."""

from __future__ import annotations

from dataclasses import dataclass

from tests.crash.points import NONCE, Point, bucket
from tests.faults.faults import Fault

J = r"[a-z]+-[0-9a-f]{12}"
FILES = ("net.caffemodel", "net.solverstate", "position.json")


@dataclass(frozen=True)
class Told:
    """A story: what is typed, one after the other, until it ends so.

    faults: of the first process that types it.  codes: of one that met none.  clock: days from now.
    """

    words: tuple[str, ...]
    codes: tuple[int, ...] = (0,)
    faults: tuple[Fault, ...] = ()
    days: float = 0.0


TRAIN = ("train", "solver.prototxt", "--job", "--threads", "1", "--weights", "first.caffemodel")
ASKED = Fault("asked to stop", "list", f"/j/{J}/stop$")
"""Strikes in the first iteration: the process ends between two snapshots."""
STORIES: dict[str, tuple[Told, ...]] = {
    "whole": (Told(TRAIN),),
    "parted": (Told(TRAIN, (75,), (ASKED,)), Told(TRAIN)),
    "ended": (Told(TRAIN, (75,), (ASKED,)), Told(("train", "stop", "JOB"), (0,)), Told(TRAIN, (3,))),
    "forgotten": (Told(TRAIN), Told(("prune", "--yes"), days=500)),
}


def point(name: str, story: str, verb: str, keys: str, nth: int = 1) -> Point:
    return bucket(f"training: {name}", story, verb, keys, nth)


POINTS = (
    point("beat", "whole", "put", "h/alive/.*"),
    point("first weights", "whole", "put", f"d/j/{J}/{NONCE}/weights-0.caffemodel"),
    point("hint", "whole", "put", f"h/train/{J}"),
    point("spec", "whole", "put_new", f"j/{J}/spec"),
    point("claim", "whole", "put_new", f"j/{J}/t/00001"),
    *(point(f"{file}, the first", "whole", "put", f"d/j/{J}/{NONCE}/{file}") for file in FILES),
    point("position.json, the last", "whole", "put", f"d/j/{J}/{NONCE}/position.json", 2),
    point("link, the first", "whole", "put_new", f"j/{J}/s/0000000003"),
    point("link, the last", "whole", "put_new", f"j/{J}/s/0000000005"),
    point("out", "whole", "put_new", f"j/{J}/out"),
    point("hint deleted", "whole", "delete", f"h/train/{J}"),
    point("last beat taken back", "whole", "delete", "h/alive/.*"),
    *(point(f"{file} of a parting", "parted", "put", f"d/j/{J}/{NONCE}/{file}") for file in FILES),
    point("parting", "parted", "put_new", f"j/{J}/t/00001.x"),
    point("claim after a parting", "parted", "put_new", f"j/{J}/t/00002"),
    point("link after a parting", "parted", "put_new", f"j/{J}/s/0000000003"),
    point("stop", "ended", "put_new", f"j/{J}/stop"),
    point("hint of a stopped one deleted", "ended", "delete", f"h/train/{J}"),
    point("prune: a spec", "forgotten", "delete", f"j/{J}/spec"),
    point("prune: data", "forgotten", "delete", f"d/j/{J}/{NONCE}/.*"),
    point("prune: an attempt", "forgotten", "delete", f"j/{J}/t/00001"),
    point("prune: a link", "forgotten", "delete", f"j/{J}/s/000000000[35]"),
    point("prune: out", "forgotten", "delete", f"j/{J}/out"),
)  # fmt: skip
"""In the order in which a life passes them."""
