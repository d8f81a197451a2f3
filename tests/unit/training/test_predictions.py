"""What a test says of each example: where a net says it, the ranks that Accuracy has, pictures, and the file."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet as pq

from pipeline.codec import caffe_pb2
from pipeline.errors import FormatError
from pipeline.nets.caffe import prototxt
from pipeline.nets.graph import caffe_graph, rules
from pipeline.nets.graph.caffe_graph import CaffeGraph
from pipeline.nets.graph.lowered import Shape
from pipeline.training.data.fed import Memory
from pipeline.training.data.transform import transform_of
from pipeline.training.draws.draws import draws
from pipeline.training.predictions import collecting
from pipeline.training.predictions.collecting import Collecting, likeliest, prepared
from pipeline.training.predictions.file import About, Predictions, read, write
from pipeline.training.predictions.judged import Judged, judged
from pipeline.training.predictions.pictures import is_picture, picture

IP = 'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 5 } }\n'
ACCURACY = 'layer { name: "accuracy" type: "Accuracy" bottom: "%s" bottom: "label" top: "accuracy" }\n'
HINGE = 'layer { name: "h" type: "HingeLoss" bottom: "ip" bottom: "label" top: "h" }'
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "%s" bottom: "label" top: "loss" %s }\n'


def graph_of(folder: Path, layers: str, data: Shape = (4, 3, 6, 6), label: Shape = (4,)) -> CaffeGraph:
    path = folder / "net.prototxt"
    path.write_text(f"""name: "tested"
        layer {{ name: "data" type: "Input" top: "data" top: "label"
                input_param {{ shape {{ dim: {list(data)} }} shape {{ dim: {list(label)} }} }} }}
        {layers}""")
    return caffe_graph.build(
        caffe_graph.NetText(prototxt.read(path), str(path)),
        None,
        rules.state_of("TEST", 0, ()),
        None,
        lambda says: None,
    )


def test_the_last_accuracy_layer_says_what_a_class_is_and_the_loss_that_it_is_a_probability(tmp_path: Path) -> None:
    found = judged(graph_of(tmp_path, IP + ACCURACY % "ip" + LOSS % ("ip", "")))
    assert found == Judged("ip", "label", 5, None, "logit")
    alone = judged(graph_of(tmp_path, IP + LOSS % ("ip", "loss_param { ignore_label: 3 }")))
    assert alone == Judged("ip", "label", 5, 3, "logit")


@pytest.mark.parametrize(
    ("layers", "kind"),
    [
        pytest.param(IP + 'layer { name: "p" type: "Softmax" bottom: "ip" top: "p" }' + ACCURACY % "p", "probability"),
        pytest.param(IP + ACCURACY % "ip", "score"),
        pytest.param(
            IP + ACCURACY % "ip" + 'layer { name: "h" type: "HingeLoss" bottom: "ip" bottom: "label" top: "h" }',
            "score",
        ),
    ],
)
def test_scores_without_a_softmax_are_no_probabilities(tmp_path: Path, layers: str, kind: str) -> None:
    found = judged(graph_of(tmp_path, layers))
    assert isinstance(found, Judged)
    assert found.kind == kind


@pytest.mark.parametrize(
    ("layers", "data", "label", "says"),
    [
        pytest.param('layer { name: "e" type: "EuclideanLoss" bottom: "data" bottom: "label" top: "e" }',
                     (4, 1), (4, 1), "no SoftmaxWithLoss and no Accuracy layer", id="another loss"),
        pytest.param(LOSS % ("data", ""), (4, 3, 6, 6), (4, 1, 6, 6), "judges 36 places of an example",
                     id="segmentation"),
        pytest.param(IP + ACCURACY % "ip" + 'layer { name: "f" type: "Flatten" bottom: "ip" top: "f" }'
                     'layer { name: "r" type: "ReLU" bottom: "f" top: "f" }',
                     (4, 3, 6, 6), (4,), "'ip' is overwritten after layer 'accuracy'", id="overwritten"),
        pytest.param(LOSS % ("data", ""), (4, 1), (4,), "knows one class alone", id="one class"),
    ],
)  # fmt: skip
def test_a_net_that_tells_no_class_of_an_example_says_why(
    tmp_path: Path, layers: str, data: Shape, label: Shape, says: str
) -> None:
    assert says in str(judged(graph_of(tmp_path, layers, data, label)))


def test_ranks_are_those_of_accuracy_where_scores_are_equal() -> None:
    scores = np.array([[1, 1, 0], [0, 2, 1], [3, 3, 3], [5, 1, 0]], np.float32)
    labels = np.array([0, 1, 2, 0])
    found = likeliest(scores, labels)
    right = found[:, 0] == labels
    better = (scores >= scores[np.arange(4), labels][:, None]).sum(axis=1)  # Caffe's Accuracy, the label's own included
    np.testing.assert_array_equal(right, better <= 1)
    assert found[1].tolist() == [1, 2, 0]


def test_probabilities_and_losses_are_those_of_a_softmax_also_where_float32_underflows() -> None:
    scores = np.array([[0, 200, 1], [2, 1, 0]], np.float32)
    values, losses = prepared("logit", scores, np.array([0, 0]))
    wide = np.exp(scores[1].astype(np.float64))
    np.testing.assert_allclose(values[1], wide / wide.sum(), rtol=1e-12)
    np.testing.assert_allclose(losses, [200, -np.log(wide[0] / wide.sum())], rtol=1e-12)
    assert prepared("score", scores, np.array([0, 0]))[1].tolist() == [200, 0]


def layer_of(text: str) -> caffe_pb2.LayerParameter:
    from google.protobuf import text_format

    found = caffe_pb2.LayerParameter()
    text_format.Parse(text, found)
    return found


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_show_the_pixels_before_mean_and_scale_were_taken(tmp_path: Path, channels: int) -> None:
    rng = np.random.default_rng(channels)
    image = rng.integers(0, 256, (channels, 20, 24), np.uint8)
    mean = rng.integers(0, 256, (channels, 20, 24)).astype(np.float32)
    np.save(tmp_path / "mean.npy", mean)
    spec = layer_of('name: "d" type: "Data" transform_param { crop_size: 12 scale: 0.0078125 mean_file: "mean.npy" }')
    transform = transform_of(spec, False, tmp_path)
    out = np.empty(transform.shape(image.shape), np.float32)
    transform.apply(image, np.empty(0, np.uint32), out)
    shown = cv2.imdecode(np.frombuffer(picture(out, transform), np.uint8), cv2.IMREAD_UNCHANGED)
    expected = image[:, 4:16, 6:18].transpose(1, 2, 0)
    np.testing.assert_array_equal(shown.reshape(12, 12, channels), expected)


def test_what_is_no_pixel_is_stretched_and_what_is_large_is_made_small() -> None:
    values = np.linspace(-3, 5, 2 * 300 * 200, dtype=np.float32).reshape(2, 300, 200)
    shown = cv2.imdecode(np.frombuffer(picture(values, None), np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown.shape == (96, 64)
    assert shown.max() > 180
    assert [is_picture(shape) for shape in ((8, 3, 32, 32), (8, 10), (8, 40, 1, 1), (8, 1, 4, 400))] == [
        True, False, False, False,
    ]  # fmt: skip
    assert cv2.imdecode(np.frombuffer(picture(np.full((1, 8, 8), np.nan, np.float32), None), np.uint8), 0).max() == 0


def predictions(rows: int = 3) -> Predictions:
    return Predictions(
        About(20, "tested", 6, "logit", 2), [f"k{row} \udcff" for row in range(rows)], np.arange(rows, dtype=np.int32),
        np.tile(np.arange(5, dtype=np.int32), (rows, 1)), np.full((rows, 5), 0.2, np.float32),
        np.ones(rows, np.float32), {1: b"png"},
    )  # fmt: skip


def test_the_file_gives_back_what_was_written_and_pandas_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "x_predictions.parquet"
    for found in (predictions(), Predictions(About(7, "other", why="no Accuracy"), [], *collecting._none(0), {})):
        write(path, found)
        back = read(path.read_bytes(), str(path))
        assert back.about == found.about
        assert back.pictures == found.pictures
        for name in ("labels", "predicted", "probability", "loss"):
            np.testing.assert_array_equal(getattr(back, name), getattr(found, name))
        assert back.keys == [key.replace("\udcff", "\\udcff") for key in found.keys]
    assert pq.read_table(path).column_names == ["key", "label", "predicted", "probability", "loss", "picture"]


@pytest.mark.parametrize("damage", ["cut", "foreign", "class", "columns", "about"])
def test_a_damaged_or_foreign_file_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.parquet"
    write(path, predictions())
    content = path.read_bytes()
    table = pq.read_table(path)
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "foreign":
        content = b"no parquet"
    else:
        if damage == "class":
            labels = pa.array([0, 1, 6], pa.int32())
            table = table.set_column(1, "label", labels)
        elif damage == "columns":
            table = table.drop_columns(["loss"])
        else:
            about = json.loads((table.schema.metadata or {})[b"hathi"])
            table = table.replace_schema_metadata({b"hathi": json.dumps({**about, "classes": "six"})})
        pq.write_table(table, path)
        content = path.read_bytes()
    with pytest.raises(FormatError, match=r"x\.parquet holds no predictions"):
        read(content, "x.parquet")


def collected(tmp_path: Path, scores: NDArray[np.float32], labels: NDArray[np.float32]) -> Predictions:
    """Two batches of a MemoryData layer, judged by these scores."""
    spec = layer_of("""name: "mem" type: "MemoryData" top: "data" top: "label"
        memory_data_param { batch_size: 4 channels: 3 height: 6 width: 6 }""")
    source = Memory(spec, False, draws(1, 0), tmp_path)
    told = Collecting(graph_of(tmp_path, IP + LOSS % ("ip", "loss_param { ignore_label: 4 }")), [source])
    for number in range(2):
        part = slice(4 * number, 4 * number + 4)
        data = np.full((4, 3, 6, 6), 10 * number, np.float32) + np.arange(4, dtype=np.float32)[:, None, None, None]
        told.add(number, {"data": data, "label": labels[part]}, {"ip": scores[part]})
        data[:] = -1  # the memory of a batch is used again
    return told.found(60)


def test_each_example_has_its_key_and_the_worst_mistakes_their_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    scores, labels = rng.normal(size=(8, 5)).astype(np.float32), np.array([0, 1, 2, 3, 4, 0, 1, 2], np.float32)
    found = collected(tmp_path, scores, labels)
    assert found.about == About(60, "tested", 5, "logit", 1), "label 4 is ignored"
    places = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]
    assert found.keys == [f"mem[{number}:{at}]" for number, at in places]
    kept = labels != 4
    np.testing.assert_array_equal(found.predicted[:, 0], scores[kept].argmax(axis=1))
    wrong = np.flatnonzero(found.predicted[:, 0] != found.labels)
    assert sorted(found.pictures) == wrong.tolist()
    for row in wrong:
        shown = cv2.imdecode(np.frombuffer(found.pictures[row], np.uint8), cv2.IMREAD_UNCHANGED)
        number, at = places[row]
        assert shown[0, 0].tolist() == ([0, 0, 0] if not 10 * number + at > 1 else [10 * number + at] * 3)


def test_what_is_kept_of_a_test_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "MOST", 3)
    monkeypatch.setattr(collecting, "WORST", 2)
    scores = np.zeros((8, 5), np.float32)
    scores[:, 3] = np.arange(8)
    found = collected(tmp_path, scores, np.zeros(8, np.float32))
    assert (len(found.labels), found.about.left_out) == (4, 4)
    assert sorted(found.pictures) == [2, 3], "those with the greatest loss"
