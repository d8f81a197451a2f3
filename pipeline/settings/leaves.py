"""The settings one by one, by their dotted keys, as they are shown: secrets masked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, SecretStr

MASK = "********"


def leaves(value: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of all leaves; a secret is a SecretStr."""
    items: Mapping[str, object]
    if isinstance(value, BaseModel):
        items = {name: getattr(value, name) for name in type(value).model_fields}
    elif isinstance(value, dict):
        items = value
    elif isinstance(value, list) and any(isinstance(one, BaseModel) for one in value):
        items = {str(number): one for number, one in enumerate(value)}
    else:
        yield prefix, value
        return
    if not items:
        yield prefix, {}
    for name, below in items.items():
        yield from leaves(below, f"{prefix}.{name}" if prefix else name)


def flatten(value: object) -> Iterator[tuple[str, Any]]:
    """The same, with a mask in the place of each secret."""
    for key, one in leaves(value):
        yield key, MASK if isinstance(one, SecretStr) else one
