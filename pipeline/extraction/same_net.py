"""One fingerprint, one net: whoever computes says what it has loaded, and whoever asked for another refuses it."""

from __future__ import annotations

from pipeline.errors import NetError


def same_net(name: str, wanted: str, loaded: str) -> None:
    """Raises NetError when a set that is asked for under one fingerprint was loaded with another."""
    if wanted != loaded:
        raise NetError(
            f"set {name}: the net's files changed while it was in use",
            f"work was planned with the net {wanted[:12]}; who loads the set now gets {loaded[:12]}",
            "nothing was published under a wrong fingerprint; restart what runs this set, so that all have one net",
        )
