"""A small file that wants to become large costs little, is named, and everything beside it goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.fuzz.driving import ROOT

GROWTH = 384 * 2**20
"""Bytes of memory; each bomb wants more than that."""
CPU_SECONDS = 30.0
"""Of processor time; the slowest takes half a second."""


def told(bomb: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.bombs", bomb], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    assert facts["size"] < 2 * 2**20
    assert facts["grown"] < GROWTH
    assert facts["seconds"] < CPU_SECONDS
    return facts


@pytest.mark.parametrize(
    ("bomb", "rejected", "why"),
    [
        ("gzip_csv", 1, "a line of"),
        ("gzip_jsonl", 1, "a line of"),
        ("gzip_protobuf", 1, "a record of 1099511627776 bytes"),
        ("parquet_dictionary", 400, "row group 0 cannot be read"),
    ],
)
def test_the_bomb_is_rejected_and_the_rows_beside_it_are_refs(bomb: str, rejected: int, why: str) -> None:
    facts = told(bomb)
    assert (facts["refs"], facts["rejected"]) == (10, rejected)
    assert why in facts["whys"][0]


def test_pages_that_inflate_are_read_a_part_at_a_time() -> None:
    facts = told("parquet_zstd")
    assert (facts["refs"], facts["rejected"]) == (300, 0)


BODY_GROWTH = 128 * 2**20
"""Bytes of memory: the cap of 32 MiB twice over, and what the libraries want."""
BODY_CPU_SECONDS = 10.0
"""Of processor time; the slowest takes a second."""


@pytest.mark.parametrize("bomb", ["gzip_thrice", "gzip_in_brotli", "zstd"])
def test_a_body_that_inflates_costs_no_more_than_the_cap(bomb: str) -> None:
    facts = told(f"body_{bomb}")
    assert facts["reason"] == "too_large"
    assert facts["grown"] < BODY_GROWTH
    assert facts["seconds"] < BODY_CPU_SECONDS


@pytest.mark.parametrize("bomb", ["gzip_members", "zstd_frames"])
def test_a_body_of_very_many_members_costs_what_it_weighs(bomb: str) -> None:
    facts = told(f"body_{bomb}")
    assert (facts["reason"], facts["made"]) == ("", 0)
    assert facts["grown"] < BODY_GROWTH
    assert facts["seconds"] < BODY_CPU_SECONDS


def test_a_bomb_beside_the_pixels_of_an_image_is_never_inflated() -> None:
    assert told("png_profile")["reason"] in ("", "decode")


def test_what_an_image_costs_follows_its_bytes_and_the_pixels_that_are_allowed() -> None:
    """Whatever it says of itself, and wherever it says it."""
    from tests.fuzz.bombs import IMAGES, PIXELS

    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.bombs", "images"], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert (done.returncode, done.stderr) == (0, "")
    facts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [fact["name"] for fact in facts] == list(IMAGES)
    for fact in facts:
        assert fact["grown"] < 8 * PIXELS + 20 * fact["size"], fact
        assert fact["seconds"] < 3 + 2e-6 * fact["size"], fact
        if any(word in fact["name"] for word in ("says", "frame", "30,000", "within")):
            assert fact["said"] in ("too_many_pixels", "decode", "not_image"), fact
