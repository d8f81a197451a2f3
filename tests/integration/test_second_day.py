"""A list that comes again each day: `hathi run` fetches and computes what changed, over a real web server."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hathi
from tests.integration.conftest import OwnList, picture
from tests.integration.tagged_images import TaggedImages, serving

IMAGES, CHANGED = 200, 10
DAY = 86400.0


@pytest.fixture
def shop() -> Iterator[TaggedImages]:
    with serving() as images:
        yield images


def day(
    own: OwnList, shop: TaggedImages, number: int, paths: list[str], *more: str, out: str = "out"
) -> dict[str, Any]:
    """The list as of a day, through all stages; what the run says, and its CPU seconds."""
    lines = ["partner_id,external_id,url", *(f"7,{path},{shop.url(path)}" for path in paths)]
    refs = own.folder / "refs.csv"
    refs.write_text("\n".join(lines) + "\n")
    at = time.time() + (number - 30) * DAY
    os.utime(refs, (at, at))
    shop.begin()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    fast = ["--set", "fetch.requests_per_second=10000", "--set", "fetch.burst=10000"]
    places = ["--refs", str(refs), "--features", str(own.folder / out)]
    net = ["--net", str(own.net), "--weights", str(own.weights), "--blob", "features"]
    done = own.hathi("run", *places, *net, "--allow-private", "--json", *fast, *more)
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found: dict[str, Any] = {**json.loads(done.stdout), "cpu": cpu}
    return found


def features(folder: Path) -> dict[str, bytes]:
    """The newest feature of each item, to the bit."""
    table = hathi.read_features(folder)
    vectors = np.stack(table["features"].to_numpy(zero_copy_only=False))
    return dict(zip(table["external_id"].to_pylist(), (one.tobytes() for one in vectors), strict=True))


def test_a_second_day_with_5_percent_changed_costs_a_tenth_of_the_first(
    own: OwnList, shop: TaggedImages, figures: Callable[[str], None]
) -> None:
    paths = [f"/{('tag', 'time')[at % 2]}/{at}.png" for at in range(IMAGES)]
    shop.images.update((path, picture(at, 120)) for at, path in enumerate(paths))
    first = day(own, shop, 1, paths)
    assert (first["features"], first["not_modified"], first["equal_bytes"]) == (IMAGES, 0, 0)
    bytes_of_first, known = shop.sent, features(own.out)
    changed = paths[:CHANGED]
    for at, path in enumerate(changed):
        shop.images[path], shop.changed[path] = picture(IMAGES + at, 120), time.time() - 10 * DAY
    second = day(own, shop, 2, paths)
    bytes_of_second = shop.sent
    assert (second["features"], second["not_modified"], second["equal_bytes"]) == (IMAGES, IMAGES - CHANGED, 0)
    assert shop.answers == {304: IMAGES - CHANGED, 200: CHANGED}
    assert bytes_of_second <= bytes_of_first / 10
    now = features(own.out)
    assert {path for path in paths if now[path] != known[path]} == set(changed)
    figures(
        f"{IMAGES} images, {CHANGED} of them changed: {bytes_of_first:,} bytes on the first day, "
        f"{bytes_of_second:,} on the second ({100 * bytes_of_second / bytes_of_first:.1f} %); {CHANGED} images "
        f"computed; CPU of the whole command, most of it its start: {first['cpu']:.2f} s and {second['cpu']:.2f} s"
    )
    anew = day(own, shop, 3, paths, "--set", "reuse=false", out="other")
    assert (anew["features"], anew["not_modified"]) == (IMAGES, 0)
    assert features(own.folder / "other") == now, "what is used again is what is computed, to the bit"


def test_what_a_host_sends_again_is_computed_once_by_its_bytes(own: OwnList, shop: TaggedImages) -> None:
    paths = [f"/plain/{at}.png" for at in range(20)]
    shop.images.update((path, picture(at)) for at, path in enumerate(paths))
    day(own, shop, 1, paths)
    known = features(own.out)
    shop.images["/plain/7.png"] = picture(100)
    second = day(own, shop, 2, [*reversed(paths), "/plain/gone.png"])
    assert (second["features"], second["equal_bytes"], second["failures"]) == (20, 19, {"http_4xx": 1})
    assert shop.answers == {200: 20, 404: 1}
    now = features(own.out)
    assert [path for path in paths if now[path] != known[path]] == ["/plain/7.png"]
    told = own.hathi("why", "7", "/plain/3.png", "--features", str(own.out))
    assert "computed before, and the host sent the same bytes" in told.stdout, told.stdout


def test_a_feature_that_was_pruned_is_fetched_and_computed_again(own: OwnList, shop: TaggedImages) -> None:
    """No condition is sent for a feature that is not in the hands: a 304 would have nothing to stand for."""
    paths = [f"/tag/{at}.png" for at in range(10)]
    shop.images.update((path, picture(at)) for at, path in enumerate(paths))
    day(own, shop, 1, paths)
    pages = [path for path in (own.out / ".hathi").rglob("u/d/**/*") if path.is_file()]
    assert pages
    for page in pages:
        page.unlink()
    second = day(own, shop, 2, paths)
    assert (second["features"], second["not_modified"]) == (10, 0)
    assert shop.answers == {200: 10}


def test_images_that_are_kept_are_kept_on_without_being_sent(own: OwnList, shop: TaggedImages) -> None:
    paths = [f"/tag/{at}.png" for at in range(12)]
    shop.images.update((path, picture(at, 300)) for at, path in enumerate(paths))
    runs = []
    for number in (1, 2):
        lines = ["partner_id,external_id,url", *(f"7,{path},{shop.url(path)}" for path in paths)]
        refs = own.folder / "kept.csv"
        refs.write_text("\n".join(lines) + "\n")
        at = time.time() + (number - 30) * DAY
        os.utime(refs, (at, at))
        shop.begin()
        words = ["--refs", str(refs), "--features", str(own.folder / "kept"), "--net", "image", "--allow-private"]
        done = own.hathi("run", *words, "--json")
        assert done.returncode == 0, done.stderr
        table = hathi.read_features(own.folder / "kept")
        runs.append(dict(zip(table["external_id"].to_pylist(), table["image"].to_pylist(), strict=True)))
    assert runs[0] == runs[1]
    assert len(runs[0]) == 12
    assert shop.answers == {304: 12}
