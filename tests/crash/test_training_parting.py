"""SIGTERM while a training uploads its snapshot: a slow store loses none, and a store that hangs holds nobody."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.test_faults import until
from tests.crash.test_training_points import MORE, Home
from tests.crash.training_points import TRAIN
from tests.crash.zygote import Zygote
from tests.faults.faults import Fault

LINK = "s/0000000003"


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    made = Zygote(MORE)
    yield made
    made.close()


def asked_in_an_upload(home: Home, seconds: float, grace: str = "25") -> int:
    """SIGTERM as the first file of the first snapshot is on its way, which takes so long; the exit code."""
    pid = home.typed(TRAIN, [Fault("slow", "put", r"/net\.caffemodel$", seconds=seconds)], grace=grace)
    until(lambda: any(row[1] == "slow" for row in home.noted()), lambda: home.said)
    os.kill(pid, signal.SIGTERM)
    return home.zygote.wait(pid)


def test_a_snapshot_that_is_on_its_way_arrives_and_the_next_process_goes_on_from_it(
    zygote: Zygote, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home", zygote).made()
    assert asked_in_an_upload(home, 3.0) == 75
    assert (home.job() / LINK).exists()
    assert [path.name for path in sorted((home.job() / "t").glob("*"))] == ["00001", "00001.x"]
    assert b'"abandoned"' in (home.job() / "t" / "00001.x").read_bytes()
    assert home.zygote.wait(home.typed(TRAIN, [])) == 0


def test_a_store_that_hangs_keeps_a_process_no_longer_than_its_grace(zygote: Zygote, tmp_path: Path) -> None:
    calm, home = Home(tmp_path / "calm", zygote).made(), Home(tmp_path / "home", zygote).made()
    assert calm.zygote.wait(calm.typed(TRAIN, [])) == 0
    assert asked_in_an_upload(home, 600.0, grace="3") == 75
    assert "work did not stop in time" in home.said
    assert not (home.job() / LINK).exists()
    assert home.zygote.wait(home.typed(TRAIN, [])) == 0
    assert home.came_of_it() == calm.came_of_it()
