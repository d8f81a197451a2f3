"""Three in the morning, a few faults of it over folders; `python -m tests.night` does all."""

from __future__ import annotations

from pathlib import Path

from tests.night.deployment import in_folders
from tests.night.faults import FAULTS
from tests.night.objects import OBJECTS
from tests.night.trying import attempt, table

FEW = {"the box's run is killed", "the daemons are dead", "a batch is deleted"}


def test_what_is_wrong_is_named_with_its_remedy_and_nothing_is_lost(tmp_path: Path) -> None:
    faults = [one for one in (*FAULTS, *OBJECTS) if one.name in FEW]
    assert len(faults) == len(FEW)
    with in_folders(tmp_path) as deployment:
        found = [attempt(deployment, one) for one in faults]
    bad = [one for one in found if not one.passed]
    assert not bad, "\n".join([*table(found), *(one.everything for one in bad)])
