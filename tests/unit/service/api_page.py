"""Writes docs/api.md: each route of the API, who may ask it, what it takes and answers, and a line for curl."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[3] / "docs/api.md"
NAMES = {
    "df": "DATAFILE", "ds": "DATASET", "so": "SOLVER", "tj": "JOB", "mo": "MODEL", "cl": "CLASSIFIER",
    "cj": "PICTURES_JOB", "pr": "PROMOTION", "tk": "TOKEN_ID", "us": "USER", "te": "TENANT",
}  # fmt: skip
"""Variables of the lines, by the two letters of an id."""
PLAIN = {"iteration": "10", "name": "net.caffemodel", "number": "1", "alias": "best"}
"""Parts of a path that are no ids."""
ELASTIC = "ElasticThought"
HOST = "https://shop.invalid"
"""Of files that the service fetches."""
_SIZE = "$(stat -c %s spots.zip)"
_HEAD = """# The API

Written out of `pipeline/service/http/openapi.json`, which a server answers at `/openapi.json`, by
`python -m tests.unit.service.test_openapi`; a test types each line against a server. [service.md](service.md) says
what things mean, how they follow from each other, and what clients can rely on.

In the lines `$API` is the address, as `https://hathi.example`, `$TOKEN` a token; other capitals are ids.

```sh
ask() { curl -sS -H "Authorization: Bearer $TOKEN" "$@"; }
```

- **May ask** is the least role: viewer, member, operator, admin; each may do what those before it may.
- **Takes**: a star marks what has to be given; `If-Match: *` means whichever version is there.
- **Answers**: what is good, and the refusals that are the route's own (`application/problem+json`, with a hint); 400,
  401, 403, 413, 422, 429, 500 and 503 can come from every route. What an answer holds stands at the end of its part.
