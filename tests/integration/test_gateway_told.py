"""A gateway that is stopped, killed or under ESTOP: a box that cron calls, and its own daemon, tell a webhook."""

from __future__ import annotations

from pathlib import Path

import pytest

from sample import random_features
from tests.integration.test_health_command import Site, until
from tests.unit.listeners import Hook, hook_server

BOTH = ["gateway shop deliver", "gateway shop ship"]
QUICK = {
    "daemon": ["beat_seconds = 0.5", "alive_seconds = 2.0"],
    "health": ["every_seconds = 0.2", "gateway_minutes = 0.05"],
}


def host(folder: Path, name: str, *notify: str) -> Site:
    """A host over the bucket that all share."""
    made = Site(folder / name, {**QUICK, **({"notify": list(notify)} if notify else {})})
    made.folder.mkdir()
    (folder / "bucket").mkdir(exist_ok=True)
    (made.folder / "bucket").symlink_to(folder / "bucket")
    random_features.write(made.folder / "w.caffemodel")
    made.write()
    return made


@pytest.fixture
def gateway(tmp_path: Path) -> Site:
    made = host(tmp_path, "gateway")
    made.refs("a.jsonl", "one")
    return made


def cron(box: Site) -> int:
    return box.hathi("run", "--once", "compute", "aggregate").returncode


def cron_until_told(box: Site, hook: Hook, number: int) -> dict[str, object]:
    """The news of that number, for which cron calls the box as often as it takes."""
    until(lambda: cron(box) in (0, 4) and len(hook.posts) >= number)
    told: dict[str, object] = hook.posts[number - 1]
    return told


def keys(told: dict[str, object]) -> list[str]:
    findings = told["findings"]
    assert isinstance(findings, list)
    return sorted(one["key"] for one in findings)


def test_a_box_tells_that_the_gateway_was_stopped_killed_and_is_under_estop_and_takes_it_back(
    gateway: Site, tmp_path: Path
) -> None:
    with hook_server() as hook:
        box = host(tmp_path, "box", f'webhook = "{hook.url}"')
        assert cron(box) == 0
        with gateway.serving("ship", "deliver"):
            until(lambda: any((tmp_path / "bucket/shop/h/alive").glob("*")))
            assert cron(box) == 0
            assert hook.posts == [], "neither one that never was nor one that has just started is missed"
        first = cron_until_told(box, hook, 1)
        assert set(keys(first)) <= set(BOTH)
        with gateway.serving("ship", "deliver") as process:
            until(lambda: cron(box) == 0 and hook.posts[-1]["level"] == "OK")
            assert set(hook.posts[-1]["over"]) <= set(BOTH)
            told = len(hook.posts)
            process.kill()
            process.wait()
            cron_until_told(box, hook, told + 1)
        until(lambda: cron(box) == 0 and keys(hook.posts[-1]) == BOTH)
        assert "dead or stopped" in hook.posts[-1]["text"]
        assert gateway.hathi("stop", "--remote").returncode == 0
        assert cron(box) == 4
        assert keys(hook.posts[-1]) == ["estop shop"], "a box that does nothing tells why"
        assert cron(box) == 4
        told = len(hook.posts)
        assert gateway.hathi("start", "--remote").returncode == 0
        with gateway.serving("ship", "deliver"):
            over = cron_until_told(box, hook, told + 1)
            assert over["over"] == ["estop shop"]
            until(lambda: cron(box) == 0 and hook.posts[-1]["level"] == "OK")


def test_a_daemon_that_estop_ends_tells_it_at_its_end_and_takes_it_back_at_its_next_start(tmp_path: Path) -> None:
    with hook_server() as hook:
        gateway = host(tmp_path, "gateway", f'webhook = "{hook.url}"')
        gateway.refs("a.jsonl", "one")
        with gateway.serving("ship", "deliver") as process:
            until(lambda: (gateway.state / "health.json").exists())
            assert gateway.hathi("stop", "--remote").returncode == 0
            assert process.wait(60) == 4
        assert [keys(one) for one in hook.posts] == [["estop shop"]]
        assert gateway.hathi("start", "--remote").returncode == 0
        with gateway.serving("ship", "deliver"):
            until(lambda: len(hook.posts) == 2)
        assert (hook.posts[1]["level"], hook.posts[1]["over"]) == ("OK", ["estop shop"])
