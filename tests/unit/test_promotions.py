"""What is promoted, judged, fetched and followed, one piece at a time."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from pipeline.app import promoting
from pipeline.app.candidates import Files, of_files, of_promotion, of_training
from pipeline.app.promotion_bar import Bar, shortfalls
from pipeline.app.trainings import training
from pipeline.codec import caffe_pb2
from pipeline.errors import ConfigError, FormatError, NetError, NotFound, PermanentError
from pipeline.ledger import promotions
from pipeline.ledger.bodies import body_of
from pipeline.ledger.layout import Keys
from pipeline.ledger.manifest import Plan, Promoted
from pipeline.ledger.model_files import FOLDER, KEPT_DAYS, folder_of, forget
from pipeline.ledger.promotions import Promotion
from pipeline.ledger.protocol import Context
from pipeline.ledger.trainings import JobFile, JobOut, JobParent, JobSnapshot, JobSpec
from pipeline.nets.expected import expected
from pipeline.operations.prune import plan_all
from pipeline.operations.verify import verify
from pipeline.settings import FeatureSet
from pipeline.stages.expectations import Expectations
from pipeline.stages.following import Asked, Following
from pipeline.times import DAY
from sample import random_features
from tests.integration.conftest import ROOT
from tests.simulation.world import World, settings_of

KEYS = Keys("shop")
NET = ROOT / "sample" / "random_features.prototxt"
AT = "20231114T221320Z"


@pytest.fixture
def world(tmp_path: Path) -> World:
    sets = {"demo": {"model": "shoes", "blob": "features", "root": "features"}}
    return World(tmp_path / "spill", settings_of(state=str(tmp_path / "state"), sets=sets))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "w.caffemodel"
    random_features.write(path, 1)
    return path


def promote(context: Context, given: Files, **figures: float) -> promoting.Outcome:
    judged = promoting.judge(context, promoting.Wanted("shoes", of_files(given), figures))
    return promoting.promote(judged)


# --- the bar ---


@pytest.mark.parametrize(
    ("figures", "bar", "current", "says"),
    [
        ({"accuracy": 0.9}, Bar({"accuracy": 0.9}), None, []),
        ({"accuracy": 0.89}, Bar({"accuracy": 0.9}), None, ["accuracy is 0.89, and at least 0.9 is wanted"]),
        ({"loss": 0.3}, Bar({"loss": 0.2}), None, ["loss is 0.3, and at most 0.2 is wanted"]),
        ({"accuracy": float("nan")}, Bar({"accuracy": 0.0}), None, ["accuracy is nan, and at least 0 is wanted"]),
        ({"accuracy": 0.9}, Bar(against=True), None, []),
        ({"accuracy": 0.9}, Bar(against=True), {"accuracy": 0.9}, []),
        (
            {"accuracy": 0.9, "loss": 0.3},
            Bar(against=True),
            {"accuracy": 0.91, "loss": 0.2},
            [
                "accuracy is 0.9, and that of the model in use is 0.91",
                "loss is 0.3, and that of the model in use is 0.2",
            ],
        ),
        ({"accuracy": 0.9, "loss": 0.3}, Bar({"accuracy": 0.5}, True), {"accuracy": 0.9, "loss": 0.2},
         ["loss is 0.3, and that of the model in use is 0.2"]),
        ({"top5": 0.9}, Bar(against=True), {"accuracy": 0.1},
         ["it has no figure accuracy, and that of the model in use is 0.1"]),
        ({"accuracy": 0.9}, Bar({"accuracy": 0.5}, True), {"accuracy": 0.8, "top5": 0.9},
         ["it has no figure top5, and that of the model in use is 0.9"]),
        ({"accuracy": 0.9}, Bar(against=True), {}, ["the model in use has no figures: the two cannot be compared"]),
    ],
)  # fmt: skip
def test_a_model_is_judged_by_its_figures(
    figures: Mapping[str, float], bar: Bar, current: Mapping[str, float] | None, says: list[str]
) -> None:
    assert shortfalls(figures, bar, current) == says


def test_a_bar_on_a_figure_that_the_model_lacks_is_not_met() -> None:
    says = ["it has no figure f1, and at least 0.5 is wanted (figures: accuracy, loss)"]
    assert shortfalls({"accuracy": 0.9, "loss": 0.1}, Bar({"f1": 0.5}), None) == says
    assert shortfalls({}, Bar({"loss": 0.5}), None) == [
        "it has no figure loss, and at most 0.5 is wanted (figures: none)"
    ]


HEAD = """
name: "head" input: "data" input_shape {{ dim: 1 dim: 3 dim: 8 dim: 8 }}
layer {{ name: "features" type: "InnerProduct" bottom: "data" top: "features" inner_product_param {{ num_output: 4 }} }}
layer {{ name: "score" type: "InnerProduct" bottom: "features" top: "score" inner_product_param {{ num_output: {} }} }}
"""


def head(folder: Path, classes: int) -> Files:
    net, weights = folder / f"{classes}.prototxt", folder / f"{classes}.caffemodel"
    net.write_text(HEAD.format(classes))
    made = caffe_pb2.NetParameter()
    for name, shape in (("features", (4, 192)), ("score", (classes, 4))):
        layer = made.layer.add(name=name, type="InnerProduct")
        for size in (shape, shape[:1]):
            layer.blobs.add(data=np.ones(size, np.float32).ravel()).shape.dim.extend(size)
    weights.write_bytes(made.SerializeToString())
    return Files(net, weights)


def test_a_head_of_another_number_of_classes_is_named_and_refused_where_the_two_are_compared(
    world: World, tmp_path: Path
) -> None:
    context = world.context()
    assert promote(context, head(tmp_path, 3), accuracy=0.8).won
    says = "score has 5 numbers, and that of the model in use has 3"
    wanted = promoting.Wanted("shoes", of_files(head(tmp_path, 5)), {"accuracy": 0.9})
    judged = promoting.judge(context, wanted)
    assert (judged.short, judged.other) == ((), (says,))
    against = promoting.judge(context, replace(wanted, bar=Bar(against=True)))
    assert against.short == (f"{says}: figures of the two say nothing of each other",)
    same = promoting.judge(context, replace(wanted, candidate=of_files(head(tmp_path, 3)), bar=Bar(against=True)))
    assert (same.short, same.other) == ((), ())


# --- what is promoted ---


def job(context: Context, weights: Path, net: Path, *, step: int = 20) -> str:
    """A training that has finished, with a test of iteration `step`."""
    solver = caffe_pb2.SolverParameter()
    text_format.Parse(net.read_text(), solver.net_param)
    spec = JobSpec(
        model="net", solver=text_format.MessageToString(solver), max_iter=20, every=20, data={"db": "ab" * 32}
    )
    keys = KEYS.job(spec.name())
    key = keys.file("0f", "net_iter_20.caffemodel")
    context.bucket.put(key, weights)
    piece = of_files(Files(net, weights)).pieces[1]
    file = JobFile(name="net_iter_20.caffemodel", key=key, size=piece.size, sha256=piece.sha256)
    link = JobSnapshot(iteration=20, parent=None, files=(file,), process="box", attempt=1, at=AT)
    row = {"step": step, "kind": "test", "values": {"test/accuracy": 0.87, "test1/accuracy": 0.5, "lr": 0.1}}
    rows = (json.dumps(row),) if step >= 20 else ()
    snapshot = link if step >= 20 else link.model_copy(update={"rows": (json.dumps(row),)})
    parent = JobParent(iteration=20, digest=snapshot.digest())
    out = JobOut(kind="model", iteration=20, snapshot=parent, files=(file,), rows=rows, process="box", at=AT)
    for where, body in ((keys.spec, spec), (keys.snapshot(20), snapshot), (keys.out, out)):
        context.bucket.put(where, body.encode())
    return str(spec.name())


def test_a_training_is_promoted_with_the_figures_of_its_own_last_test(world: World, weights: Path) -> None:
    context = world.context()
    name = job(context, weights, NET)
    with of_training(training([context], name), Files()) as candidate:
        assert candidate.figures == {"accuracy": 0.87}
        done = promoting.promote(promoting.judge(context, promoting.Wanted("shoes", candidate)))
    assert (done.won, done.stands.job, done.stands.data) == (True, name, {"db": "ab" * 32})
    following = Following(context)
    fetched = following.configured(following.newest_of("demo"))
    by_hand = FeatureSet(net=str(NET), weights=str(weights), blob="features", root="features")
    assert expected(fetched) == expected(by_hand)


def test_figures_of_an_earlier_test_are_not_those_of_the_last_weights(world: World, weights: Path) -> None:
    context = world.context()
    with of_training(training([context], job(context, weights, NET, step=10)), Files()) as candidate:
        assert candidate.figures == {}


def test_a_net_with_data_layers_does_not_serve_and_the_one_that_serves_is_asked_for(
    world: World, weights: Path, tmp_path: Path
) -> None:
    text = NET.read_text()
    begin, end = text.index("layer {"), text.index("layer {", text.index("layer {") + 1)
    data = 'layer { name: "data" type: "Data" top: "data" top: "label" data_param { source: "db" batch_size: 2 } }\n'
    trained = tmp_path / "train.prototxt"
    trained.write_text(text[:begin] + data + text[end:])
    context = world.context()
    one = training([context], job(context, weights, trained))
    with of_training(one, Files()) as candidate, pytest.raises(NetError, match="cannot serve set demo"):
        promoting.judge(context, promoting.Wanted("shoes", candidate))
    with of_training(one, Files(net=NET)) as candidate:
        assert promoting.judge(context, promoting.Wanted("shoes", candidate)).fingerprints["demo"]


def test_a_training_without_a_result_is_not_promoted(world: World, weights: Path) -> None:
    context = world.context()
    name = job(context, weights, NET)
    context.bucket.delete(f"shop/j/{name}/out")
    with pytest.raises(PermanentError, match="has no model"), of_training(training([context], name), Files()):
        pass


def test_a_mean_is_promoted_in_the_place_of_the_sets(world: World, weights: Path, tmp_path: Path) -> None:
    context = world.context()
    mean = tmp_path / "mean.npy"
    np.save(mean, np.full((3, 64, 64), 7.0, np.float32) * np.arange(64, dtype=np.float32))
    promote(context, Files(NET, weights))
    promote(context, Files(NET, weights, mean))
    following = Following(context)
    with_mean, without = (following.configured(Asked("demo", "shoes", number)) for number in (2, 1))
    assert expected(with_mean) != expected(without)
    by_hand = FeatureSet.model_validate(
        {"net": str(NET), "weights": str(weights), "blob": "features", "root": "r", "preprocess": {"mean": str(mean)}}
    )
    assert expected(with_mean) == expected(by_hand)


def test_an_onnx_model_goes_with_what_lies_beside_it(world: World, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    shape = [1, 3, 8, 8]
    scale = numpy_helper.from_array(np.array([1.0, 2.0, 3.0], np.float32).reshape(1, 3, 1, 1), "scale")
    node = helper.make_node("Mul", ["data", "scale"], ["features"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("data", "features")]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    path = tmp_path / "own.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    told = {"do_resize": True, "size": {"height": 8, "width": 8}, "do_rescale": True, "rescale_factor": 1 / 255,
            "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    context = world.context()
    done = promote(context, Files(net=path))
    assert {one.role: one.name for one in done.stands.files} == {
        "net": "net.onnx", "preprocessor": "preprocessor_config.json", "beside": "weights.bin"
    }  # fmt: skip
    by_hand = FeatureSet(net=str(path), blob="features", root="r")
    following = Following(context)
    assert expected(following.configured(following.newest_of("demo"))) == expected(by_hand)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (Files(net=Path("hog")), "hog is no net"),
        (Files(net=Path("none.prototxt")), "cannot be read"),
        (Files(net=NET, mean=NET), "is no mean"),
        (Files(net=NET, weights=Path("none.caffemodel")), "cannot be read"),
    ],
)
def test_what_is_no_file_of_a_model_is_refused(files: Files, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        of_files(files)


# --- the documents ---


def test_keys_of_promotions_are_spelt_as_the_protocol_says() -> None:
    assert KEYS.promotion("shoes", 3) == "shop/m/shoes/0000000003"
    assert KEYS.model_file("0f", "net.onnx") == "shop/d/m/0f/net.onnx"


@pytest.mark.parametrize(
    "change",
    [{"files": []}, {"model": "../x"}, {"by": 3}, {"at": "now"}, {"figures": {"a": "b"}}, {"again": 0},
     {"files": [{"role": "net", "name": "../../x", "key": "k", "size": 1, "sha256": "ab" * 32}]},
     {"files": [{"role": "net", "name": "x", "key": "k", "size": 1, "sha256": "ab" * 32}] * 2},
     {"files": [{"role": "weights", "name": "x", "key": "k", "size": 1, "sha256": "ab" * 32}]},
     {"files": [{"role": "program", "name": "x", "key": "k", "size": 1, "sha256": "ab" * 32}]}],
)  # fmt: skip
def test_a_promotion_from_strangers_is_judged_as_it_is_read(change: Mapping[str, object]) -> None:
    net = {"role": "net", "name": "net.prototxt", "key": "k", "size": 1, "sha256": "ab" * 32}
    whole = {"format": 1, "nonce": "0", "model": "shoes", "by": "ann", "at": AT, "files": [net]}
    assert body_of(Promotion, json.dumps(whole).encode(), "m").model == "shoes"
    with pytest.raises(FormatError):
        body_of(Promotion, json.dumps({**whole, **change}).encode(), "m")


def test_a_promotion_of_another_model_or_of_no_number_is_not_followed(world: World, weights: Path) -> None:
    context = world.context()
    promote(context, Files(NET, weights))
    content = context.bucket.get(KEYS.promotion("shoes", 1))
    context.bucket.put(KEYS.promotion("boots", 1), content)
    with pytest.raises(FormatError, match="is not a promotion of boots"):
        promotions.read(context, Promoted(model="boots", number=1))
    for strange in ("shop/m/shoes/0000000000", "shop/m/shoes/7", "shop/m/shoes/new"):
        context.bucket.put(strange, content)
    assert promotions.numbers(context, "shoes")[0] == [1]
    assert sum("is not the key of a promotion" in text for text in world.said) == 3


def test_while_the_newest_cannot_be_read_an_older_one_does_not_take_its_place(world: World, weights: Path) -> None:
    context = world.context()
    promote(context, Files(NET, weights))
    context.bucket.put(KEYS.promotion("shoes", 2), b'{"format": 99}')
    world.put_refs("a.csv", "partner_id,sku,url\n7,a,http://shop.example/1\n")
    world.turns("gate.one").take("ship")
    assert not list(world.bucket.under("shop/c/"))
    assert any("ships nothing for set demo" in text and "newer Hathi" in text for text in world.said)


# --- on a host ---


def test_verify_names_a_lost_file_until_the_same_bytes_are_promoted_again(world: World, weights: Path) -> None:
    def named(*, deep: bool = False) -> list[str]:
        return [one.where for one in verify(world.context(), deep=deep) if one.kind == "model_lost"]

    context, given = world.context(), Files(NET, weights)
    first = key = next(one.key for one in promote(context, given).stands.files if one.role == "weights")
    content = world.bucket.files[key]
    del world.bucket.files[key]
    assert named() == [key]
    assert promote(context, given).won
    assert named(deep=True) == [], "the next number has the same bytes"
    world.bucket.write(key, content[0][:-1])
    assert named() == [], "a damaged one is none either"
    del world.bucket.files[
        next(key for key in world.bucket.files if key.endswith("weights.caffemodel") and key != first)
    ]
    assert named() != []


def test_a_models_folder_is_whole_verified_and_made_again_where_it_is_damaged(world: World, weights: Path) -> None:
    context = world.context()
    body = promote(context, Files(NET, weights)).stands
    folder = folder_of(context, body, set())
    assert folder.parent == Path(world.settings.state) / FOLDER
    (folder / "net.prototxt").write_text("damaged")
    assert (folder_of(context, body, set()) / "net.prototxt").read_bytes() == NET.read_bytes()
    verified: set[str] = set()
    folder_of(context, body, verified)
    for one in folder.iterdir():
        one.unlink()
    folder.rmdir()
    assert (folder_of(context, body, verified) / "weights.caffemodel").read_bytes() == weights.read_bytes()
    assert [one.name for one in folder.parent.iterdir()] == [body.digest], "nothing half lies beside it"


def test_bytes_that_are_not_what_was_promoted_are_never_used(world: World, weights: Path) -> None:
    context = world.context()
    body = promote(context, Files(NET, weights)).stands
    key = next(one.key for one in body.files if one.role == "weights")
    context.bucket.put(key, b"other weights")
    with pytest.raises(PermanentError, match="does not hold the bytes"):
        folder_of(context, body, set())
    context.bucket.delete(key)
    with pytest.raises(NotFound, match="a promoted model needs it"):
        folder_of(context, body, set())
    assert not any((Path(world.settings.state) / FOLDER).iterdir())


def test_what_nobody_on_the_host_asked_for_lately_is_deleted_there(world: World, weights: Path) -> None:
    context = world.context()
    kept = folder_of(context, promote(context, Files(NET, weights)).stands, set())
    old = folder_of(context, promote(context, Files(NET, of_other(weights))).stands, set())
    half = old.parent / ".half"
    half.mkdir()
    long_ago = time.time() - KEPT_DAYS * DAY - 1
    for place in (old, half):
        os.utime(place, (long_ago, long_ago))
    assert forget(context) == 2
    assert list(kept.parent.iterdir()) == [kept]


def of_other(weights: Path) -> Path:
    path = weights.with_name("other.caffemodel")
    random_features.write(path, 2)
    return path


# --- which promotion ---


def test_what_is_planned_takes_the_newest_and_what_follows_from_it_keeps_it(world: World, weights: Path) -> None:
    context = world.context()
    promote(context, Files(NET, weights))
    expectations = Expectations(Following(context))
    first = expectations["demo"]
    assert (str(first.promoted), len(first.fingerprint)) == ("shoes@1", 64)
    promote(context, Files(NET, of_other(weights)))
    assert expectations["demo"] is first, "within a turn"
    expectations.refresh()
    second = expectations["demo"]
    assert str(second.promoted) == "shoes@2"
    assert second.fingerprint != first.fingerprint
    assert expectations.of_plan("demo", first) == first, "of what is planned nothing else is expected now"


def test_the_gateway_takes_back_settings_and_no_promotion(world: World, weights: Path) -> None:
    """A plan by shoes@1 whose settings were wrong is mended though shoes@2 is in use; its features are those of 1."""
    context = world.context("box.one")
    promote(context, Files(NET, weights))
    right = world.settings
    wrong = right.sets["demo"].model_copy(update={"normalise": "none"})
    world.settings = right.model_copy(update={"sets": {"demo": wrong}})
    world.put_refs("a.csv", "partner_id,sku,url\n7,a,http://shop.example/1\n")
    world.turns("gate.one").take("ship")
    promote(context, Files(NET, of_other(weights)))
    world.settings = right
    following = Following(context)
    prints = {number: expected(following.configured(Asked("demo", "shoes", number))) for number in (1, 2)}
    world.fingerprints = {f"demo by shoes@{number}": text for number, text in prints.items()}
    box = world.turns("box.one")
    assert world.run(box, ("compute", "aggregate")) == 0, "it means other features"
    assert list(world.bucket.under(KEYS.refused_hints))
    world.hand.at += 10.0
    world.turns("gate.two").take("ship")
    assert world.run(box, ("compute", "aggregate")) > 0
    results = [key for key in world.bucket.under("shop/c/") if "/r/" in key]
    assert {key.split("/")[3] for key in results} == {prints[1][:12]}


def test_two_promotions_at_most_are_loaded_for_a_set(world: World, weights: Path) -> None:
    from pipeline.ledger.protocol import poll
    from pipeline.stages.served_sets import ServedSets

    context = world.context()
    for seed in range(3):
        path = weights.with_name(f"{seed}.caffemodel")
        random_features.write(path, seed)
        promote(context, Files(NET, path))
    world.put_refs("a.csv", "partner_id,sku,url\n7,a,http://shop.example/1\n")
    world.turns("gate.one").take("ship")
    seen = poll(context)
    (state,) = seen.states
    assert state.plan is not None
    assert state.plan.expects is not None
    loaded: list[str] = []

    def serve(asked: Asked, feature_set: FeatureSet) -> object:
        loaded.append(str(asked))
        world.fingerprints[str(asked)] = expected(feature_set)
        return world.serve(asked, feature_set)

    sets = ServedSets(context, serve, strict=True)  # type: ignore[arg-type]
    for number in (1, 2, 1, 3, 1):
        planned = state.plan.expects.model_copy(update={"promoted": Promoted(model="shoes", number=number)})
        plan: Plan = state.plan.model_copy(update={"expects": planned})
        sets.computable(replace(seen, states=(replace(state, plan=plan),)))
        assert len(sets.loaded) <= 2
    assert loaded == ["demo by shoes@1", "demo by shoes@2", "demo by shoes@3"], "the one that was asked for stays"


# --- prune ---


def test_prune_deletes_old_files_that_no_promotion_names_and_no_other(world: World, weights: Path) -> None:
    context = world.context()
    promote(context, Files(NET, weights))
    promote(context, Files(NET, of_other(weights)))
    left = KEYS.model_file("0123456789abcdef", "net.prototxt")
    context.bucket.put(left, b"of a killed process")

    def doomed() -> list[str]:
        now = world.hand.at
        return [one.key for one in plan_all(context, now, None) if not isinstance(one, str)]

    assert doomed() == []
    world.hand.at += world.settings.prune.orphan_days * DAY + 1
    assert doomed() == [left]
    context.bucket.put(KEYS.promotion("shoes", 3), b"damaged")
    assert doomed() == [], "what cannot be read may name it"


def test_the_way_back_names_the_files_of_the_older_one(world: World, weights: Path) -> None:
    context = world.context()
    first = promote(context, Files(NET, weights)).stands
    second = promote(context, Files(NET, of_other(weights))).stands
    nets = [next(one.key for one in body.files if one.role == "net") for body in (first, second)]
    assert nets[0] == nets[1], "the same text is stored once"
    back = of_promotion(context, Promoted(model="shoes", number=1))
    done = promoting.promote(promoting.judge(context, promoting.Wanted("shoes", back)))
    assert (done.promoted.number, done.stands.again, done.stands.files) == (3, 1, first.files)
    again = promoting.judge(context, promoting.Wanted("shoes", back))
    assert again.in_use, "it has them already"
