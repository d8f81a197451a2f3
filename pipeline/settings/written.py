"""Settings as TOML: what is written down of values that were read or given as options."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml_key(name: str) -> str:
    """A name as a key, in quotes where it needs them."""
    return name if _BARE.fullmatch(name) else toml_value(name)


def toml_value(value: object) -> str:
    """A value as TOML writes it: strings and lists as in JSON, and DEL escaped, too."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:_}" if value >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:_}" if value.is_integer() and value >= 1000 else repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_of(tree: Mapping[str, Any]) -> str:
    """A tree of settings as a file.  None is left out: TOML has no word for it, and a setting that is absent has it."""
    return "\n".join(_table(tree, "")) + "\n"


def _table(tree: Mapping[str, Any], name: str) -> Iterator[str]:
    """A table's values, then the tables in it."""
    tables = {key: value for key, value in tree.items() if isinstance(value, Mapping) or _of_tables(value)}
    for key, value in tree.items():
        if key not in tables and value is not None:
            yield f"{toml_key(key)} = {toml_value(value)}"
    for key, value in tables.items():
        inner = f"{name}.{toml_key(key)}" if name else toml_key(key)
        for one in value if isinstance(value, list) else [value]:
            yield ""
            yield f"[[{inner}]]" if isinstance(value, list) else f"[{inner}]"
            yield from _table(one, inner)


def _of_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)
