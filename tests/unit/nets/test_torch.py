"""The torch engine: Caffe's numbers, half precision by choice, fit for a GPU.  scripts/torch.sh installs torch."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None:
    if os.environ.get("HATHI_DEMAND_SERVERS") == "1":
        pytest.fail("torch is not installed: run scripts/torch.sh", pytrace=False)
    pytest.skip("LEFT OUT: torch is not installed: scripts/torch.sh", allow_module_level=True)

import torch

from pipeline import nets
from pipeline.errors import NetError
from pipeline.nets import engines
from pipeline.nets.caffe_net import CaffeNet
from pipeline.nets.engines.torch_engine import Torch, exact
from pipeline.nets.engines.torch_operations import OPERATIONS
from pipeline.nets.engines.torch_program import Program, read_as_numbers
from pipeline.nets.graph.lowered import Lowered
from tests.unit.nets.test_golden import CASES, TOLERANCE, case, distance


@pytest.mark.parametrize("name", CASES)
def test_every_blob_of_a_tiny_net_is_caffes(name: str) -> None:
    prototxt, weights, feeds, blobs = case(name)
    got = nets.load(prototxt, weights, engine="torch").forward(feeds, list(blobs))
    far = {blob: distance(got[blob], blobs[blob]) for blob in blobs}
    assert {blob: d for blob, d in far.items() if d > TOLERANCE} == {}


@pytest.mark.parametrize(
    ("name", "blob"), [("mini_resnet", "pool5"), ("mini_alexnet", "fc7"), ("mini_googlenet", "prob")]
)
def test_bf16_is_near_and_only_by_choice(name: str, blob: str) -> None:
    prototxt, weights, feeds, blobs = case(name)
    net = nets.load(prototxt, weights, engine="torch", precision="bf16")
    far = distance(net.forward(feeds, [blob])[blob], blobs[blob])
    assert TOLERANCE < far < 3e-2
    assert net.engine.precision == "bf16"


def _graph(name: str) -> Lowered:
    prototxt, weights, feeds, blobs = case(name)
    net = nets.load(prototxt, weights)
    assert isinstance(net, CaffeNet)
    whole = [blob for blob in blobs if not any(step.layer.spec.type == "Filter" for step in net.plan.steps)]
    return net.lower(whole or ["brx"], {name: values.shape for name, values in feeds.items()})


@pytest.mark.parametrize("name", [name for name in CASES if name != "index"])  # a Filter's shapes come from its data
def test_a_gpu_can_record_every_net(name: str) -> None:
    """On a device that has no data: a value that is read back, or left in the host's memory, raises here as there."""
    graph = _graph(name)
    numbers = read_as_numbers(graph)
    for operation in graph.operations:
        assert operation.inputs[0] not in numbers
    program = Program(graph, torch.device("meta"), torch.float16)
    with torch.inference_mode():
        found = program({name: torch.zeros(shape, device="meta") for name, shape in graph.inputs.items()})
    assert {blob: tuple(value.shape) for blob, value in found.items()} == {
        blob: value.shape for blob, value in graph.outputs.items()
    }
    assert {(value.device.type, value.dtype) for value in found.values()} <= {("meta", torch.float32)}


def test_images_and_filters_have_their_channels_last() -> None:
    graph = _graph("mini_resnet")
    program = Program(graph, torch.device("cpu"), torch.float32)
    laid = [value for value in program._constants.values() if isinstance(value, torch.Tensor) and value.ndim == 4]
    assert laid
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in laid)
    (name,) = program.inputs
    image = program._fed(torch.zeros(graph.inputs[name]))
    assert image.is_contiguous(memory_format=torch.channels_last)


def test_tf32_is_off_whatever_the_process_has_set_and_comes_back() -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        for said in (True, False):
            matmul.allow_tf32 = cudnn.allow_tf32 = said
            for chosen in (False, True):
                with exact(chosen):
                    assert (matmul.allow_tf32, cudnn.allow_tf32) == (chosen, chosen)
                assert (matmul.allow_tf32, cudnn.allow_tf32) == (said, said)
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
    assert not Torch("fp32", 0, "asked for").tf32


def test_every_operation_that_a_layer_lowers_to_is_known() -> None:
    room = Path(nets.__file__).parent
    texts = [path.read_text() for path in [*(room / "layers").glob("*.py"), *(room / "graph").glob("*.py")]]
    kinds = {
        kind for text in texts for kind in re.findall(r'(?:graph|self|many|_binary|pointwise)\(\s*"([A-Z]\w+)"', text)
    }
    assert {"Conv", "Transpose", "TopK", "Add"} <= kinds
    assert kinds - OPERATIONS.keys() == set()


def test_what_needs_a_card_is_refused_without_one() -> None:
    assert engines.choose("torch").info.version.endswith(" on CPU") or torch.cuda.is_available()
    if torch.cuda.is_available():
        assert engines.choose("torch", "fp16").info.precision == "fp16"
        return
    for precision in ("fp16", "tf32"):
        with pytest.raises(NetError, match=f"precision {precision} is not available"):
            engines.choose("torch", precision)


def test_a_models_operations_are_not_its_to_run(tmp_path: object) -> None:
    with pytest.raises(NetError, match="runs Caffe nets only"):
        nets.load("model.onnx", engine="torch")


def test_a_row_has_the_same_bits_in_each_pass() -> None:
    prototxt, weights, feeds, _ = case("mini_googlenet")
    net = nets.load(prototxt, weights, engine="torch", precision="bf16")
    first, again = (net.forward(feeds, ["prob"])["prob"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
