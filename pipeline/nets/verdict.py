"""What is found of a net's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Verdict:
    """own: a row depends on its image alone.  mixed: on others too, or on its place.  random: on chance.

    unknown: the graph does not tell.  why: names the layer or node.
    """

    kind: Literal["own", "mixed", "random", "unknown"]
    why: str = ""


OWN = Verdict("own")
