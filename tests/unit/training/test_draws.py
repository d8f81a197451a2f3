"""Caffe's stream of random numbers to the bit; and ours, where a word belongs to seed, layer and example."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.codec import caffe_pb2
from pipeline.errors import NetError, SolverError
from pipeline.nets.caffe import prototxt
from pipeline.nets.graph.fillers import fill as used
from pipeline.training.draws.distributions import uniform
from pipeline.training.draws.draws import CaffesDraws, OurDraws, draws
from pipeline.training.draws.fillers import fill
from pipeline.training.draws.shuffling import CaffesOrders, CShuffler
from pipeline.training.draws.words import Mersenne, MersenneStream, PhiloxStream, Place
from pipeline.training.draws.ziggurat import normal
from pipeline.training.network import Mask

GOLDEN = Path(__file__).parents[2] / "golden" / "training"
f32 = np.float32


def filler(kind: str, **values: Any) -> caffe_pb2.FillerParameter:
    return caffe_pb2.FillerParameter(type=kind, **values)


def words_of(seed: int, count: int) -> list[int]:
    """mt19937's words by NumPy's oldest generator."""
    return [int(word) for word in np.random.RandomState(seed).randint(0, 2**32, count, np.uint32)]


@pytest.mark.parametrize("name", ["lenet_sgd_inv", "bn_nesterov_step"])
def test_first_weights_are_caffes_to_the_bit(name: str) -> None:
    net = caffe_pb2.NetParameter.FromString((GOLDEN / f"{name}.init.caffemodel").read_bytes())
    specs = {layer.name: layer for layer in prototxt.read(GOLDEN / f"{name}.train_val.prototxt").layer}
    stream = CaffesDraws(1701)
    compared = 0
    for layer in net.layer:
        if layer.type not in ("Convolution", "InnerProduct"):
            continue
        spec = specs[layer.name]
        given = spec.convolution_param if layer.type == "Convolution" else spec.inner_product_param
        for index, blob in enumerate(layer.blobs):
            how = given.bias_filler if index else given.weight_filler
            values = stream.filler(how, tuple(blob.shape.dim), layer.name, index)
            assert np.array_equal(values.ravel(), np.array(blob.data, f32)), (layer.name, index)
            compared += values.size
    assert compared > 2000


class Boost:
    """normal_distribution<float> as Boost's documentation describes it: one word after another."""

    def __init__(self, seed: int) -> None:
        self.words, self.used = words_of(seed, 400_000), 0
        self.x, self.y = self.table(128, 3.4426198558966519, lambda x: math.exp(-x * x / 2))
        self.ex, self.ey = self.table(256, 7.69711747013104972, lambda x: math.exp(-x))

    def table(self, layers: int, start: float, curve: Any) -> tuple[list[float], list[float]]:
        if layers == 128:
            area = start * curve(start) + math.sqrt(math.pi / 2) * math.erfc(start / math.sqrt(2))
            inverse = lambda y: math.sqrt(-2 * math.log(y))  # noqa: E731
        else:
            area, inverse = (start + 1) * curve(start), lambda y: -math.log(y)
        x = [area / curve(start), start]
        while len(x) < layers:
            x.append(inverse(area / x[-1] + curve(x[-1])))
        x.append(0.0)
        return x, [curve(one) for one in x]

    def word(self) -> int:
        self.used += 1
        return self.words[self.used - 1]

    def pair(self) -> tuple[np.float32, int]:
        word = self.word()
        return f32(word >> 8) * f32(2.0**-24), word & 255

    def unit(self) -> np.float32:
        while True:
            value = f32(self.word()) / f32(2.0**32)
            if value < 1:
                return value

    def exponential(self) -> np.float32:
        shift = f32(0)
        while True:
            r, i = self.pair()
            x = r * f32(self.ex[i])
            if x < f32(self.ex[i + 1]):
                return f32(shift + x)
            if i == 0:
                shift += f32(self.ex[1])
                continue
            u = self.unit()
            y = f32(self.ey[i]) + u * f32(self.ey[i + 1] - self.ey[i])
            upper = f32(self.ex[i] - self.ex[i + 1]) * u - (f32(self.ex[i]) - x)
            lower = y - (f32(self.ey[i + 1]) + (f32(self.ex[i + 1]) - x) * f32(self.ey[i + 1]))
            if upper < 0 and (lower < 0 or y < f32(math.exp(-float(x)))):
                return f32(shift + x)

    def normal(self) -> np.float32:
        while True:
            r, low = self.pair()
            sign, i = f32((low & 1) * 2 - 1), low >> 1
            x = r * f32(self.x[i])
            if float(x) < self.x[i + 1]:
                return f32(x * sign)
            if i == 0:
                while True:
                    a, b = self.exponential() / f32(self.x[1]), self.exponential()
                    if f32(2) * b > a * a:
                        return f32((a + f32(self.x[1])) * sign)
            u = self.unit()
            y = f32(self.y[i]) + u * f32(self.y[i + 1] - self.y[i])
            line = f32(self.x[i] - self.x[i + 1]) * u - (f32(self.x[i]) - x)
            tangent = y - (f32(self.y[i]) + (f32(self.x[i]) - x) * f32(self.y[i]) * f32(self.x[i]))
            upper, lower = (line, tangent) if self.x[i] >= 1 else (tangent, line)
            if upper < 0 and (lower < 0 or y < f32(math.exp(-float(x * x / f32(2))))):
                return f32(x * sign)