- A list takes `cursor` (the `next` of the page before) and `limit`.
"""
BODIES: dict[str, dict[str, Any]] = {
    "POST /v1/datafiles": {"name": "spots.zip", "size": _SIZE},
    "POST /v1/datasets": {"name": "spots", "datafile_id": "$DATAFILE", "split": {"train": 80, "test": 20}},
    "POST /v1/training-jobs": {"name": "spots", "solver_id": "$SOLVER", "inputs": {"train": "$DATAFILE"}},
    "POST /v1/training-jobs/{job}/resume": {"max_iter": 40},
    "POST /v1/training-jobs/{job}/clone": {"seed": 2},
    "POST /v1/models": {"name": "hats"},
    "POST /v1/classifiers": {"name": "hats", "training_job_id": "$JOB", "labels": ["cat", "dog"]},
    "POST /v1/classification-jobs": {"name": "hats", "classifier_id": "$CLASSIFIER", "urls": [f"{HOST}/picture.png"]},
    "POST /v1/promotions": {"feature_set": "b", "model_id": "$MODEL", "alias": "best", "why": "better"},
    "POST /v1/tokens": {"name": "of a script", "role": "viewer", "days": 30},
    "POST /v1/tenants": {"name": "blue"},
    "POST /v1/users": {"name": "bob"},
    "POST /v1/tenants/{tenant}/members": {"user_id": "$USER", "role": "member"},
    "POST /v2/models/{model}/infer": {
        "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["$(base64 -w0 picture.png)"]}]
    },
    "PATCH /v1/training-jobs/{job}": {"priority": 5},
    "PATCH /v1/tenants/{tenant}": {"weight": 2},
    "PATCH /v1/members/{user}": {"role": "viewer"},
    "PUT /v1/me/password": {"current": "a password", "new": "a new password"},
    "POST /datafiles": {"url": f"{HOST}/spots.tar.gz"},
    "POST /datasets": {
        "training": {"datafile-id": "$DATAFILE", "split-percentage": 0.7},
        "testing": {"datafile-id": "$DATAFILE", "split-percentage": 0.3},
    },
    "POST /solvers": {
        "dataset-id": "$DATASET", "specification-url": f"{HOST}/solver.prototxt",
        "specification-net-url": f"{HOST}/net.prototxt",
    },
    "POST /training-jobs": {"solver-id": "$SOLVER"},
    "POST /classifiers": {"training-job-id": "$JOB", "specification-url": f"{HOST}/deploy.prototxt"},
    "POST /users": {"username": "foo", "email": "foo@foo.net", "password": "a password"},
}  # fmt: skip
"""Where the smallest body that the document allows says or does nothing."""
LINES = {
    "GET /healthz": 'curl -sS "$API/healthz"',
    "GET /readyz": 'curl -sS "$API/readyz"',
    "GET /v2": 'curl -sS "$API/v2"',
    "GET /v2/health/live": 'curl -sS "$API/v2/health/live"',
    "GET /v2/health/ready": 'curl -sS "$API/v2/health/ready"',
    "GET /v1/events": 'ask -N "$API/v1/events"',
    "GET /v1/training-jobs/{job}/events": 'ask -N "$API/v1/training-jobs/$JOB/events"',
    "GET /v1/datasets/{dataset}/files/{name}": 'ask "$API/v1/datasets/$DATASET/files/rejected.jsonl"',
    "POST /v1/session": 'curl -sS -c cookies "$API/v1/session" --json "{\\"token\\": \\"$TOKEN\\"}"',
    "DELETE /v1/session": 'curl -sS -b cookies -H "Origin: $API" -X DELETE "$API/v1/session"',
    "PUT /v1/datafiles/{datafile}/content": 'ask -T spots.zip "$API/v1/datafiles/$DATAFILE/content"',
    "POST /v1/solvers": (
        'python3 -c \'import json; print(json.dumps({"name": "spots", "solver": open("solver.prototxt").read(),\n'
        '    "net": open("net.prototxt").read()}))\' | ask --json @- "$API/v1/solvers"'
    ),
}
"""Of routes whose line nobody can make out of the document."""
_EVERYWHERE = {"400", "401", "403", "413", "422", "429", "500", "503"}
_PAGED = {"cursor", "limit"}
Document = dict[str, Any]


def text(document: Document, least: dict[tuple[str, str], str]) -> str:
    """The page.  least: who may ask each (method, path)."""
    groups: dict[str, list[str]] = {}
    told: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            tag = route["tags"][0]
            who = least[method.upper(), path]
            groups.setdefault(tag, []).append("\n".join(_route(document, method.upper(), path, route, who)))
            told.setdefault(tag, []).extend(_names(document, route["responses"]))
    groups[ELASTIC] = groups.pop(ELASTIC)  # what stands for another API comes last
    said: set[str] = set()
    parts = []
    for tag, some in groups.items():
        new = [name for name in dict.fromkeys(told[tag]) if name not in said]
        said |= set(new)
        holds = "\n".join(f"- {name}: {_fields(document, name)}" for name in new)
        parts.append("\n\n".join([f"## {tag[0].upper()}{tag[1:]}", *some]) + (f"\n\n{holds}" if holds else ""))
    return _HEAD + "\n" + "\n\n".join(parts) + "\n"


def _route(document: Document, method: str, path: str, route: Document, who: str) -> Iterator[str]:
    yield f"### {method} {path}\n"
    yield " ".join(route["description"].split()) + "\n"
    yield f"- may ask: {who}"
    if takes := list(_takes(document, route)):
        yield f"- takes {', '.join(takes)}"
    good, refused = [], []
    for code, one in route["responses"].items():
        if code.startswith(("2", "3")):
            good.append(f"{code}{_shape(one.get('content', {}))}")
        elif code not in _EVERYWHERE:
            refused.append(code)
    yield f"- answers {', '.join(good)}" + (f"; refuses with {', '.join(refused)}" if refused else "")
    yield f"\n```sh\n{curl(document, method, path, route)}\n```"


def _takes(document: Document, route: Document) -> Iterator[str]:
    for one in route.get("parameters", ()):
        if one["in"] != "path" and one["name"] not in _PAGED:
            yield f"`{one['name']}`" + ("\\*" if one.get("required") else "")
    for kind, one in route.get("requestBody", {}).get("content", {}).items():
        schema = one.get("schema", {})
        if kind == "application/json":
            yield " or ".join(_given(document, option) for option in schema.get("anyOf", [schema]))
        else:
            yield f"`{kind}`"


def _given(document: Document, schema: Document) -> str:
    whole = _resolved(document, schema)
    wanted = whole.get("required", ())
    return "JSON: " + ", ".join(f"`{one}`\\*" if one in wanted else f"`{one}`" for one in whole.get("properties", {}))


def _fields(document: Document, name: str) -> str:
    """Of a document that is told, with what stands in them."""
    found = []
    for one, schema in document["components"]["schemas"][name].get("properties", {}).items():
        of = sorted(_names(document, {"": schema}, deep=False))
        found.append(f"`{one}`" + (f" ({', '.join(of)})" if of else ""))
    return ", ".join(found)


def _names(document: Document, of: Any, *, deep: bool = True) -> list[str]:
    """Of the objects that an answer holds, in the order in which they are met."""
    if isinstance(of, list):
        return [name for one in of for name in _names(document, one, deep=deep)]
    if not isinstance(of, dict):
        return []
    name = of.get("$ref", "").rpartition("/")[2]
    if name:
        schema = document["components"]["schemas"][name]
        if "properties" not in schema or name in ("ProblemDocument", "InferenceError"):
            return []
        return [name, *(_names(document, schema["properties"]) if deep else [])]
    return [name for one in of.values() for name in _names(document, one, deep=deep)]


def _shape(content: Document) -> str:
    if (schema := content.get("application/json", {}).get("schema")) and "$ref" in schema:
        return f" {schema['$ref'].rpartition('/')[2]}"
    return f" {' or '.join(f'`{kind}`' for kind in content)}" if content else ""


def _resolved(document: Document, schema: Document) -> Document:
    found: Document = document["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], schema)
    return found


def curl(document: Document, method: str, path: str, route: Document) -> str:
    """The line: the smallest request that does something."""
    template = f"{method} {path}"
    if template in LINES:
        return LINES[template]
    for one in route.get("parameters", ()):
        if one["in"] == "path":
            kind = one["schema"].get("x-kind") or one.get("x-kind")
            path = path.replace("{" + one["name"] + "}", f"${NAMES[kind]}" if kind else PLAIN[one["name"]])
    content = route.get("requestBody", {}).get("content", {})
    words = ["ask"]
    if method != "GET" and not (method == "POST" and content):
        words.append(f"-X {method}")
    if "If-Match" in {one["name"] for one in route.get("parameters", ())}:
        words.append("-H 'If-Match: *'")
    words.append(f'"$API{path}"')
    if "multipart/form-data" in content:
        words.append("-F files=@picture.png")
    elif "application/json" in content:
        body = BODIES.get(template) or _value(document, content["application/json"]["schema"])
        said = json.dumps(body).replace(f'"{_SIZE}"', _SIZE)
        escaped = said.replace('"', '\\"')
        words.append(f'--json "{escaped}"' if "$" in said else f"--json '{said}'")
    return " ".join(words)


def _value(document: Document, schema: Document) -> Any:
    """A body: what has to be given."""
    schema = _resolved(document, schema)
    if "x-kind" in schema:
        return f"${NAMES[schema['x-kind']]}"
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return _value(document, schema["anyOf"][0])
    kind = schema.get("type")
    if kind == "array":
        return [_value(document, schema["items"])]
    if kind == "object":
        return {name: _value(document, one) for name, one in schema.get("properties", {}).items()
                if name in schema.get("required", ())}  # fmt: skip
    usual = {"string": "name", "integer": int(schema.get("minimum", 1)), "number": 1.0, "boolean": True}
    return usual[kind or "string"]
