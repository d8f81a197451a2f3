"""The full-size nets' .caffemodel files, made from seeds into a cache folder that is no part of the project."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.golden import detgen

HERE = Path(__file__).parent
META = json.loads((HERE / "nets" / "meta.json").read_text())
SEED = 20260719

Blob = tuple[tuple[int, ...], NDArray[np.float32]]


def cache() -> Path:
    """HATHI_TEST_CACHE, or a folder under the user's cache."""
    return Path(os.environ.get("HATHI_TEST_CACHE") or Path.home() / ".cache" / "hathi-tests")


def prototxt(name: str) -> Path:
    return HERE / "nets" / f"{name}.prototxt"


def weights(name: str) -> Path:
    """The .caffemodel of `name`, made when it is not in the cache; its SHA-256 over all values is checked then."""
    path = cache() / f"{name}-{META[name]['weights_sha256'][:12]}.caffemodel"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            for layer, kind, blobs in _layers(name):
                for _, values in blobs:
                    digest.update(values.tobytes())
                file.write(message(layer, kind, blobs))
        assert digest.hexdigest() == META[name]["weights_sha256"], "numpy draws other numbers than it did"
        os.replace(file.name, path)
    return path


def images(name: str, count: int = 4) -> NDArray[np.float32]:
    """What the golden pass was fed: (count, 3, size, size) float32."""
    size = META[name]["blobs"]["data"][-1]
    return detgen.feed(detgen.images(META[name]["image_seed"], 4, size)[:count])


def golden(name: str) -> dict[str, NDArray[np.float32]]:
    with np.load(HERE / "nets" / f"{name}.npz") as file:
        return {key.replace("|", "/"): file[key] for key in file.files}


def _layers(name: str) -> Iterator[tuple[str, str, list[Blob]]]:
    from pipeline.nets import load
    from pipeline.nets.caffe_net import CaffeNet

    net = load(prototxt(name))
    assert isinstance(net, CaffeNet)
    shapes: dict[int, list[tuple[int, ...]]] = {}
    for slot, shape in net.parameters.shapes.items():
        shapes.setdefault(slot.step, []).append(shape)
    for step, blobs in shapes.items():
        layer = net.plan.steps[step].layer
        scale = 1 / 64.0 if name == "resnet50" and layer.name == "conv1" else 1.0
        yield (
            layer.name,
            layer.spec.type,
            [
                (shape, detgen.fill(SEED, layer.spec.type, layer.name, index, shape, scale))
                for index, shape in enumerate(blobs)
            ],
        )


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def message(layer: str, kind: str, blobs: list[Blob]) -> bytes:
    """One `layer` field of a NetParameter, as Caffe writes it."""
    content = [field(1, layer.encode()), field(2, kind.encode())]
    for shape, values in blobs:
        dims = b"".join(varint(size) for size in shape)
        content.append(field(7, field(7, field(1, dims)) + field(5, values.astype("<f4").tobytes())))
    return field(100, b"".join(content))
