"""Any store behind a gate, through which each of its calls passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Gate = Callable[[str, str, Callable[[], object]], object]
"""(verb, key, effect) -> what the effect gave.  It may kill, freeze, fail, lose the answer, or change it.

The key of a rename is its target, that of a listing its prefix.
"""

CHANGES = frozenset(("put", "put_new", "delete", "make_folder", "rename_new", "rename_over", "delete_folder"))
VERBS = CHANGES | {"list", "get", "open", "sweep", "stat", "walk"}


def open_gate(verb: str, key: str, effect: Callable[[], object]) -> object:
    """Lets everything pass."""
    return effect()


class Gated:
    """A store or lake whose verbs pass a gate; whatever else it can do is passed on."""

    def __init__(self, store: object, gate: Gate) -> None:
        self._store = store
        self._gate = gate

    def __repr__(self) -> str:
        return repr(self._store)

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        if name not in VERBS:
            return verb

        def call(*args: Any, **options: Any) -> Any:
            key = args[1] if name.startswith("rename") else args[0]
            return self._gate(name, str(key), lambda: verb(*args, **options))

        return call
