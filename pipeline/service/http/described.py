"""What the application's document says beside what FastAPI knows: our problems, and what leads from an answer on."""

from __future__ import annotations

import re
from typing import Any

from pipeline.service.http.documents import ProblemDocument
from pipeline.service.http.inference import InferenceError

_ONE_ID = re.compile(r"/\{(\w+)\}(/[^{}]*)?")


def described(made: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's document with more; it is changed in place."""
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    schemas["ProblemDocument"] = ProblemDocument.model_json_schema()
    schemas["InferenceError"] = InferenceError.model_json_schema()
    for schema in schemas.values():
        _only_these_names(schema)
    for path, methods in made["paths"].items():
        for route in methods.values():
            for one in route.get("parameters", []):
                _without_null(one["schema"])
        created = methods.get("post", {}).get("responses", {}).get("201")
        if created is not None and (links := _links(made, path)):
            created["links"] = links
    return made


def allowed(made: dict[str, Any], path: str) -> str:
    """The methods of a path that was asked, as `Allow` has them; "" for a path that is none of ours."""
    for known, methods in made["paths"].items():
        if re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(known)), path):
            return ", ".join(sorted(one.upper() for one in methods))
    return ""


def _without_null(schema: dict[str, Any]) -> None:
    """A parameter may be left out, and is never null."""
    choices = [one for one in schema.get("anyOf", []) if one != {"type": "null"}]
    if len(choices) == 1:
        del schema["anyOf"]
        schema.update(choices[0])


def _only_these_names(schema: Any) -> None:
    """A name that fits no pattern is refused, which pydantic's schema leaves out; here and in all that lies within."""
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            schema.setdefault("additionalProperties", False)
        for within in schema.values():
            _only_these_names(within)
    elif isinstance(schema, list):
        for within in schema:
            _only_these_names(within)


def _links(made: dict[str, Any], path: str) -> dict[str, Any]:
    """From what was created to all that is asked of it by its id."""
    found = {}
    for other, methods in made["paths"].items():
        below = _ONE_ID.fullmatch(other.removeprefix(path)) if other.startswith(path) else None
        if below is not None:
            for route in methods.values():
                to = {"operationId": route["operationId"], "parameters": {below[1]: "$response.body#/id"}}
                found[route["operationId"]] = to
    return found
