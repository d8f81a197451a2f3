"""Writes `pipeline/remote/documents.py`: what the client reads, out of the API's document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[3] / "pipeline/remote/documents.py"
READ = (
    "Me", "Datafile", "Dataset", "Solver", "Job", "JobSeen", "Snapshot", "Model", "Version", "Alias", "Classifier",
    "Classified", "PromotionSeen", "Promotion",
)  # fmt: skip
_PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_HEAD = '''"""What the service answers, as types; out of pipeline/service/http/openapi.json.

`python -m tests.unit.service.test_openapi` writes this file anew.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

'''


def text(document: dict[str, Any]) -> str:
    """The module's whole text."""
    schemas = document["components"]["schemas"]
    wanted: dict[str, None] = {}

    def take(name: str) -> None:
        for other in _named(schemas[name]):
            take(other)
        wanted.setdefault(name)

    for name in READ:
        take(name)
    return _HEAD + "\n\n\n".join("\n".join(_lines(name, schemas[name])) for name in wanted) + "\n"


def _named(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].rpartition("/")[2]
        for value in schema.values():
            yield from _named(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _named(value)


def _lines(name: str, schema: dict[str, Any]) -> Iterator[str]:
    if "enum" in schema:
        yield f"{name} = Literal[{', '.join(repr(one) for one in schema['enum'])}]".replace("'", '"')
        return
    yield f"class {name}(TypedDict):"
    for field, one in schema["properties"].items():
        always = field in schema.get("required", ())
        yield f"    {field}: {_type(one) if always else f'NotRequired[{_type(one)}]'}"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " | ".join(_type(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list[{_type(schema['items'])}]" if "items" in schema else "list[Any]"
    if schema.get("type") == "object":
        more = schema.get("additionalProperties")
        return f"dict[str, {_type(more)}]" if isinstance(more, dict) and more else "dict[str, Any]"
    return _PLAIN.get(schema.get("type", ""), "Any")
