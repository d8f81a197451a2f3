"""A batch alone, in real child processes: what comes of it, and of children that are killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from pipeline.clock import Clock
from pipeline.errors import Stopped
from pipeline.extraction.feature_maker import FeatureMaker
from pipeline.extraction.window import Computed, Opened
from pipeline.records import ImageRef
from pipeline.settings import Settings
from sample import random_features
from tests.environment import environ
from tests.integration.conftest import ROOT, picture

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("alone")
    random_features.write(folder / "random.caffemodel")
    return Settings.model_validate(
        {
            "state": str(folder / "state"),
            "bucket": {"url": str(folder / "bucket")},
            "sets": {
                "demo": {
                    "net": str(ROOT / "sample" / "random_features.prototxt"),
                    "weights": str(folder / "random.caffemodel"),
                    "blob": "features",
                    "root": "features",
                }
            },
            "fetch": {"allow_private": True, "attempts": 1},
            "compute": {"threads": 1},
        }
    )


@pytest.fixture(scope="module")
def maker(settings: Settings) -> FeatureMaker:
    return FeatureMaker(settings, "demo", Clock())


def ref(place: int, content: bytes = b"", url: str = "", name: str = "") -> ImageRef:
    return ImageRef(7, place, name or f"sku-{place}", url, content, place << 20)


def in_order(computed: Computed[str]) -> tuple[list[object], list[object], list[bytes]]:
    """Rows, failures and the bits of each feature, by ordinal; when an inline image was looked at is not compared."""
    order = sorted(range(len(computed.rows)), key=lambda at: computed.rows[at].ordinal)
    rows: list[object] = [replace(computed.rows[at], fetched_at=LONG_AGO) for at in order]
    failures: list[object] = [*sorted(computed.failures, key=lambda row: row.ordinal)]
    return rows, failures, [computed.matrix[at].tobytes() for at in order]


def children(content: bytes) -> list[int]:
    """Children of this process that run a batch which holds these bytes."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_text().split("\0")
            ours = f"\nPPid:\t{os.getpid()}\n" in (entry / "status").read_text()
            if (
                ours
                and "pipeline.extraction.isolation" in words
                and content in (Path(words[3]) / "refs.pb").read_bytes()
            ):
                found.append(int(entry.name))
        except OSError:
            continue  # no process, or one that has just ended
    return found


@contextmanager
def hunting(content: bytes, sent: signal.Signals = signal.SIGKILL) -> Iterator[list[int]]:
    """As long as this lasts, whatever child holds these bytes gets the signal."""
    over = threading.Event()
    hit: list[int] = []

    def hunt() -> None:
        while not over.wait(0.005):
            for child in children(content):
                os.kill(child, sent)
                hit.append(child)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        yield hit
    finally:
        over.set()
        hunter.join()


def test_a_child_gives_the_same_rows_and_bits_as_the_window(maker: FeatureMaker) -> None:
    refs = [ref(place, picture(place)) for place in range(5)]
    refs += [ref(5, b"no picture"), ref(6, url="http://127.0.0.1:1/nobody.jpg"), ref(7)]
    (inside,) = [done for done in maker.window({"a": ["b"]}, lambda task: Opened(task, refs), lambda: True) if done]
    alone = maker.alone("b", refs)
    assert in_order(alone) == in_order(inside)
    assert (len(alone.rows), [row.reason for row in in_order(alone)[1]]) == (5, ["not_image", "connect", "bad_ref"])  # type: ignore[attr-defined]
    assert alone.trouble == ""


def test_the_one_item_whose_child_is_killed_is_poison_and_the_others_have_features(maker: FeatureMaker) -> None:
    refs = [ref(place, picture(place)) for place in range(3)]
    refs[0] = refs[0]._replace(external_id="the-killer")
    with hunting(b"the-killer") as hit:
        done = maker.alone("b", refs)
    assert len(set(hit)) >= 2
    assert [row.external_id for row in done.rows] == ["sku-1", "sku-2"]
    assert [(row.external_id, row.reason, row.retriable) for row in done.failures] == [("the-killer", "poison", False)]
    assert np.isfinite(done.matrix).all()


def test_children_that_die_without_any_image_are_trouble_and_no_item_is_blamed(
    settings: Settings, maker: FeatureMaker
) -> None:
    short = settings.model_copy(update={"compute": settings.compute.model_copy(update={"alone_bytes": 2**24})})
    starved = FeatureMaker(short, "demo", Clock())
    done = starved.alone("b", [ref(0, picture(0)), ref(1, picture(1))])
    assert done.trouble.startswith("the child process died before it saw an image: it ")
    assert (list(done.rows), list(done.failures)) == ([], [])


def test_a_child_that_is_told_to_end_stops_the_run_and_blames_no_item(maker: FeatureMaker) -> None:
    with hunting(b"sku-0", signal.SIGTERM), pytest.raises(Stopped):
        maker.alone("b", [ref(0, picture(0))])


def test_a_child_dies_with_its_parent(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    program = """
import sys
from pathlib import Path
from pipeline.clock import Clock
from pipeline.records import ImageRef
from pipeline.settings import Settings
from pipeline.extraction.isolation import compute_alone
settings = Settings.model_validate_json(Path(sys.argv[1]).read_text())
compute_alone(settings, "demo", "b", [ImageRef(7, 1, "", sys.argv[2], b"", 0)], 128, lambda: None, Clock())
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/never.jpg"
        words = [sys.executable, "-c", program, str(tmp_path / "settings.json"), url]
        parent = subprocess.Popen(words, cwd=ROOT, env=environ())
        asked, _ = silent.accept()  # the child is at work
        (child,) = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        parent.kill()
        parent.wait()
        wait_until(lambda: not alive(int(child)))
        asked.close()


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)