@pytest.mark.parametrize("seed", [0, 42, 1701, 4294967295])
def test_normal_numbers_are_boosts_one_by_one_and_take_as_many_words(seed: int) -> None:
    boost, words = Boost(seed), Mersenne(seed)
    for count in (1, 7, 5000, 3, 40_000):
        expected = np.array([boost.normal() for _ in range(count)], f32)
        assert np.array_equal(normal(words, count, 0, 1), expected)
    assert int(words.take(1)[0]) == boost.word(), "the next draw begins elsewhere"
    assert np.abs(expected).max() > 3.5, "no number of the tail was among them"


class Given:
    """Words that a test writes down."""

    def __init__(self, words: list[int]) -> None:
        self.words, self.at = words, 0

    def take(self, count: int) -> Any:
        self.at += count
        return np.array(self.words[self.at - count : self.at], np.uint32)

    def place(self) -> Place:
        return Place(b"", self.at)

    def return_to(self, place: Place) -> None:
        self.at = place.at


def test_a_uniform_number_that_rounds_up_to_the_end_is_drawn_again() -> None:
    words = Given([0, 2**32 - 1, 2**31, 2**32 - 1, 2**30, 7])
    end = np.nextafter(f32(1), f32(9))
    assert uniform(words, 3, 0, 1).tolist() == [0.0, float(f32(0.5) * end), float(f32(0.25) * end)]
    assert words.at == 5


def test_uniform_is_a_float32_at_each_step() -> None:
    low, high = f32(-0.1), np.nextafter(f32(0.3), f32(9))
    expected = [f32(word) / f32(2.0**32) * (high - low) + low for word in words_of(5, 1000)]
    assert np.array_equal(uniform(Mersenne(5), 1000, -0.1, 0.3), np.array(expected, f32))


def test_a_sparse_gaussian_draws_its_mask_after_its_values() -> None:
    shape = (20, 50)
    plain = Mersenne(3)
    values = normal(plain, 1000, 0.5, 2)
    mask = [f32(word) <= f32(4) / f32(20) * f32(2.0**32) for word in plain.take(1000)]
    words = Mersenne(3)
    made = fill(words, filler("gaussian", mean=0.5, std=2, sparse=4), shape, "ip/0")
    assert np.array_equal(made.ravel(), values * np.array(mask, f32))
    assert words.take(1) == plain.take(1)
    assert 100 < np.count_nonzero(made) < 320
    none = Mersenne(3)
    assert not fill(none, filler("gaussian", sparse=0), shape, "ip/0").any()
    normal(again := Mersenne(3), 1000, 0, 1)
    assert none.take(1) == again.take(1), "a chance of 0 takes no words"


def test_positive_unitball_divides_by_sums_in_caffes_order() -> None:
    shape = (3, 4, 5)
    values = uniform(Mersenne(9), 60, 0, 1)
    for row in values.reshape(3, 20):
        total = f32(0)
        for value in row:
            total = f32(total + value)
        row /= total
    assert np.array_equal(fill(Mersenne(9), filler("positive_unitball"), shape, "x/0").ravel(), values)


@pytest.mark.parametrize("kind", ["xavier", "msra"])
@pytest.mark.parametrize(("norm", "fan"), [("FAN_IN", 36.0), ("FAN_OUT", 72.0), ("AVERAGE", 54.0)])
def test_the_variance_norms(kind: str, norm: str, fan: float) -> None:
    how = filler(kind, variance_norm=caffe_pb2.FillerParameter.VarianceNorm.Value(norm))
    made = fill(Mersenne(1), how, (8, 4, 3, 3), "c/0").ravel()
    bound = np.sqrt(f32(3) / f32(fan))
    expected = uniform(Mersenne(1), 288, -bound, bound)
    if kind == "msra":
        expected = normal(Mersenne(1), 288, 0, np.sqrt(f32(2) / f32(fan)))
    assert np.array_equal(made, expected)


