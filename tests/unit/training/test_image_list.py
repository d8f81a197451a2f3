"""The ImageData layer: lists as Caffe reads them, its shuffles, sizes and colours; faults named by line or path."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.errors import FormatError, SolverError
from pipeline.training.data import pixels
from pipeline.training.data.checking import check
from pipeline.training.data.make import make
from pipeline.training.data.source import Labels, Source
from pipeline.training.draws.draws import CaffesDraws, Draws, OurDraws
from tests.unit.training.databases import encoded, images, layer
from tests.unit.training.test_draws import naive_shuffles, words_of

f32 = np.float32


def folder_of(tmp_path: Path, count: int = 10, shape: tuple[int, int, int] = (3, 12, 10)) -> np.ndarray:
    pictures = images(count, shape)
    (tmp_path / "pictures of mine").mkdir()
    for number, image in enumerate(pictures):
        (tmp_path / "pictures of mine" / f"{number}.png").write_bytes(encoded(image))
    lines = [f"pictures of mine/{number}.png {number % 4}\n" for number in range(count)]
    (tmp_path / "list.txt").write_text("".join(lines))
    return pictures


def source_of(
    tmp_path: Path, draws: Draws, transform: dict[str, Any] | None = None, train: bool = True, **given: Any
) -> Source:
    fields = {"source": "list.txt", "batch_size": 3, **given}
    return make(layer("ImageData", image_data_param=fields, transform_param=transform or {}), train, draws, tmp_path)


def test_images_follow_their_list_over_and_over(tmp_path: Path) -> None:
    pictures = folder_of(tmp_path)
    source = source_of(tmp_path, CaffesDraws(1))
    assert source.shapes == {"data": (3, 3, 12, 10), "label": (3,)}
    for number in (5, 0, 3, 4):
        expected = [at % 10 for at in range(number * 3, number * 3 + 3)]
        batch = source.batch(number)
        assert np.array_equal(batch["data"], pictures[expected].astype(f32))
        assert batch["label"].tolist() == [at % 4 for at in expected]
        assert source.keys(number) == [f"pictures of mine/{at}.png" for at in expected]


def test_a_shuffled_list_takes_caffes_words_in_caffes_order(tmp_path: Path) -> None:
    """One seed that is not used, the shuffle's, the skip, the crops', the thread's."""
    pictures = folder_of(tmp_path)
    draws = CaffesDraws(7)
    source = source_of(tmp_path, draws, {"mirror": True, "crop_size": 8}, shuffle=True, rand_skip=6)
    words = words_of(7, 6)
    assert draws.word("next") == words[5]
    orders, crops = naive_shuffles(words[1], 10, 9), iter(words_of(words[3], 400))
    skipped = words[2] % 6
    for number in range(25):
        batch = source.batch(number)
        for at in range(3):
            turn, place = divmod(skipped + number * 3 + at, 10)
            example = orders[turn][place]
            flipped, top, left = next(crops) % 2, next(crops) % 5, next(crops) % 3
            expected = pictures[example][:, top : top + 8, left : left + 8].astype(f32)
            assert np.array_equal(batch["data"][at], expected[:, :, ::-1] if flipped else expected)
            assert batch["label"][at] == example % 4


def test_our_own_shuffles_show_each_picture_once_in_a_turn(tmp_path: Path) -> None:
    folder_of(tmp_path)
    source = source_of(tmp_path, OurDraws(7), batch_size=5, shuffle=True)
    turns = [source.keys(number) + source.keys(number + 1) for number in (0, 2, 4)]
    assert all(len(set(turn)) == 10 for turn in turns)
    assert turns[0] != turns[1] != turns[2]
    again = source_of(tmp_path, OurDraws(7), batch_size=5, shuffle=True)
    assert again.keys(4) + again.keys(5) == turns[2]


