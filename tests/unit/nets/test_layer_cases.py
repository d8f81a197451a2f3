"""Each layer type that Hathi knows is shown by numbers that something else computed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.nets.layers import REGISTRY

TESTS = Path(__file__).parents[2]
GOLDEN = {
    kind
    for path in (TESTS / "golden").rglob("*.prototxt")
    for kind in re.findall(r'\btype:\s*"(\w+)"', path.read_text())
}
BY_DEFINITION = (TESTS / "unit" / "nets" / "test_layers.py").read_text()


@pytest.mark.parametrize("kind", sorted(REGISTRY))
def test_a_layer_type_has_a_golden_case_or_one_by_its_definition(kind: str) -> None:
    """CONTRIBUTING.md, "Golden cases", says how either is made."""
    assert kind in GOLDEN or f'"{kind}"' in BY_DEFINITION, f"{kind} has no case: its numbers are not known to be right"