@pytest.mark.parametrize("kind", ["constant", "uniform", "gaussian", "positive_unitball", "xavier", "msra"])
def test_a_blob_without_axes_has_one_value(kind: str) -> None:
    """PReLU with channel_shared, Scale and Bias with num_axes 0."""
    how = filler(kind, value=0.25, std=2)
    (expected,) = fill(Mersenne(4), how, (1,), "prelu/0")
    made = fill(Mersenne(4), how, (), "prelu/0")
    assert (made.shape, made[()]) == ((), expected)
    assert used(how, (), "prelu/0").shape == ()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 16])
def test_bilinear_is_caffes_for_every_size(size: int) -> None:
    made = fill(Mersenne(1), filler("bilinear"), (2, 1, size, size), "up/0")
    factor = math.ceil(size / 2)
    centre = f32((size - 1) / (2.0 * factor))
    for y in range(size):
        for x in range(size):
            a, b = (f32(1) - abs(f32(at) / f32(factor) - centre) for at in (x, y))
            assert made[0, 0, y, x] == made[1, 0, y, x] == f32(a * b)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (filler("gauss"), "unknown filler type 'gauss'"),
        (filler("uniform", min=2, max=1), "min 2 above max 1"),
        (filler("gaussian", std=0), "std 0"),
        (filler("gaussian", sparse=9), "sparse 9"),
        (filler("gaussian", sparse=-2), "sparse -2"),
        (filler("constant", sparse=1), "only gaussian"),
        (filler("xavier", sparse=1), "only gaussian"),
    ],
    ids=lambda value: value.type if isinstance(value, caffe_pb2.FillerParameter) else "",
)
def test_fillers_that_caffe_refuses_are_refused(how: caffe_pb2.FillerParameter, says: str) -> None:
    with pytest.raises(NetError, match=says):
        CaffesDraws(1).filler(how, (8, 2), "ip")


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.9])
def test_a_mask_keeps_what_caffes_does(ratio: float) -> None:
    mask = Mask("drop:mask", "drop", (3, 5, 7), ratio)
    wide = float(f32(ratio))
    expected = [float(word <= (1.0 - wide) * 4294967295.0) * f32(1 / (1.0 - wide)) for word in words_of(7, 105)]
    assert np.array_equal(CaffesDraws(7).mask(mask, 0).ravel(), np.array(expected, f32))


def test_a_ratio_of_1_is_refused() -> None:
    with pytest.raises(NetError, match="dropout_ratio is 1"):
        CaffesDraws(7).mask(Mask("m", "drop", (2,), 1.0), 0)


def test_a_negative_seed_means_our_own_stream() -> None:
    assert isinstance(draws(0, 5), CaffesDraws)
    assert isinstance(draws(-1, 5), OurDraws)


@pytest.mark.parametrize("make", [lambda: CaffesDraws(11), lambda: OurDraws(11)], ids=["Caffe's", "ours"])
def test_a_state_goes_on_at_the_next_word(make: Any) -> None:
    mask = Mask("m", "drop", (64, 33), 0.4)
    first = make()
    first.filler(filler("gaussian"), (30, 7), "ip")
    first.mask(mask, 0)
    state = first.state()
    assert len(state) < 2600
    expected = [first.mask(mask, number) for number in (1, 2)]
    second = make()
    second.restore(state)
    assert all(np.array_equal(second.mask(mask, number), expected[number - 1]) for number in (1, 2))


@pytest.mark.parametrize("other", [CaffesDraws(12), OurDraws(11), OurDraws(12)], ids=["seed", "stream", "both"])
def test_a_state_of_another_training_is_refused(other: CaffesDraws | OurDraws) -> None:
    with pytest.raises(SolverError, match="another training"):
        CaffesDraws(11).restore(other.state())
    with pytest.raises(SolverError, match="another training"):
        OurDraws(13).restore(other.state())
    with pytest.raises(SolverError, match="another training"):
        CaffesDraws(11).restore(b"")


