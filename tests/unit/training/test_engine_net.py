"""What a live net is to a solver: what learns and how fast, what is fed and drawn, where gradients go, what is seen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from pipeline.errors import NetError, SolverError
from pipeline.nets.graph.lowered import Slot
from pipeline.training.engine.building import CPU, Wanted, build, build_test
from pipeline.training.engine.net import TorchNetwork
from pipeline.training.engine.program import Arithmetic
from pipeline.training.network import Feeds, Filling, Mask, NotFinite
from tests.unit.training.trained import graph_of, inputs, layer

RNG = np.random.default_rng(8)
FILLED = "weight_filler { type: 'xavier' }"


def product(below: str, top: str, more: str = "", width: int = 3) -> str:
    return layer("InnerProduct", below, top, f"{more} inner_product_param {{ num_output: {width} {FILLED} }}")


def mults(net: TorchNetwork) -> list[tuple[str, int, float, float]]:
    return [(one.layer, one.slot.blob, one.lr_mult, one.decay_mult) for one in net.learned]


def zero(net: TorchNetwork, name: str, blob: int = 0) -> bool:
    (one,) = [one for one in net.learned if one.layer == name and one.slot.blob == blob]
    return not net.gradient(one.slot).any()


X = RNG.normal(size=(4, 3)).astype(np.float32)
LABELS = np.array([0, 1, 2, 1], np.float32)
FEEDS: Feeds = {"x": X, "label": LABELS}
DATA = inputs(x=(4, 3), label=(4,))
LOSS = layer("SoftmaxWithLoss", "b label", "loss")


def test_learned_blobs_stand_in_the_order_of_layers_with_their_rates() -> None:
    rates = "param { lr_mult: 2 } param { lr_mult: 0 decay_mult: 0.5 }"
    text = inputs(x=(4, 3, 2, 2)) + layer("BatchNorm", "x", "n") + product("n", "a", rates) + product("a", "b")
    net = build(graph_of(text))
    assert mults(net) == [
        ("n", 0, 0, 1), ("n", 1, 0, 1), ("n", 2, 0, 1), ("a", 0, 2, 1), ("a", 1, 0, 0.5), ("b", 0, 1, 1), ("b", 1, 1, 1)
    ]  # fmt: skip


def test_batch_norms_of_the_old_form_learn_nothing_whatever_rates_they_name() -> None:
    text = inputs(x=(4, 3)) + layer("BatchNorm", "x", "n", "param { lr_mult: 1 } param { decay_mult: 2 } param { }")
    assert [one[2:] for one in mults(build(graph_of(text)))] == [(0, 0)] * 3


def test_a_shared_blob_is_listed_once_with_the_rate_of_the_first_that_names_one() -> None:
    own, other = "param { name: 'w' }", "param { name: 'w' lr_mult: 3 decay_mult: 0 }"
    text = DATA + product("x", "a", own) + product("a", "b", other) + LOSS
    net = build(graph_of(text))
    assert mults(net) == [("a", 0, 3, 0), ("a", 1, 1, 1), ("b", 1, 1, 1)]
    net.backward(FEEDS)
    shared = net.gradient(net.learned[0].slot)
    apart = build(graph_of(text.replace("name: 'w'", "")))
    apart.load(Slot(2, 0), net.weights(Slot(2, 0)))
    apart.load(Slot(3, 0), net.weights(Slot(2, 0)))
    apart.backward(FEEDS)
    np.testing.assert_allclose(shared, apart.gradient(Slot(2, 0)) + apart.gradient(Slot(3, 0)), rtol=1e-5)


def test_three_that_share_a_blob_agree_on_its_rate() -> None:
    second, third = "param { name: 'w' lr_mult: 2 }", "param { name: 'w' lr_mult: 3 }"
    text = DATA + product("x", "a", "param { name: 'w' }") + product("a", "c", second) + product("c", "b", third) + LOSS
    with pytest.raises(SolverError, match="another lr_mult") as refused:
        build(graph_of(text))
    assert "3 here, 2" in str(refused.value.detail)


def test_a_layer_whose_own_rate_is_zero_adds_nothing_to_a_shared_blobs_gradient() -> None:
    frozen = "param { name: 'w' lr_mult: 0 }"
    text = DATA + product("x", "a", "param { name: 'w' }") + product("a", "b", frozen) + LOSS
    net = build(graph_of(text))
    assert net.learned[0].lr_mult == 0


def test_gradients_stop_below_the_last_layer_that_learns() -> None:
    frozen = "param { lr_mult: 0 } param { lr_mult: 0 }"
    net = build(graph_of(DATA + product("x", "a", frozen) + layer("ReLU", "a", "a") + product("a", "b") + LOSS))
    seen = net.watched(FEEDS, True)
    assert [(one.layer, one.what) for one in seen.backward] == [("loss", "bottom"), ("b", "param"), ("b", "param")]
    assert not any(net.tensor(Slot(2, blob)).requires_grad for blob in (0, 1))
    assert zero(net, "a")
    assert not zero(net, "b")


def test_force_backward_computes_every_gradient() -> None:
    frozen = "param { lr_mult: 0 } param { lr_mult: 0 }"
    text = DATA + product("x", "a", frozen) + product("a", "b") + LOSS
    net = build(graph_of(text), wanted=Wanted(force_backward=True))
    seen = net.watched(FEEDS, True)
    assert [(one.layer, one.what, one.blob) for one in seen.backward] == [
        ("loss", "bottom", "b"), ("b", "bottom", "a"), ("b", "param", "0"), ("b", "param", "1"), ("a", "bottom", "x"),
        ("a", "param", "0"), ("a", "param", "1"),
    ]  # fmt: skip
    assert all(one.mean > 0 for one in seen.backward)
    assert not zero(net, "a")


@pytest.mark.parametrize("through", ["", layer("Flatten", "a", "f", "propagate_down: false")])
def test_propagate_down_false_stops_a_gradient(through: str) -> None:
    more = "" if through else "propagate_down: false"
    net = build(graph_of(DATA + product("x", "a") + through + product("f" if through else "a", "b", more) + LOSS))
    net.backward(FEEDS)
    assert zero(net, "a")
    assert not zero(net, "b")


def test_what_is_no_part_of_the_loss_gets_no_gradient() -> None:
    text = DATA + product("x", "a") + product("a", "b") + LOSS + product("a", "c") + layer("Silence", "c", "")
    net = build(graph_of(text))
    net.backward(FEEDS)
    assert zero(net, "c")
    assert not zero(net, "a")


def test_a_gradient_into_labels_is_refused_by_name() -> None:
    text = inputs(x=(4, 3)) + product("x", "b") + product("x", "label", width=1)
    with pytest.raises(SolverError, match=r"layer 'loss' \(SoftmaxWithLoss\).*'label'"):
        build(graph_of(text + LOSS))
    stopped = layer("SoftmaxWithLoss", "b label", "loss", "propagate_down: true propagate_down: false")
    build(graph_of(text + stopped))
    with pytest.raises(SolverError, match="'label'"):
        build(graph_of(DATA + product("x", "b") + stopped.replace("false", "true")))
    with pytest.raises(SolverError, match=r"propagate_down is given 1 times"):
        build(graph_of(DATA + product("x", "b") + layer("SoftmaxWithLoss", "b label", "l", "propagate_down: true")))


def test_losses_add_up_with_their_weights_and_one_without_a_name_counts() -> None:
    text = DATA + product("x", "b")
    losses = {
        "one": layer("SoftmaxWithLoss", "b label", "l", "loss_weight: 0.5"),
        "two": layer("HingeLoss", "b label", "h", "loss_weight: 2"),
        "three": layer("SoftmaxWithLoss", "b label", "", name="without"),
    }
    alone = {name: build(graph_of(text + one)).backward(FEEDS).loss for name, one in losses.items()}
    net = build(graph_of(text + "".join(losses.values())))
    found = net.backward(FEEDS)
    assert found.loss == pytest.approx(sum(alone.values()), rel=1e-6)
    assert [(one.blob, one.loss_weight) for one in net.outputs] == [("h", 2), ("l", 0.5)]
    assert float(found.outputs["h"]) * 2 == pytest.approx(alone["two"], rel=1e-6)
    again = layer("MultinomialLogisticLoss", "b label", "", name="w2") + losses["three"]
    build(graph_of(text + again))  # two without names


def test_loss_weight_is_given_once_a_top() -> None:
    with pytest.raises(SolverError, match="1 loss_weight for 2 tops"):
        build(graph_of(DATA + product("x", "b") + layer("SoftmaxWithLoss", "b label", "l prob")))


def test_a_layer_that_is_no_loss_may_have_a_loss_weight_and_a_reader() -> None:
    body = "loss_weight: 3"
    text = inputs(x=(4, 3)) + product("x", "b") + layer("Reduction", "b", "r", body) + layer("Power", "r", "p")
    net = build(graph_of(text))
    found = net.backward({"x": X})
    assert [(one.blob, one.loss_weight) for one in net.outputs] == [("p", 0), ("r_r_0_split_0", 3)]
    assert found.loss == pytest.approx(3 * float(found.outputs["p"]), rel=1e-6)
    assert not zero(net, "b")


def test_dropout_takes_a_mask_and_drops_in_the_train_phase_alone() -> None:
    text = inputs(x=(2, 3)) + layer("Dropout", "x", "d", "dropout_param { dropout_ratio: 0.4 }", name="drop")
    text += layer("Parameter", "", "p", "parameter_param { shape { dim: [2, 3] } }")
    train = build(graph_of(text))
    (mask,) = train.masks
    assert (mask.layer, mask.shape, mask.ratio) == ("drop", (2, 3), pytest.approx(0.4))
    kept = np.array([[0, 2, 0], [2, 2, 0]], np.float32)
    np.testing.assert_array_equal(train.forward({"x": X[:2], mask.feed: kept}).outputs["d"], X[:2] * kept)
    test = build_test(graph_of(text, "TEST"), train)
    assert not test.draws
    np.testing.assert_array_equal(test.forward({"x": X[:2]}).outputs["d"], X[:2])
    with pytest.raises(NetError, match="is not fed"):
        train.forward({"x": X[:2]})
    with pytest.raises(NetError, match=r"fed with the shape \(2, 2\)"):
        test.forward({"x": X[:2, :2]})


def test_what_is_drawn_stands_in_the_order_of_its_layers() -> None:
    fillers = "data_filler { type: 'constant' value: 4 } data_filler { type: 'gaussian' }"
    body = f"dummy_data_param {{ shape {{ dim: [2, 3] }} {fillers} }}"
    dummy = layer("DummyData", "", "one two", body, name="dummy")
    text = (
        inputs(x=(2, 3)) + layer("Dropout", "x", "d", name="drop") + dummy + layer("Dropout", "two", "e", name="last")
    )
    net = build(graph_of(text))
    assert [(type(one), one.layer) for one in net.draws] == [(Mask, "drop"), (Filling, "dummy"), (Mask, "last")]
    values = {draw.feed: RNG.normal(size=draw.shape).astype(np.float32) for draw in net.draws}
    found = net.forward({"x": X[:2], **values}).outputs
    np.testing.assert_array_equal(found["one"], np.full((2, 3), 4, np.float32))
    np.testing.assert_array_equal(found["e"], values[net.draws[1].feed] * values[net.draws[2].feed])


def test_a_data_layer_is_fed_in_training_and_refused_elsewhere() -> None:
    text = layer("Data", "", "x label", "data_param { source: 'db' batch_size: 4 }") + product("x", "b") + LOSS
    net = build(graph_of(text, fed={"x": (4, 3), "label": (4,)}))
    assert net.inputs == {"x": (4, 3), "label": (4,)}
    assert net.backward(FEEDS).loss > 0
    with pytest.raises(NetError, match="needs a database"):
        graph_of(text)
    with pytest.raises(NetError, match="nothing gives its top 'label'"):
        graph_of(text, fed={"x": (4, 3)})


@pytest.mark.parametrize("shape", [(4, 3, 5, 2), (6, 3)])
def test_batch_norm_takes_up_the_batch_in_training_and_uses_it_in_testing(shape: tuple[int, ...]) -> None:
    text = inputs(x=shape) + layer("BatchNorm", "x", "n", "batch_norm_param { moving_average_fraction: 0.9 eps: 0.1 }")
    train = build(graph_of(text))
    test = build_test(graph_of(text, "TEST"), train)
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    mean, variance, count = np.zeros(3), np.zeros(3), 0.0
    many = int(np.prod(shape)) // 3
    for turn in range(3):
        x = (RNG.normal(size=shape) * 2 + turn).astype(np.float32)
        (train.forward if turn == 1 else train.backward)({"x": x})
        count = count * 0.9 + 1
        mean = mean * 0.9 + x.mean(axes, dtype=np.float64)
        variance = variance * 0.9 + x.var(axes, dtype=np.float64) * many / (many - 1)
    for blob, want in enumerate((mean, variance, np.array([count]))):
        np.testing.assert_allclose(train.weights(Slot(1, blob)), np.asarray(want, np.float64), rtol=1e-5, atol=1e-6)
    before = [train.weights(Slot(1, blob)) for blob in range(3)]
    spread = tuple(3 if axis == 1 else 1 for axis in range(len(shape)))
    want = (x - (mean / count).reshape(spread)) / np.sqrt((variance / count).reshape(spread) + 0.1)
    np.testing.assert_allclose(test.forward({"x": x}).outputs["n"], want, rtol=1e-4, atol=1e-5)
    assert all((train.weights(Slot(1, blob)) == before[blob]).all() for blob in range(3))


def test_batch_norm_of_the_train_phase_takes_up_what_a_test_pass_shows_it_too() -> None:
    text = inputs(x=(4, 3)) + layer("BatchNorm", "x", "n", "phase: TRAIN")
    train = build(graph_of(text))
    test = build_test(graph_of(text, "TEST"), train)
    test.forward({"x": X})
    assert train.weights(Slot(1, 2)).tolist() == [1]
    alone = text.replace("phase: TRAIN", "batch_norm_param { use_global_stats: true }")
    still = build(graph_of(alone))
    still.backward({"x": X})
    assert still.weights(Slot(1, 2)).tolist() == [0]


def test_one_value_a_channel_has_no_variance() -> None:
    net = build(graph_of(inputs(x=(1, 3)) + layer("BatchNorm", "x", "n") + product("n", "b", width=2)))
    assert net.forward({"x": X[:1]}).outputs["b"].shape == (1, 2)
    assert [net.weights(Slot(1, blob)).tolist() for blob in (1, 2)] == [[0, 0, 0], [1]]


def test_a_test_net_shares_by_the_names_of_layers_and_fills_what_it_has_alone() -> None:
    train = build(graph_of(DATA + product("x", "a") + product("a", "b") + LOSS))
    text = DATA + product("x", "a") + product("a", "own") + layer("Accuracy", "own label", "accuracy")
    test = build_test(graph_of(text, "TEST"), train)
    assert test.tensor(Slot(2, 0)) is train.tensor(Slot(2, 0))
    assert {one.layer for one in test.learned} == {"a", "own"}
    train.load(Slot(2, 0), np.zeros((3, 3), np.float32))
    assert not test.weights(Slot(2, 0)).any()
    with pytest.raises(SolverError, match=r"layer 'a' \(InnerProduct\) has other learned blobs"):
        build_test(graph_of(text.replace("num_output: 3", "num_output: 4"), "TEST"), train)


@pytest.mark.parametrize("known", ["a", "b"])
def test_who_shares_in_a_test_net_with_a_layer_that_the_train_net_lacks_keeps_its_own(known: str) -> None:
    """Caffe points the known layer's blob at the train net's; the other one still has what both were filled with."""
    filler = "inner_product_param { num_output: 3 bias_term: false weight_filler { value: 7 } }"
    both = "".join(layer("InnerProduct", "x", one, f"{filler} param {{ name: 'w' }}") for one in "ab")
    train = build(graph_of(DATA + layer("InnerProduct", "x", known, filler) + layer("Reduction", known, "l")))
    (one,) = train.learned
    train.load(one.slot, np.full((3, 3), 2, np.float32))
    warned: list[str] = []
    graph = graph_of(DATA + both, "TEST", warn=warned.append)
    filled = dict.fromkeys(graph.parameters.owners.values(), np.full((3, 3), 7, np.float32))
    test = build_test(graph, train, filled)
    outputs = test.forward(FEEDS).outputs
    other = "b" if known == "a" else "a"
    np.testing.assert_allclose(outputs[known], X.sum(1, keepdims=True).repeat(3, 1) * 2, rtol=1e-5)
    np.testing.assert_allclose(outputs[other], X.sum(1, keepdims=True).repeat(3, 1) * 7, rtol=1e-5)
    assert [says for says in warned if "share a blob in the test net" in says]
    train.load(one.slot, np.full((3, 3), 5, np.float32))
    assert test.forward(FEEDS).outputs[known][0, 0] == pytest.approx(X[0].sum() * 5)
    whole = build(graph_of(DATA + both + layer("Eltwise", "a b", "s") + layer("Reduction", "s", "l", "loss_weight: 1")))
    assert len(build_test(graph_of(DATA + both, "TEST"), whole).learned) == 1, "both are known: they stay one"


@pytest.mark.parametrize(("kind", "names"), [("LSTM", ["r/hidden", "r/cell"]), ("RNN", ["r/hidden"])])
def test_hidden_states_go_on_in_the_next_pass_and_can_be_kept(kind: str, names: list[str]) -> None:
    filler = "{ type: 'uniform' min: -1 max: 1 }"
    body = f"recurrent_param {{ num_output: 4 weight_filler {filler} bias_filler {filler} }}"

    def net(steps: int) -> TorchNetwork:
        return build(graph_of(inputs(x=(steps, 2, 3), c=(steps, 2)) + layer(kind, "x c", "y", body, name="r")))

    x, cont = RNG.normal(size=(6, 2, 3)).astype(np.float32), np.ones((6, 2), np.float32)
    cont[0], cont[4, 1] = 0, 0
    whole = net(6).forward({"x": x, "c": cont}).outputs["y"]
    short = net(3)
    assert list(short.carried()) == names
    first = short.forward({"x": x[:3], "c": cont[:3]}).outputs["y"]
    kept = short.carried()
    rest = short.backward({"x": x[3:], "c": cont[3:]}).outputs["y"]
    np.testing.assert_allclose(np.concatenate([first, rest]), whole, rtol=1e-5, atol=1e-6)
    other = net(3)
    other.carry(kept)
    np.testing.assert_array_equal(other.forward({"x": x[3:], "c": cont[3:]}).outputs["y"], rest)
    with pytest.raises(NetError, match="another net"):
        other.carry({"elsewhere": kept[names[0]]})


def test_gradients_of_several_passes_add_up_until_they_are_cleared() -> None:
    net = build(graph_of(DATA + product("x", "b") + LOSS))
    net.backward(FEEDS)
    once = net.gradient(Slot(2, 0))
    net.backward(FEEDS)
    np.testing.assert_allclose(net.gradient(Slot(2, 0)), 2 * once, rtol=1e-6)
    net.clear()
    assert not net.gradient(Slot(2, 0)).any()
    net.gradient_tensor(Slot(2, 0)).add_(1)
    assert (net.gradient(Slot(2, 0)) == 1).all(), "it is the net's own, live"


def test_every_tensor_that_an_update_works_on_is_flat() -> None:
    body = f"convolution_param {{ num_output: 4 kernel_size: 3 {FILLED} }}"
    text = (
        inputs(x=(2, 3, 6, 6)) + layer("Convolution", "x", "c", body) + layer("Reduction", "c", "l", "loss_weight: 1")
    )
    net = build(graph_of(text))
    net.backward({"x": RNG.normal(size=(2, 3, 6, 6)).astype(np.float32)})
    for one in net.learned:
        assert net.tensor(one.slot).is_contiguous()
        assert net.gradient_tensor(one.slot).is_contiguous()
        assert net.gradient_tensor(one.slot).any()


def test_what_is_watched_are_caffes_debug_lines() -> None:
    text = DATA + product("x", "a", "param { name: 'w' }") + layer("ReLU", "a", "a", name="relu")
    text += product("a", "b") + product("a", "c") + layer("Eltwise", "b c", "s") + layer("Flatten", "s", "f")
    net = build(graph_of(text + layer("SoftmaxWithLoss", "f label", "loss")))
    plain = build(graph_of(text + layer("SoftmaxWithLoss", "f label", "loss")))
    seen = net.watched(FEEDS, True)
    assert seen.result.loss == plain.backward(FEEDS).loss
    assert [(one.layer, one.what, one.blob) for one in seen.forward][:9] == [
        ("x", "top", "x"), ("label", "top", "label"), ("a", "top", "a"), ("a", "param", "w"), ("a", "param", "1"),
        ("relu", "top", "a"), ("a_relu_0_split", "top", "a_relu_0_split_0"),
        ("a_relu_0_split", "top", "a_relu_0_split_1"), ("b", "top", "b"),
    ]  # fmt: skip
    values = {(one.layer, one.blob): one.mean for one in seen.forward}
    assert values["x", "x"] == pytest.approx(float(np.abs(X).mean()), rel=1e-6)
    assert values["a", "w"] == pytest.approx(float(np.abs(net.weights(Slot(2, 0))).mean()), rel=1e-6)
    assert values["f", "f"] == values["s", "s"] > 0
    assert values["relu", "a"] == values["a_relu_0_split", "a_relu_0_split_1"] < values["a", "a"]
    back = [(one.layer, one.what, one.blob) for one in seen.backward]
    assert back == [
        ("loss", "bottom", "f"), ("f", "bottom", "s"), ("s", "bottom", "b"), ("s", "bottom", "c"),
        ("c", "bottom", "a_relu_0_split_1"), ("c", "param", "0"), ("c", "param", "1"),
        ("b", "bottom", "a_relu_0_split_0"), ("b", "param", "0"), ("b", "param", "1"),
        ("a_relu_0_split", "bottom", "a"), ("relu", "bottom", "a"), ("a", "param", "0"), ("a", "param", "1"),
    ]  # fmt: skip
    assert all(one.mean > 0 for one in seen.backward)
    gradients = {(one.layer, one.blob): one.mean for one in seen.backward}
    for one in net.learned:
        got = net.gradient(one.slot)
        np.testing.assert_array_equal(got, plain.gradient(one.slot))
        assert gradients[one.layer, str(one.slot.blob)] == pytest.approx(float(np.abs(got).mean()), rel=1e-5)
    everything = np.concatenate([net.weights(one.slot).ravel() for one in net.learned])
    assert seen.norms is not None
    assert seen.norms[0] == pytest.approx(float(np.abs(everything).sum()), rel=1e-5)
    assert seen.norms[2] == pytest.approx(float(np.sqrt((everything**2).sum())), rel=1e-5)
    without = net.watched(FEEDS, False)
    assert (without.backward, without.norms) == ((), None)


def deep() -> TorchNetwork:
    text = DATA + product("x", "a") + layer("Log", "a", "g") + layer("BatchNorm", "g", "n") + product("n", "b") + LOSS
    net = build(graph_of(text))
    net.load(Slot(2, 0), np.full((3, 3), 0.5, np.float32))
    net.load(Slot(2, 1), np.full(3, 9, np.float32))
    return net


def test_the_first_blob_that_is_not_finite_is_named() -> None:
    net = deep()
    net.backward(FEEDS)
    before = {one.slot: (net.weights(one.slot), net.gradient(one.slot)) for one in net.learned}
    assert net.first_not_finite(FEEDS) is None
    net.load(Slot(2, 1), np.full(3, -9, np.float32))
    assert net.first_not_finite(FEEDS) == NotFinite("g", "g", False)
    net.load(Slot(2, 1), before[Slot(2, 1)][0])
    for one in net.learned:
        np.testing.assert_array_equal(net.weights(one.slot), before[one.slot][0])
        np.testing.assert_array_equal(net.gradient(one.slot), before[one.slot][1])
    bad = X.copy()
    bad[1, 1] = np.nan
    assert net.first_not_finite({"x": bad, "label": LABELS}) == NotFinite("x", "x", False)
    net.load(Slot(5, 1), np.array([0, np.inf, 0], np.float32))
    assert net.first_not_finite(FEEDS) == NotFinite("b", "1", False)


def test_the_first_gradient_that_is_not_finite_is_named() -> None:
    power = layer("Power", "a", "r", "power_param { power: 0.5 }", name="root")
    net = build(graph_of(DATA + product("x", "a") + power + product("r", "b") + LOSS))
    net.load(Slot(2, 0), np.zeros((3, 3), np.float32))
    assert net.first_not_finite(FEEDS) == NotFinite("root", "a", True)


def test_bf16_is_near_and_only_by_choice() -> None:
    body = f"convolution_param {{ num_output: 8 kernel_size: 3 {FILLED} }}"
    text = inputs(x=(4, 3, 9, 9), label=(4,)) + layer("Convolution", "x", "c", body)
    text += layer("BatchNorm", "c", "n") + layer("ReLU", "n", "n", name="r") + layer("LRN", "n", "l")
    text += (
        layer("Pooling", "l", "p", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }") + product("p", "b") + LOSS
    )
    feeds = {"x": RNG.normal(size=(4, 3, 9, 9)).astype(np.float32), "label": LABELS}
    whole = build(graph_of(text))
    half = build(graph_of(text), Arithmetic(torch.device("cpu"), half=True))
    losses = [net.backward(feeds).loss for net in (whole, half)]
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=5e-2)
    with pytest.raises(SolverError, match="exclude each other"):
        build(graph_of(text), Arithmetic(torch.device("cpu"), exact=True, half=True))
    for one in half.learned:
        assert half.tensor(one.slot).dtype == torch.float32
        if one.lr_mult and one.layer != "c":  # before BatchNorm, a bias has no gradient but noise
            pair = [net.gradient(one.slot).ravel() for net in (whole, half)]
            assert pair[0] @ pair[1] > 0.98 * np.linalg.norm(pair[0]) * np.linalg.norm(pair[1])


def test_a_loss_falls_when_an_update_follows_the_gradients() -> None:
    net = build(
        graph_of(DATA + product("x", "a", width=8) + layer("ReLU", "a", "a", name="r") + product("a", "b") + LOSS)
    )
    losses = []
    for _ in range(60):
        net.clear()
        losses.append(net.backward(FEEDS).loss)
        with torch.no_grad():
            for one in net.learned:
                net.tensor(one.slot).sub_(net.gradient_tensor(one.slot), alpha=0.5)
    assert losses[-1] < 0.1 * losses[0]
    assert sum(b > a for a, b in itertools.pairwise(losses)) < 10


def test_what_is_fed_stays_as_it_is() -> None:
    x = X.copy()
    x.flags.writeable = False
    net = build(graph_of(DATA + layer("Exp", "x", "x") + product("x", "b") + LOSS), CPU)
    net.backward({"x": x, "label": LABELS})
    np.testing.assert_array_equal(x, X)


def test_the_test_pass_of_a_net_without_labels_gives_its_outputs() -> None:
    train = build(graph_of(DATA + product("x", "b") + LOSS))
    test = build_test(graph_of(inputs(x=(4, 3)) + product("x", "b") + layer("Softmax", "b", "prob"), "TEST"), train)
    found = test.forward({"x": X})
    assert (found.loss, list(found.outputs)) == (0.0, ["prob"])
    np.testing.assert_allclose(np.asarray(found.outputs["prob"], np.float64).sum(1), 1, rtol=1e-6)
