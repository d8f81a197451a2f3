"""`hathi stop` and `hathi start`, here and for every host, as they are typed, against processes that run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.integration.test_health_command import PATIENCE, Site, site, until

__all__ = ["site"]
OBJECT = "bucket/shop/h/alive/ESTOP"


def test_a_daemon_ends_at_its_next_poll_and_nothing_starts_until_it_is_taken_back(site: Site) -> None:
    site.refs("a.jsonl", "one")
    with site.serving("ship") as daemon:
        until(lambda: any((site.folder / "bucket/shop/c").glob("*/end")))
        stopped = site.hathi("stop", "--remote")
        assert stopped.returncode == 0, stopped.stderr
        assert f"ESTOP engaged: {site.folder}/{OBJECT}" in stopped.stdout
        assert daemon.wait(PATIENCE) == 4
    assert "ESTOP engaged in the bucket: shop/h/alive/ESTOP" in site.log()
    begun = set((site.folder / "bucket/shop/c").rglob("*"))
    for command in (("run",), ("run", "ship", "--once"), ("serve", "deliver")):
        assert site.hathi(*command).returncode == 4, command
    assert set((site.folder / "bucket/shop/c").rglob("*")) == begun
    assert not list((site.folder / "bucket/shop/h/alive").glob("*.*")), "each took its beat back"
    assert "ESTOP is engaged in the bucket" in site.hathi("status").stdout
    assert "Warning: ESTOP is engaged in the bucket: no host works for lake shop" in site.hathi("health").stdout
    back = site.hathi("start", "--remote")
    assert (back.returncode, back.stdout.partition(";")[0]) == (0, "ESTOP is taken back")
    assert site.hathi("run").returncode == 0
    assert list((site.folder / "lake/features").glob("*/7/*"))


@pytest.mark.parametrize("remote", [False, True])
def test_start_takes_back_what_it_is_asked_for_and_says_what_still_stands(site: Site, remote: bool) -> None:
    more = ["--remote"] if remote else []
    assert site.hathi("stop").returncode == site.hathi("stop", "--remote").returncode == 0
    here, there = site.state / "ESTOP", site.folder / OBJECT
    assert here.exists()
    assert there.exists()
    shown = site.hathi("stop", "--show")
    assert shown.returncode == 4
    assert [str(here) in shown.stdout, str(there) in shown.stdout] == [True, True]
    back = site.hathi("start", *more)
    assert back.returncode == 4
    assert (here.exists(), there.exists()) == (remote, not remote)
    (line,) = back.stdout.splitlines()
    left, gone = (here, there) if remote else (there, here)
    where = "on any host until you delete" if left is there else "on this host until you remove"
    assert line.startswith(f"ESTOP engaged: nothing starts {where} {left}")
    assert str(gone) not in line
    assert site.hathi("run").returncode == 4
    assert site.hathi("start", *([] if remote else ["--remote"])).returncode == 0
    where = "in the bucket" if remote else "on this host"
    assert site.hathi("start", *more).stdout == f"No ESTOP stood {where}; nothing was taken back.\n"
    for words in (["--show"], ["--show", "--remote"]):
        shown = site.hathi("stop", *words)
        assert (shown.returncode, shown.stdout) == (0, "No ESTOP stands.\n")


def test_a_bucket_that_cannot_be_reached_is_named_and_is_no_estop(site: Site) -> None:
    far = 'url = "s3://nowhere/x"\nendpoint = "http://127.0.0.1:9"\naccess_key = "k"\nsecret_key = "k"\nregion = "r"'
    site.config.write_text(site.config.read_text().replace('url = "bucket"', far))
    began = time.monotonic()
    back = site.hathi("start")
    assert back.returncode == 0
    assert back.stdout.startswith("not seen: whether ESTOP stands in the bucket: the S3 server cannot be reached")
    assert site.hathi("stop", "--show").stdout.splitlines()[1:] == ["No ESTOP stands on this host."]
    asked = site.hathi("stop", "--remote")
    assert asked.returncode == 1
    assert "cannot be reached" in asked.stderr
    assert time.monotonic() - began < PATIENCE
    assert not Path(site.state / "ESTOP").exists()
