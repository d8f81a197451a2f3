"""An image whose decoder crashes, swells or never ends, in real child processes: it alone is lost."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from pipeline.clock import Clock
from pipeline.extraction import isolation
from pipeline.extraction.feature_maker import FeatureMaker
from pipeline.ledger.state import Counted
from pipeline.records import ImageRef
from pipeline.settings import Settings
from sample import random_features
from tests.integration.conftest import ROOT, picture

DECODER = """
import simplejpeg

real = simplejpeg.decode_jpeg


def decode_jpeg(content, *how, **more):
    if content.endswith(b"segmentation fault"):
        import ctypes

        ctypes.string_at(0)
    held = []
    while content.endswith(b"all the memory"):
        held.append(bytearray(2**28))
    while content.endswith(b"no end"):
        import time

        time.sleep(1)
    return real(content, *how, **more)


simplejpeg.decode_jpeg = decode_jpeg
"""
"""Stands in for a decoder with a bug, where Python looks when a child starts."""


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureMaker:
    random_features.write(tmp_path / "random.caffemodel")
    (tmp_path / "bugs").mkdir()
    (tmp_path / "bugs" / "sitecustomize.py").write_text(DECODER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "bugs"))
    settings = Settings.model_validate(
        {
            "state": str(tmp_path / "state"),
            "bucket": {"url": str(tmp_path / "bucket")},
            "sets": {
                "demo": {
                    "net": str(ROOT / "sample" / "random_features.prototxt"),
                    "weights": str(tmp_path / "random.caffemodel"),
                    "blob": "features",
                    "root": "features",
                }
            },
            "fetch": {"batch_seconds": 5.0},
            "compute": {"threads": 1, "alone_bytes": 2**31},
        }
    )
    return FeatureMaker(settings, "demo", Clock())


def ref(place: int, bug: bytes = b"") -> ImageRef:
    jpeg = io.BytesIO()
    Image.open(io.BytesIO(picture(place))).convert("RGB").save(jpeg, "JPEG")
    return ImageRef(7, place, f"sku-{place}", "", jpeg.getvalue() + bug, place << 20)


def test_an_image_whose_decoder_crashes_is_poison_and_the_others_have_features(maker: FeatureMaker) -> None:
    done = maker.alone("b", [ref(0), ref(1), ref(2, b"segmentation fault"), ref(3)])
    assert [row.external_id for row in done.rows] == ["sku-0", "sku-1", "sku-3"]
    assert [(row.external_id, row.reason, row.retriable) for row in done.failures] == [("sku-2", "poison", False)]


def test_an_image_that_wants_all_the_memory_fails_alone(maker: FeatureMaker) -> None:
    done = maker.alone("b", [ref(0), ref(1, b"all the memory"), ref(2)])
    assert [row.external_id for row in done.rows] == ["sku-0", "sku-2"]
    (row,) = done.failures
    assert row.external_id == "sku-1"
    assert row.reason in ("too_many_pixels", "poison")


def test_an_image_whose_decoder_never_ends_is_poison(maker: FeatureMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "START_SECONDS", 40.0)
    done = maker.alone("b", [ref(0, b"no end")])
    assert done.trouble == ""
    assert [(row.external_id, row.reason) for row in done.failures] == [("sku-0", "poison")]


def test_a_batch_is_held_by_no_less_than_twenty_losses_while_it_runs_alone() -> None:
    limits = Settings.model_validate({"bucket": {"url": "/nowhere"}}).compute
    assert not Counted(1, False, lost=1000, lost_alone=19).held(limits.strikes_alone, limits.lost_alone)
    assert Counted(1, False, lost_alone=20).held(limits.strikes_alone, limits.lost_alone)
    assert not Counted(1, False, strikes=1000, strikes_alone=2).held(limits.strikes_alone, limits.lost_alone)