@pytest.mark.parametrize("is_color", [True, False])
@pytest.mark.parametrize("size", [{}, {"new_height": 7, "new_width": 9}], ids=["as it is", "resized"])
def test_sizes_and_colours_are_opencvs(is_color: bool, size: dict[str, Any], tmp_path: Path) -> None:
    folder_of(tmp_path)
    source = source_of(tmp_path, CaffesDraws(1), is_color=is_color, root_folder=f"{tmp_path}/", **size)
    for made, path in zip(source.batch(0)["data"], source.keys(0), strict=True):
        image = cv2.imread(str(tmp_path / path), int(is_color))
        if size:
            image = cv2.resize(image, (9, 7))
        assert np.array_equal(made, image[None] if image.ndim == 2 else image.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("pictures of mine/1.png 1.5\n", r"1 line other.*line 1: 'pictures of mine/1.png 1.5'"),
        ("pictures of mine/1.png\n", "line 1"),
        ("pictures of mine/1.png 1\n\npictures of mine/2.png 1\n", "line 2: ''"),
        ("pictures of mine/1.png cat\n" * 9, r"9 lines .*line 5: .*and 4 more"),
        ("nowhere.png 1\n", "example 'nowhere.png' of list.txt cannot be used.*No such file"),
        ("list.txt 1\n", "OpenCV does not decode it"),
    ],
)
def test_a_list_that_cannot_be_is_named(text: str, says: str, tmp_path: Path) -> None:
    folder_of(tmp_path)
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises((SolverError, FormatError), match=says):
        source_of(tmp_path, CaffesDraws(1))


@pytest.mark.parametrize("ending", [".png", ".tiff", ".webp"])
@pytest.mark.parametrize("damage", ["torn", "bent"])
def test_a_damaged_image_is_told_by_its_example_and_nothing_else_stands_on_stderr(
    ending: str, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """OpenCV and libpng write there themselves, without a name."""
    content = bytes(cv2.imencode(ending, images(1, (3, 40, 40))[0].transpose(1, 2, 0))[1])
    half = len(content) // 2
    bent = content[:half] + bytes(255 - byte for byte in content[half : half + 40]) + content[half + 40 :]
    with pytest.raises(pixels.Undecodable) if ending == ".png" or damage == "torn" else contextlib.nullcontext():
        pixels.decode(content[:half] if damage == "torn" else bent, True)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"source": "none.txt"}, "image_data_param.source: .*none.txt cannot be read"),
        ({"new_height": 3}, "new_height and new_width"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"rand_skip": 4_000_000_000}, "rand_skip leaves out all examples"),
        ({"mirror": True}, "mirror stands outside transform_param"),
    ],
)
def test_fields_that_cannot_be_are_refused_by_name(given: dict[str, Any], says: str, tmp_path: Path) -> None:
    folder_of(tmp_path)
    with pytest.raises(SolverError, match=says):
        source_of(tmp_path, CaffesDraws(1), **given)


def test_missing_files_other_sizes_and_labels_are_found_before_the_first_iteration(tmp_path: Path) -> None:
    folder_of(tmp_path)
    (tmp_path / "pictures of mine" / "3.png").unlink()
    (tmp_path / "pictures of mine" / "5.png").write_bytes(encoded(images(1, (3, 12, 11))[0]))
    whole = (tmp_path / "pictures of mine" / "6.png").read_bytes()
    (tmp_path / "pictures of mine" / "6.png").write_bytes(whole[: len(whole) // 2])
    source = source_of(tmp_path, CaffesDraws(1))
    with pytest.raises(FormatError) as raised:
        check([source], {"label": Labels(3)})
    assert "4 of 10 examples" in raised.value.message
    for says in ("3.png: the file cannot be read: No such file", "5.png: it is 3 x 12 x 11", "6.png: ", "3.png"):
        assert says in raised.value.detail
    found = list(source.examine({"label": Labels(3)}, range(7, 8)))
    assert [one.says for one in found] == ["its label is 3; the net has 3 classes, 0 to 2"]
