"""One fingerprint, one net: whoever computes says what it has loaded, and whoever asked for another refuses it."""

from __future__ import annotations

from pipeline.errors import NetError


def same_net(name: str, wanted: str, loaded: str) -> None:
    """Raises NetError when a set that is asked for under one fingerprint was loaded with another."""
    if wanted != loaded:
        raise NetError(
            f"set {name}: the net's files changed while it was in use",
            f"the work was planned with fingerprint {wanted[:12]}; the files on disk now give {loaded[:12]}",
            "nothing wrong was published; restart every process that "
            "computes this set, so that all of them load the same files",
        )
