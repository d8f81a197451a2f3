"""/v2: the Open Inference Protocol, a second face of the same classifiers, for clients that speak it already.

A model is a classifier, by its id or its name.  It takes encoded pictures (`image`, BYTES) or the numbers of the net's
own input (FP32), and answers with one output: all values, or with `classification` the greatest as
`<value>:<index>:<label>`.  Tensors travel in the JSON or, as an extension of the protocol, as bytes behind it.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field

from pipeline.records import Failure
from pipeline.service.classifying import Classifier
from pipeline.service.http.asking import Behind, Member, Service, Viewer
from pipeline.service.http.classifying import MOST, refused
from pipeline.service.http.documents import Told
from pipeline.service.http.meaning import meant
from pipeline.service.ids import Kind
from pipeline.service.problems import TITLES, Problem, Refused
from pipeline.service.serving.parent import Busy, CannotServe, Lost, Row
from pipeline.service.words import PLATFORM

router = APIRouter(prefix="/v2", tags=["inference"])
IMAGE = "image"
LENGTH = "inference-header-content-length"
MOST_NUMBERS = 16 * 2**20
"""Of all rows of one request."""
VERSION = "1"
ModelName = Annotated[
    str, Path(min_length=1, max_length=200, json_schema_extra={"x-kind": str(Kind.CLASSIFIER)},
              description="A classifier: its id, or its name")
]  # fmt: skip


class InferenceError(Told):
    error: str


class Live(Told):
    live: bool


class Ready(Told):
    ready: bool


class ServerMetadata(Told):
    name: str
    version: str
    extensions: list[str]


class Tensor(Told):
    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Told):
    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class ModelReady(Told):
    name: str
    ready: bool


class Output(Tensor):
    data: Annotated[list[float] | list[str] | None, Field(description="Absent where it travels as bytes")]


class Inferred(Told):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[Output]


def errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The errors that a route of the protocol may answer."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/InferenceError"}}}
    every = {400, 401, 403, 413, 422, 429, 500, 503, *codes}
    return {code: {"description": TITLES[code], "content": content} for code in sorted(every)}


def wrong(detail: str) -> Refused:
    """A request that the protocol or the model does not take."""
    return Refused(Problem(400, detail))


async def live() -> Live:
    """This process answers."""
    return Live(live=True)


async def ready(service: Service) -> Ready:
    """The database answers, too."""
    async with service.database.reading(PLATFORM) as statements:
        await statements.row("select 1 as one")
    return Ready(ready=True)


async def server() -> ServerMetadata:
    """What speaks here."""
    return ServerMetadata(name="hathi", version=VERSION, extensions=["classification", "binary_tensor_data"])


async def model(service: Service, actor: Viewer, model: ModelName) -> ModelMetadata:
    """What it takes and gives; -1: any number of rows."""
    found = await meant(service, actor, model)
    facts = found.facts
    inputs = [Tensor(name=facts["input"], datatype="FP32", shape=[-1, *facts["shape"]])]
    if found.takes_pictures:
        inputs.insert(0, Tensor(name=IMAGE, datatype="BYTES", shape=[-1]))
    outputs = [Tensor(name=_output(found), datatype="FP32", shape=[-1, facts["classes"]])]
    return ModelMetadata(name=model, versions=[VERSION], platform="hathi_caffe", inputs=inputs, outputs=outputs)


async def model_ready(service: Service, actor: Viewer, model: ModelName) -> ModelReady:
    """It is there; its net is loaded by the first request."""
    await meant(service, actor, model)
    return ModelReady(name=model, ready=True)


def _output(classifier: Classifier) -> str:
    return "probabilities" if classifier.facts["probabilities"] else "scores"


@dataclass(frozen=True)
class _Asked:
    """items: pictures, or rows of float32.  classes: how many of the greatest are told, 0: all values as numbers."""

    id: str | None
    items: list[bytes]
    numbers: bool
    classes: int
    binary: bool


async def infer(request: Request, service: Service, actor: Member, model: ModelName) -> Response:
    """The values of each row.  A broken picture is the error of the whole request: the protocol has no other."""
    found = await meant(service, actor, model)
    asked = _read(request.headers.get(LENGTH), await request.body(), found)
    rows = await _rows(service, found, asked)
    return _answer(model, found, asked, rows)


async def _rows(service: Behind, found: Classifier, asked: _Asked) -> list[Row]:
    try:
        answers = await service.serving.answer(found.model, asked.items, numbers=asked.numbers)
    except (Busy, Lost, CannotServe) as error:
        raise refused(error) from error
    rows = []
    for at, one in enumerate(answers):
        if isinstance(one, Failure):
            raise wrong(f"row {at}: {one.reason}" + f": {one.detail}" * bool(one.detail))
        rows.append(one)
    return rows


def _read(length: str | None, body: bytes, found: Classifier) -> _Asked:
    """Raises Refused for what the protocol or this model does not take."""
    head, rest = _split(length, body)
    try:
        said = json.loads(head)
        inputs, outputs = said["inputs"], said.get("outputs", [])
        if len(inputs) != 1 or len(outputs) > 1:
            raise wrong(f"this model takes one input and gives one output, {_output(found)}")
        parameters = said.get("parameters", {})
        wanted: dict[str, Any] = outputs[0] if outputs else {"name": _output(found)}
        if wanted["name"] != _output(found):
            raise wrong(f"the output is called {_output(found)}")
        how = wanted.get("parameters", {})
        classes = int(how.get("classification", 0))
        binary = bool(how.get("binary_data", parameters.get("binary_data_output", False)))
        items, numbers = _items(inputs[0], rest, found)
        name = said.get("id")
        if classes < 0 or not (name is None or isinstance(name, str)):
            raise wrong("classification is a number of classes, and id a text")
        return _Asked(name, items, numbers, min(classes, found.facts["classes"]), binary)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error) as error:
        says = f"{type(error).__name__}: {error}"[:200]
        raise wrong(f"the request is none of the protocol ({says})") from error


def _split(length: str | None, body: bytes) -> tuple[bytes, bytes]:
    """The JSON, and the bytes behind it."""
    if length is None:
        return body, b""
    if not (length.isascii() and length.isdigit() and len(length) < 12) or int(length) > len(body):
        raise wrong("Inference-Header-Content-Length does not fit the body")
    return body[: int(length)], body[int(length) :]


def _items(tensor: Mapping[str, Any], rest: bytes, found: Classifier) -> tuple[list[bytes], bool]:
    """The rows of an input, and whether they are numbers."""
    shape = [int(one) for one in tensor["shape"]]
    size = tensor.get("parameters", {}).get("binary_data_size")
    if size is not None and size != len(rest):
        raise wrong(f"the input has {size} bytes behind the JSON, and {len(rest)} came")
    given = (tensor["name"], tensor["datatype"])
    if min(shape, default=0) < 1 or shape[0] > MOST:
        raise wrong(f"a request has from 1 to {MOST} rows")
    if given == (IMAGE, "BYTES") and found.takes_pictures:
        if math.prod(shape) != shape[0]:
            raise wrong(f"{IMAGE} has the shape [rows] or [rows, 1]")
        items = _bytes(rest) if size is not None else [_decoded(one) for one in tensor["data"]]
    elif given == (found.facts["input"], "FP32"):
        if shape[1:] != found.facts["shape"]:
            raise wrong(f"{given[0]} has the shape [rows, {', '.join(map(str, found.facts['shape']))}]")
        row = 4 * math.prod(shape[1:])
        content = rest if size is not None else _packed(tensor["data"], math.prod(shape))
        if len(content) != row * shape[0]:
            raise wrong(f"{given[0]} has {len(content)} bytes, and its shape {row * shape[0]}")
        return [content[at : at + row] for at in range(0, len(content), row)], True
    else:
        takes = f"{IMAGE} (BYTES) or " * found.takes_pictures + f"{found.facts['input']} (FP32)"
        raise wrong(f"this model takes {takes}")
    if len(items) != shape[0]:
        raise wrong(f"{IMAGE} has {len(items)} elements, and its shape {shape[0]}")
    return items, False


def _bytes(content: bytes) -> list[bytes]:
    """Elements of a BYTES tensor: each behind its length, 4 bytes, the smallest first."""
    found, at = [], 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "little")
        if at + 4 + size > len(content):
            raise wrong("an element is longer than what came")
        found.append(content[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise wrong(f"an element of {IMAGE} in the JSON is base64") from error


def _packed(data: Sequence[Any], count: int) -> bytes:
    """Numbers, nested or flat, as float32."""
    if count > MOST_NUMBERS:
        raise wrong(f"a request has at most {MOST_NUMBERS} numbers")
    flat: list[Any] = list(data)
    while flat and isinstance(flat[0], list):
        flat = [one for some in flat for one in some]
    if len(flat) != count:
        raise wrong(f"there are {len(flat)} numbers, and the shape has {count}")
    return struct.pack(f"<{count}f", *flat)


def _answer(model: str, found: Classifier, asked: _Asked, rows: Sequence[Row]) -> Response:
    count = len(rows)
    data: list[Any]
    if asked.classes:
        told = [found.predictions(row, asked.classes) for row in rows]
        data = [f"{one.score:.9g}:{one.index}:{one.label}" for some in told for one in some]
        shape, datatype = [count, asked.classes], "BYTES"
    else:
        data = [value for row in rows for value in row.tolist()]
        shape, datatype = [count, found.facts["classes"]], "FP32"
    output: dict[str, Any] = {"name": _output(found), "datatype": datatype, "shape": shape}
    body = {"model_name": model, "model_version": VERSION, "outputs": [output]}
    if asked.id is not None:
        body["id"] = asked.id
    if not asked.binary:
        output["data"] = data
        return Response(json.dumps(body), media_type="application/json")
    if datatype == "FP32":
        content = struct.pack(f"<{len(data)}f", *data)
    else:
        content = b"".join(struct.pack("<I", len(one)) + one for one in (text.encode() for text in data))
    output["parameters"] = {"binary_data_size": len(content)}
    head = json.dumps(body).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return Response(head + content, headers=headers, media_type="application/octet-stream")


_INPUT = {
    "type": "object", "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"}, "shape": {"type": "array", "items": {"type": "integer"}},
        "datatype": {"enum": ["BYTES", "FP32"]}, "data": {"type": "array"}, "parameters": {"type": "object"},
    },
}  # fmt: skip
_OUTPUT = {
    "type": "object", "required": ["name"],
    "properties": {"name": {"type": "string"}, "parameters": {"type": "object"}},
}  # fmt: skip
_BODY = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        "application/json": {"schema": {
            "type": "object", "required": ["inputs"],
            "properties": {
                "parameters": {"type": "object"},
                "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": _INPUT},
                "outputs": {"type": "array", "maxItems": 1, "items": _OUTPUT},
            },
        }},
    },
}  # fmt: skip


def _get(path: str, route: Any, told: type[Told], *codes: int) -> None:
    router.add_api_route(path, route, methods=["GET"], response_model=told, responses=errors(*codes))


_get("", server, ServerMetadata)
_get("/health/live", live, Live)
_get("/health/ready", ready, Ready)
_get("/models/{model}", model, ModelMetadata, 404, 409)
_get("/models/{model}/ready", model_ready, ModelReady, 404, 409)
router.add_api_route(
    "/models/{model}/infer", infer, methods=["POST"], response_model=Inferred, responses=errors(404, 409),
    openapi_extra={"requestBody": _BODY},
)  # fmt: skip