@pytest.mark.parametrize("make", [lambda: MersenneStream(5), lambda: PhiloxStream(5)], ids=["Caffe's", "ours"])
def test_words_by_number_are_the_same_in_any_order_and_from_any_thread(make: Any) -> None:
    whole = make().words(0, 3_000_000)
    stream = make()
    starts = [*np.random.default_rng(1).integers(0, 2999000, 200).tolist(), 0, 16383, 16384, 1048576, 2999000]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda start: stream.words(start, 777), starts))
    assert all(np.array_equal(one, whole[start : start + 777]) for one, start in zip(found, starts, strict=True))
    assert stream.words(9, 0).size == 0


def test_caffes_words_by_number_are_those_one_after_another() -> None:
    assert MersenneStream(5).words(0, 40_000).tolist() == words_of(5, 40_000)


def naive_shuffles(seed: int, count: int, turns: int) -> list[list[int]]:
    """caffe::shuffle over boost::uniform_int, as they are documented: bucket by bucket, redrawn beyond the last."""
    words = iter(words_of(seed, 3 * count * turns))
    order, found = list(range(count)), []
    for _ in range(turns):
        for top in range(count - 1, 0, -1):
            bucket = 2**32 // (top + 1)
            while (other := next(words) // bucket) > top:
                pass
            order[top], order[other] = order[other], order[top]
        found.append(list(order))
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 1000])
def test_an_image_list_is_shuffled_as_caffe_does_in_each_turn(count: int) -> None:
    expected = naive_shuffles(21, count, 12)
    orders = CaffesOrders(21, count)
    for turn in (0, 1, 2, 7, 3, 11, 0, 11, 10):
        assert orders.order(turn).tolist() == expected[turn]


def test_a_word_beyond_the_last_bucket_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [2**32 - 1, 5, 2**32 - 1, 2**31]  # 3 buckets leave the last word over; 2 leave none
    monkeypatch.setattr("pipeline.training.draws.shuffling.Mersenne", lambda seed: Given(given))
    # top 2: the first word is over, 5 -> 0: swap 2 and 0.  top 1: 2^32 - 1 -> 1: itself.
    assert CaffesOrders(0, 3).order(0).tolist() == [2, 1, 0]


def test_rows_are_shuffled_by_the_c_librarys_numbers() -> None:
    shuffler = CShuffler()
    assert [shuffler._next() for _ in range(5)] == [1804289383, 846930886, 1681692777, 1714636915, 1957747793]
    values = list(range(10))
    CShuffler().shuffle(values)
    expected, rand = list(range(10)), CShuffler()
    for at in range(1, 10):
        other = rand._next() % (at + 1)
        expected[at], expected[other] = expected[other], expected[at]
    assert values == expected
    for _ in range(5000):  # its memory stays small, and its numbers right
        shuffler._next()
    twin = shuffler.copy()
    assert [twin._next() for _ in range(9)] == [shuffler._next() for _ in range(9)]


def test_our_masks_belong_to_examples_and_not_to_batches() -> None:
    whole = OurDraws(3).mask(Mask("m", "drop", (8, 6), 0.5), 0)
    parts = [OurDraws(3).mask(Mask("m", "drop", (2, 6), 0.5), number) for number in (3, 0, 2, 1)]
    assert np.array_equal(whole, np.concatenate([parts[1], parts[3], parts[2], parts[0]]))


def test_our_draws_differ_by_seed_layer_blob_and_pass() -> None:
    ours = OurDraws(3)
    made = [
        ours.filler(filler("xavier"), (4, 4), "a").tobytes(),
        ours.filler(filler("xavier"), (4, 4), "b").tobytes(),
        ours.filler(filler("xavier"), (4, 4), "a", 1).tobytes(),
        ours.filler(filler("xavier"), (4, 4), "a", 0, 1).tobytes(),
        OurDraws(4).filler(filler("xavier"), (4, 4), "a").tobytes(),
    ]
    assert len(set(made)) == 5
    assert ours.filler(filler("xavier"), (4, 4), "a").tobytes() == made[0], "an earlier draw moved it"
    orders = [ours.orders(1, 50).order(turn).tolist() for turn in (0, 1)] + [ours.orders(2, 50).order(0).tolist()]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_our_numbers_are_those_of_today() -> None:
    """A resumed training goes on with them, so they stay."""
    assert OurDraws(1).mask(Mask("m", "drop", (12,), 0.5), 0).tolist() == OUR_MASK
    assert PhiloxStream(1).words(3, 2).tolist() == OUR_WORDS


OUR_MASK = [0.0, 2.0, 2.0, 2.0, 2.0, 2.0, 0.0, 2.0, 2.0, 0.0, 0.0, 2.0]
OUR_WORDS = [3645176323, 1996885298]
