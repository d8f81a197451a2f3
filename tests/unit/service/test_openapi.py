"""The committed document is what the application says; a change that breaks a client is named.

`python -m tests.unit.service.test_openapi` writes it anew, with the types of the client and docs/api.md.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.service.words import Role
from tests.servers.databases import needs_the_extra
from tests.unit.service import api_page, remote_documents

COMMITTED = Path(__file__).parents[3] / "pipeline/service/http/openapi.json"
Document = dict[str, Any]


def made() -> Document:
    needs_the_extra()
    from pipeline.service.http.app import make_app

    return json.loads(json.dumps(make_app(None).openapi()))  # type: ignore[arg-type]


def least() -> dict[tuple[str, str], str]:
    """Who may ask each route, by (method, path): as what its function depends on says."""
    from fastapi.routing import APIRoute

    from pipeline.service.http.app import make_app

    routes = [route for route in make_app(None).routes if isinstance(route, APIRoute)]  # type: ignore[arg-type]
    return {(method, route.path): _who(route.dependant) for route in routes for method in route.methods}


def _who(dependant: Any) -> str:
    """Of all that a function depends on, what asks most."""
    from pipeline.service.http import asking, basic

    calls = set(_calls(dependant))
    made = [(getattr(one, "__qualname__", ""), getattr(one, "__closure__", None)) for one in calls]
    if any(name.startswith(asking.of_platform.__name__) for name, _ in made):
        return "an operator of the installation"
    for name, cells in made:
        if name.startswith(asking.at_least.__name__):
            role = next(cell.cell_contents for cell in cells if isinstance(cell.cell_contents, Role))
            return f"{role.value}"
    return "viewer" if calls & {asking.viewer, basic.asker} else "anybody, without a token"


def _calls(dependant: Any) -> Iterator[Any]:
    for one in dependant.dependencies:
        yield one.call
        yield from _calls(one)


def breaking(old: Document, new: Document) -> Iterator[str]:
    """What a client of the old document meets in the new one: removed or narrowed."""
    for path, methods in old["paths"].items():
        for method, route in methods.items():
            where = f"{method.upper()} {path}"
            now = new["paths"].get(path, {}).get(method)
            if now is None:
                yield f"{where} is gone"
                continue
            before = {(one["in"], one["name"]) for one in route.get("parameters", [])}
            for one in now.get("parameters", []):
                if one.get("required") and (one["in"], one["name"]) not in before:
                    yield f"{where} wants {one['name']}"
            for code in route["responses"]:
                if code.startswith("2") and code not in now["responses"]:
                    yield f"{where} does not answer {code} any more"
    given = {ref for route in _routes(old) for ref in _refs(old, route.get("requestBody", {}))}
    told = {ref for route in _routes(old) for ref in _refs(old, route["responses"])}
    for name, schema in old["components"]["schemas"].items():
        now = new["components"]["schemas"].get(name)
        if now is None:
            yield f"{name} is gone"
            continue
        for one in schema.get("properties", {}):
            if one not in now.get("properties", {}):
                yield f"{name}.{one} is gone"
            elif _type(schema["properties"][one]) != _type(now["properties"][one]):
                yield f"{name}.{one} has another type"
        if name in given:
            yield from (f"{name} wants {one}" for one in set(now.get("required", [])) - set(schema.get("required", [])))
        if name in told:
            lost = set(schema.get("required", [])) - set(now.get("required", []))
            yield from (f"{name}.{one} may be missing" for one in lost)
        if name in given:
            yield from (f"{name} takes no {one}" for one in set(schema.get("enum", [])) - set(now.get("enum", [])))


def _routes(document: Document) -> Iterator[Document]:
    for methods in document["paths"].values():
        yield from methods.values()


def _refs(document: Document, of: Any) -> set[str]:
    found: set[str] = set()
    text = json.dumps(of)
    for name, schema in document["components"]["schemas"].items():
        if f'/{name}"' in text:
            found |= {name} | (_refs(document, schema) if f'/{name}"' not in json.dumps(schema) else set())
    return found


def _type(schema: Document) -> str:
    return json.dumps(
        [schema.get("type"), schema.get("$ref"), schema.get("anyOf"), schema.get("items")], sort_keys=True
    )


def test_the_committed_document_is_what_the_application_says() -> None:
    old, new = json.loads(COMMITTED.read_text()), made()
    assert list(breaking(old, new)) == []
    assert old == new, "write it anew: python -m tests.unit.service.test_openapi"
    assert new["openapi"].startswith("3.1")


def test_the_page_of_the_api_is_what_the_document_says() -> None:
    needs_the_extra()
    text = api_page.text(json.loads(COMMITTED.read_text()), least())
    assert api_page.FILE.read_text() == text, "write it anew: python -m tests.unit.service.test_openapi"


def _within(schema: Any) -> Iterator[Document]:
    """A schema and all that lie in it."""
    if isinstance(schema, dict):
        yield schema
    for one in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else []:
        yield from _within(one)


def test_nothing_that_a_route_asks_for_goes_through_another_thread() -> None:
    """FastAPI sends what is no coroutine to its pool of threads, which costs more than the rest of a route."""
    needs_the_extra()
    from fastapi.routing import APIRoute

    from pipeline.service.http.app import make_app

    routes = [route for route in make_app(None).routes if isinstance(route, APIRoute)]  # type: ignore[arg-type]
    asked = [one for route in routes for one in (route.endpoint, *_calls(route.dependant))]
    ran = {one if inspect.isfunction(one) else type(one).__call__ for one in asked}
    assert len(routes) > 90
    assert {one.__qualname__ for one in ran if not inspect.iscoroutinefunction(one)} == set()


def _error_of(said: Document) -> str:
    """The Open Inference Protocol has errors of its own."""
    protocol = "InferenceError" in json.dumps(said)
    return "application/json" if protocol else "application/problem+json"


def test_each_body_refuses_what_it_does_not_know_and_each_answer_says_what_it_holds() -> None:
    document = json.loads(COMMITTED.read_text())
    for route in _routes(document):
        for name in _refs(document, route.get("requestBody", {})):
            schema = document["components"]["schemas"][name]
            assert "enum" in schema or schema["additionalProperties"] is False, name
            named = [one for one in _within(schema) if "patternProperties" in one]
            assert all(one["additionalProperties"] is False for one in named), f"{name} takes names that fit no pattern"
        assert any(code.startswith("2") for code in route["responses"])
        for code, said in route["responses"].items():
            assert code == "304" or code.startswith("2") or _error_of(said) in said["content"]


def test_what_a_post_creates_leads_to_all_that_is_asked_of_it_and_no_parameter_is_null() -> None:
    document = json.loads(COMMITTED.read_text())
    known = {route["operationId"] for route in _routes(document)}
    links = document["paths"]["/v1/training-jobs"]["post"]["responses"]["201"]["links"]
    assert len(links) >= 8
    assert {one["operationId"] for one in links.values()} <= known
    assert all(one["parameters"] == {"job": "$response.body#/id"} for one in links.values())
    given = [one for route in _routes(document) for one in route.get("parameters", [])]
    assert [one["name"] for one in given if "null" in json.dumps(one["schema"])] == []


CHANGES: dict[str, Callable[[Document], object]] = {
    "DELETE /v1/solvers/{solver} is gone": lambda it: it["paths"]["/v1/solvers/{solver}"].pop("delete"),
    "GET /healthz is gone": lambda it: it["paths"].pop("/healthz"),
    "POST /v1/solvers does not answer 201 any more": lambda it: (
        it["paths"]["/v1/solvers"]["post"]["responses"].pop("201")
    ),
    "Job.state is gone": lambda it: it["components"]["schemas"]["Job"]["properties"].pop("state"),
    "Job.priority may be missing": lambda it: it["components"]["schemas"]["Job"]["required"].remove("priority"),
    "JobGiven wants seed": lambda it: it["components"]["schemas"]["JobGiven"]["required"].append("seed"),
    "Role takes no viewer": lambda it: it["components"]["schemas"]["Role"]["enum"].remove("viewer"),
    "Me.tenant has another type": lambda it: (
        it["components"]["schemas"]["Me"]["properties"]["tenant"].update(type="integer")
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_a_breaking_change_is_named(change: str) -> None:
    old = json.loads(COMMITTED.read_text())
    new = copy.deepcopy(old)
    CHANGES[change](new)
    assert list(breaking(old, new)) == [change]


if __name__ == "__main__":
    COMMITTED.write_text(json.dumps(made(), indent=1, sort_keys=True) + "\n")
    committed = json.loads(COMMITTED.read_text())
    remote_documents.FILE.write_text(remote_documents.text(committed))
    api_page.FILE.write_text(api_page.text(committed, least()))
