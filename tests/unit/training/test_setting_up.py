"""The order of draws: layer by layer, as Caffe sets a net up, whatever stands before a data layer."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

from pipeline.codec import caffe_pb2
from pipeline.errors import PipelineError
from pipeline.nets.graph.lowered import Slot
from pipeline.training.data.image_list import ImageList
from pipeline.training.draws.distributions import uniform
from pipeline.training.draws.draws import CaffesDraws, OurDraws
from pipeline.training.draws.shuffling import CaffesOrders
from pipeline.training.draws.words import Mersenne
from pipeline.training.setting_up import SetUp, set_up
from pipeline.training.solver import merged

SEED = 5
UNIFORM = 'weight_filler { type: "uniform" min: -1 max: 1 }'
FED = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }'
PRODUCT = (
    'layer { name: "%s" type: "InnerProduct" bottom: "%s" top: "%s" '
    f"inner_product_param {{ num_output: 2 {UNIFORM} }} }}"
)
LIST = (
    'layer { name: "%s" type: "ImageData" top: "%s" top: "%s-label" '
    'image_data_param { source: "list.txt" batch_size: 7 shuffle: true } transform_param { mirror: true } }'
)


def made(text: str, draws: CaffesDraws | OurDraws) -> SetUp:
    net = text_format.Parse(text, caffe_pb2.NetParameter())
    return set_up(merged(net, "the net", caffe_pb2.TRAIN, None), draws, lambda says: None)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(7):
        cv2.imwrite(f"{number}.png", np.full((4, 5, 3), number, np.uint8))
    Path("list.txt").write_text("".join(f"{number}.png {number}\n" for number in range(7)))


def shuffled(seed: int) -> list[str]:
    return [f"{at}.png" for at in CaffesOrders(seed, 7).order(0)]


def values(words: Mersenne, *shape: int) -> np.ndarray:
    return uniform(words, int(np.prod(shape)), -1, 1).reshape(shape)


def image_seeds(words: Mersenne) -> int:
    """The seed of the order, of what an ImageData layer takes as it is set up: its transformer begins, and takes a
    seed again for its thread, which has one of its own as well."""
    _, order, _, _ = words.take(4)
    return int(order)


def test_a_data_layer_after_layers_with_fillers_draws_after_them(images: None) -> None:
    found = made(FED + PRODUCT % ("a", "x", "a") + LIST % ("d", "d", "d") + PRODUCT % ("b", "d", "b"),
                 CaffesDraws(SEED))  # fmt: skip
    words = Mersenne(SEED)
    assert np.array_equal(found.values[Slot(1, 0)], values(words, 2, 3))
    assert found.sources[1].keys(0) == shuffled(image_seeds(words))
    assert np.array_equal(found.values[Slot(3, 0)], values(words, 2, 60))


def test_a_net_that_mixes_them_draws_in_the_order_of_its_layers(images: None) -> None:
    found = made(
        LIST % ("d", "d", "d") + PRODUCT % ("a", "d", "a") + LIST % ("e", "e", "e") + LIST % ("f", "f", "f")
        + PRODUCT % ("b", "e", "b"), CaffesDraws(SEED),
    )  # fmt: skip
    words = Mersenne(SEED)
    assert found.sources[0].keys(0) == shuffled(image_seeds(words))
    assert np.array_equal(found.values[Slot(1, 0)], values(words, 2, 60))
    assert found.sources[1].keys(0) == shuffled(image_seeds(words))
    assert found.sources[2].keys(0) == shuffled(image_seeds(words))
    assert np.array_equal(found.values[Slot(4, 0)], values(words, 2, 60))
    assert found.graph.inputs["f"] == (7, 3, 4, 5)


def test_our_own_numbers_do_not_depend_on_the_order(images: None) -> None:
    one = made(LIST % ("d", "d", "d") + PRODUCT % ("a", "d", "a"), OurDraws(SEED))
    other = made(FED + PRODUCT % ("b", "x", "b") + LIST % ("d", "d", "d") + PRODUCT % ("a", "d", "a"), OurDraws(SEED))
    assert one.sources[0].keys(0) == other.sources[1].keys(0)
    assert np.array_equal(one.values[Slot(1, 0)], other.values[Slot(3, 0)])


def test_a_net_that_cannot_be_set_up_says_which_layer_and_closes_its_files(
    images: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    monkeypatch.setattr(ImageList, "close", lambda self: closed.append(self.layer))
    with pytest.raises(PipelineError, match="layer 'a'"):
        made(LIST % ("d", "d", "d") + PRODUCT % ("a", "none", "a") + LIST % ("e", "e", "e"), CaffesDraws(SEED))
    assert closed == ["d"]


SEQUENCE = (
    'layer { name: "in" type: "Input" top: "x" top: "c" top: "s" input_param { '
    "shape { dim: 3 dim: 2 dim: 5 } shape { dim: 3 dim: 2 } shape { dim: 2 dim: 6 } } }"
)


def recurrent(kind: str, bottoms: str) -> str:
    body = f'recurrent_param {{ num_output: 4 {UNIFORM} bias_filler {{ type: "uniform" min: -1 max: 1 }} }}'
    return f'layer {{ name: "r" type: "{kind}" {bottoms} top: "y" {body} }}'


@pytest.mark.parametrize("static", [False, True])
def test_an_lstm_draws_its_recurrent_weights_at_each_time_step_and_keeps_the_first(static: bool) -> None:
    bottoms = 'bottom: "x" bottom: "c"' + (' bottom: "s"' if static else "")
    found = made(SEQUENCE + recurrent("LSTM", bottoms) + PRODUCT % ("b", "y", "b"), CaffesDraws(SEED))
    words = Mersenne(SEED)
    wanted = [values(words, 16, 5), values(words, 16)] + ([values(words, 16, 6)] if static else [])
    steps = [values(words, 16, 4) for _ in range(3)]
    ours = [found.values[Slot(1, blob)] for blob in range(len(wanted) + 1)]
    assert all(np.array_equal(one, other) for one, other in zip(ours, [*wanted, steps[0]], strict=True))
    assert np.array_equal(found.values[Slot(2, 0)], values(words, 2, 8))


def test_an_rnn_draws_both_of_its_products_at_each_time_step() -> None:
    found = made(SEQUENCE + recurrent("RNN", 'bottom: "x" bottom: "c"') + PRODUCT % ("b", "y", "b"), CaffesDraws(SEED))
    words = Mersenne(SEED)
    wanted = [values(words, 4, 5), values(words, 4)]
    steps = [[values(words, 4, 4), values(words, 4, 4), values(words, 4)] for _ in range(3)]
    ours = [found.values[Slot(1, blob)] for blob in range(5)]
    assert all(np.array_equal(one, other) for one, other in zip(ours, [*wanted, *steps[0]], strict=True))
    assert np.array_equal(found.values[Slot(2, 0)], values(words, 2, 8))


def test_a_data_layer_crops_by_chance_where_its_own_phase_is_train(images: None) -> None:
    text = LIST.replace("mirror: true", "crop_size: 2") % ("data", "data", "data")
    draws = [CaffesDraws(SEED) for _ in range(2)]
    for phase, one in zip((" phase: TRAIN }", " phase: TEST }"), draws, strict=True):
        made(text[:-2] + phase, one).close()
    taken = [Mersenne(SEED) for _ in range(2)]
    taken[0].take(4)  # order and thread; its transformer takes two where it trains
    taken[1].take(2)
    assert [one.word("next") for one in draws] == [int(one.take(1)[0]) for one in taken]


def test_a_transformation_outside_transform_param_is_refused_in_a_net_of_todays_form(images: None) -> None:
    """Caffe moves it in nets of the old form alone, and takes no notice of it here."""
    text = LIST.replace("batch_size: 7", "batch_size: 7 scale: 0.5") % ("d", "d", "d")
    with pytest.raises(PipelineError, match="scale stands outside transform_param"):
        made(text, CaffesDraws(SEED))


@pytest.mark.parametrize("kind", ["HDF5Output", "Python"])
def test_a_layer_that_no_training_has_is_refused_with_what_to_do_in_a_training(kind: str) -> None:
    with pytest.raises(PipelineError, match=f"layer 'o' \\({kind}\\)") as caught:
        made(FED + f'layer {{ name: "o" type: "{kind}" bottom: "x" }}', CaffesDraws(SEED))
    assert "include rule" in caught.value.hint
    assert "deploy" not in caught.value.hint
