"""The bucket's own rules that would take our keys away (GetBucketLifecycleConfiguration), in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ARCHIVES = {"GLACIER", "DEEP_ARCHIVE"}
"""Storage classes whose objects cannot be read without being brought back by hand."""


def in_words(rules: Sequence[Mapping[str, Any]], prefix: str) -> str:
    """What the rules do to keys under a prefix (of the bucket); empty where they leave them alone."""
    return "; ".join(words for rule in rules if (words := _words(rule, prefix)))


def _words(rule: Mapping[str, Any], prefix: str) -> str:
    if rule.get("Status") != "Enabled" or _tags(rule):  # our objects bear no tags
        return ""
    reach = _prefix(rule)
    if not (reach.startswith(prefix) or prefix.startswith(reach)):
        return ""
    does = " and ".join(_deeds(rule))
    return f'rule "{rule.get("ID", "")}" {does} (prefix "{reach}")' if does else ""


def _deeds(rule: Mapping[str, Any]) -> Iterator[str]:
    ends = rule.get("Expiration", {})
    if when := _when(ends):
        yield f"deletes keys {when}"
    for move in rule.get("Transitions", ()):
        if move.get("StorageClass") in ARCHIVES:
            yield f"moves keys into {move['StorageClass']} {_when(move) or 'at once'}"


def _when(deed: Mapping[str, Any]) -> str:
    if "Days" in deed:
        return f"after {deed['Days']} days"
    if "Date" in deed:
        return f"on {deed['Date']:%Y-%m-%d}"
    return ""


def _prefix(rule: Mapping[str, Any]) -> str:
    wanted = rule.get("Filter", {})
    return str(wanted.get("Prefix") or wanted.get("And", {}).get("Prefix") or rule.get("Prefix") or "")


def _tags(rule: Mapping[str, Any]) -> bool:
    wanted = rule.get("Filter", {})
    return "Tag" in wanted or bool(wanted.get("And", {}).get("Tags"))
