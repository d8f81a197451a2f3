"""Some of the damages of `bodies.py`, all of which are `python -m tests.fuzz.bodies`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.bodies import TARGETS, Change, Stand, Target, some, tried

SECONDS = 12.0
SEED = "ci"


def test_no_value_of_any_body_stops_what_is_not_of_its_shipment_and_nothing_unreadable_is_deleted(
    tmp_path: Path,
) -> None:
    tries, found = some(SEED, SECONDS, tmp_path)
    assert found == []
    assert tries > 0


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_newer_or_torn_body_or_a_folder_in_its_place_is_left_alone_and_said_once(
    tmp_path: Path, target: Target
) -> None:
    stand = Stand(tmp_path)
    changes = [Change(target, (), content) for content in (b"{torn", b'{"format": 99}')]
    assert [tried(stand, change) for change in (*changes, Change(target, (), "a folder"))] == ["", "", ""]
