"""A set of net = "image": what is kept of an image, how it travels, and what cannot be done with it."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet as pq

from pipeline.codec.delivered.blocks import blocks
from pipeline.codec.delivered.merge import MergeInput, Output, merge
from pipeline.codec.shards import Shard, write_features
from pipeline.errors import ConfigError, FormatError, NetError
from pipeline.extraction.kept_images import KeptImages
from pipeline.extraction.spill import Features, Origin
from pipeline.images import decode
from pipeline.images.keeping import Keeping
from pipeline.nets.expected import expected
from pipeline.nets.loading import load as load_net
from pipeline.records import Failure, ImageRef
from pipeline.settings import FeatureSet, Settings, load
from tests.unit.codec.rows import NOON, feature

NONE = np.empty((0, 0), np.float32)


def chosen(**more: object) -> FeatureSet:
    return FeatureSet.model_validate({"net": "image", "root": "pictures", **more})


def photo(high: int = 300, wide: int = 500, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (high // 20 + 1, wide // 20 + 1, 3), np.uint8)
    return cv2.resize(noise, (wide, high), interpolation=cv2.INTER_CUBIC)


def saved(form: str, mode: str = "RGB", **how: object) -> bytes:
    out = io.BytesIO()
    picture = Image.fromarray(photo()[:, :, ::-1].copy())
    if mode == "I;16":
        done, content = cv2.imencode(".png", photo().astype(np.uint16) * 257)
        assert done
        return bytes(content)
    picture = picture.convert(mode)
    if mode in ("RGBA", "LA"):
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture.save(out, form, **how)
    return out.getvalue()


def kept(content: bytes, **more: object) -> bytes:
    found = Keeping(chosen(**more)).noted(content)
    assert not isinstance(found, Failure), found
    return found[0]


@pytest.mark.parametrize(
    "content",
    [saved("JPEG", quality=95), saved("JPEG", "CMYK"), saved("JPEG", "L"), saved("PNG", "P"), saved("PNG", "RGBA"),
     saved("PNG", "LA"), saved("PNG", "I;16"), saved("WEBP"), saved("GIF", "P"), saved("TIFF"), saved("BMP")],
    ids=["jpeg", "cmyk", "grey", "palette", "alpha", "grey alpha", "16 bits", "webp", "gif", "tiff", "bmp"],
)  # fmt: skip
def test_what_is_kept_is_the_picture_that_a_net_would_see(content: bytes) -> None:
    found = kept(content, short_side=120)
    assert kept(content, short_side=120) == found, "the same bytes did not give the same bytes"
    assert Image.open(io.BytesIO(found)).format == "JPEG"
    image, whole = decode(found), decode(content)
    assert not isinstance(image, Failure)
    assert not isinstance(whole, Failure)
    assert image.shape == (120, 200, 3)
    want = cv2.resize(whole, (200, 120), interpolation=cv2.INTER_AREA)
    assert cv2.PSNR(image, want) > 30


def test_a_turned_photo_is_kept_upright_and_says_so_no_more() -> None:
    picture = Image.fromarray(photo()[:, :, ::-1].copy())
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=95, exif=exif)
    found = kept(out.getvalue(), short_side=150)
    image = decode(found)
    assert not isinstance(image, Failure)
    assert image.shape == (250, 150, 3)
    assert dict(Image.open(io.BytesIO(found)).getexif()) == {}
    upright = cv2.resize(cv2.rotate(photo(), cv2.ROTATE_90_CLOCKWISE), (150, 250), interpolation=cv2.INTER_AREA)
    assert cv2.PSNR(image, upright) > 28


def test_a_small_image_is_not_enlarged_and_a_very_long_one_fits_into_a_jpeg() -> None:
    small = decode(kept(saved("PNG"), short_side=1000))
    assert not isinstance(small, Failure)
    assert small.shape == (300, 500, 3)
    done, line = cv2.imencode(".png", np.zeros((2, 70_000, 3), np.uint8))
    assert done
    assert Image.open(io.BytesIO(kept(bytes(line)))).size == (65_500, 2)


def test_as_fetched_every_byte_stays_and_damage_is_still_seen() -> None:
    content = saved("WEBP")
    assert kept(content, short_side=0) == content
    for short in (0, 100):
        for bad, reason in ((content[:200], "truncated"), (b"<html>", "not_image"), (b"", "empty")):
            found = Keeping(chosen(short_side=short)).noted(bad)
            assert isinstance(found, Failure)
            assert found.reason == reason
    huge = Keeping(chosen(preprocess={"max_pixels": 1000})).noted(content)
    assert isinstance(huge, Failure)
    assert huge.reason == "too_many_pixels"


def test_the_fingerprint_follows_from_what_decides_the_bytes() -> None:
    base = KeptImages(chosen()).fingerprint
    assert base == expected(chosen(batch_size=1, root="elsewhere"))
    others = [
        chosen(short_side=100),
        chosen(quality=80),
        chosen(short_side=0),
        chosen(preprocess={"reduced_decode": False}),
    ]
    assert len({base, *(expected(one) for one in others)}) == 5
    assert expected(chosen(short_side=0, quality=50)) == expected(chosen(short_side=0))
    assert base == "b37adcb95601361180967fe926150d469836b92fd7cd34934a33198222979fd7"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('net = "image"\nnormalise = "none"', "sets.a.normalise"),
        ('net = "image"\nformats = ["text"]', "sets.a.formats"),
        ('net = "image"\nblob = "fc7"', "sets.a.blob"),
        ('net = "image"\npreprocess.mean = [1.0]', "sets.a.preprocess.mean"),
        ('net = "hog"\nblob = "hog"\nshort_side = 100', "sets.a.short_side"),
        ('net = "hog"\nblob = "hog"\nquality = 70', "sets.a.quality"),
    ],
)
def test_a_setting_that_would_change_nothing_is_refused_by_name(lines: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "hathi.toml"
    path.write_text(f'[bucket]\nurl = "b"\n[sets.a]\nroot = "r"\n{lines}\n')
    with pytest.raises(ConfigError, match=says):
        load(path, {})


def test_a_set_of_images_needs_no_blob_and_is_delivered_as_parquet(tmp_path: Path) -> None:
    path = tmp_path / "hathi.toml"
    path.write_text('[bucket]\nurl = "b"\n[sets.a]\nroot = "r"\nnet = "image"\npreprocess.max_pixels = 9\n')
    one = load(path, {}).sets["a"]
    assert (one.blob, one.formats, one.short_side, one.quality) == ("image", ["parquet"], 256, 90)


def test_image_is_no_net_that_runs() -> None:
    with pytest.raises(NetError, match="keeps the images themselves"):
        load_net("image")


def pictures(count: int, size: int = 2000) -> list[bytes]:
    return [np.random.default_rng(at).bytes(size + at) for at in range(count)]


def test_images_travel_through_shards_and_a_merge_as_they_are(tmp_path: Path) -> None:
    images = pictures(300, 20_000)
    rows = [dataclasses.replace(feature(1 + at % 2, 1000 - at, at), image=one) for at, one in enumerate(images)]
    damaged = dataclasses.replace(rows[0], damage="a scan ends early")
    written = write_features(tmp_path / "one", [damaged, *rows[1:]], np.empty((300, 0), np.float32))
    again = write_features(tmp_path / "two", [damaged, *rows[1:]][::-1], np.empty((300, 0), np.float32))
    assert (written.rows, written.sha256) == (300, again.sha256)
    shard = Shard(tmp_path / "one")
    assert max(np.diff(shard.starts)) * 20_000 <= 2**20, "a row group is larger than it may be"
    found = [row for group in range(len(shard.starts) - 1) for row in shard.features(group, 0)[0]]
    assert {row.ordinal: row.image for row in found} == dict(enumerate(images))
    with pytest.raises(FormatError, match="another width"):
        shard.features(0, 8)
    inputs = [MergeInput(0, tmp_path / "one", None)]
    output = Output(tmp_path / "out", 0, "20240101T000000Z", "f" * 64, ["parquet"], True, True)
    merged = merge(inputs, output, threads=2)
    assert (merged.features, merged.damaged) == (300, 1)
    for partner in merged.partners:
        (file,) = partner.files
        table = pq.read_table(file.path)
        assert "features" not in table.column_names
        wanted = {row.item_id: row.image for row in rows if row.partner_id == partner.partner_id}
        items = table["item_id"].to_pylist()
        assert items == sorted(wanted)
        assert dict(zip(items, table["image"].to_pylist(), strict=True)) == wanted
        assert pq.read_metadata(file.path).row_group(0).num_rows <= 64
        with file.path.open("rb") as stream, pytest.raises(FormatError, match="holds images and no features"):
            list(blocks("part-00000.parquet", stream))


@pytest.mark.parametrize("spilled", [0, 3, 7])
def test_images_that_were_spilled_are_those_that_came(spilled: int, tmp_path: Path) -> None:
    made, images = Features(0, tmp_path / "spill"), pictures(7)
    for at, one in enumerate(images):
        made.name(at, made.add(one), Origin(bytes(32), NOON, None, None))
        if at + 1 in (2, spilled):
            before = made.held
            made.spill()
            assert made.held == 0 < before
    made.name(7, 0, Origin(bytes(32), NOON, None, None))  # equal bytes share a slot
    refs = [ImageRef(1, at, "", "", b"", at) for at in range(8)]
    rows, matrix = made.take(refs)
    assert matrix.shape == (8, 0)
    assert not (tmp_path / "spill").exists()
    assert {row.item_id: bytes(row.image or b"") for row in rows} == dict(enumerate([*images, images[0]]))
    write_features(tmp_path / "shard", rows, matrix)
    found = Shard(tmp_path / "shard").features(0, 0)[0]
    assert [row.image for row in found] == [*images, images[0]]


@pytest.mark.parametrize("more", [{}, {"short_side": 0}, {"preprocess": {"damaged": "fail", "max_pixels": 1000}}])
def test_a_set_of_images_is_the_same_in_another_process(more: dict[str, Any]) -> None:
    """Workers, children and Spark's tasks get the settings as JSON, in which every field stands."""
    tree = {
        "bucket": {"url": "bucket"},
        "lakes": {"main": {"url": "lake", "sources": [{"path": "refs"}]}},
        "sets": {"kept": {"net": "image", "root": "pictures", **more}},
    }
    settings = Settings.model_validate(tree)
    assert settings.sets["kept"].mute() is None
    again = Settings.model_validate_json(settings.model_dump_json())
    assert again.sets["kept"].model_dump() == settings.sets["kept"].model_dump()
    assert again.sets["kept"].keeps_images
