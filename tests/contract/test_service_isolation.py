"""The wall between tenants as the API has it: a matrix over every route, method, actor and id of the OpenAPI document.

Whatever B asks about A's things is answered byte for byte as if they had never been, and nothing of A's changes.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from pipeline.clock import Clock
from pipeline.service import cursors, tenants
from pipeline.service.database.statements import Database
from pipeline.service.database.wall import DOORS
from pipeline.service.ids import Kind, new_id
from pipeline.service.keys import TenantKeys
from pipeline.service.words import WORKER, Actor, Role
from tests.servers.databases import KINDS, empty, sites_of
from tests.servers.promoting import Lake
from tests.servers.service import NET, SOLVER, WEIGHTS, Person, Stand, standing

CANARY = "canary-5d1f"
OWN = ("/v1/tokens", "/v1/session", "/v1/me/password")
"""What anybody changes who is somebody: things of their own."""
PUBLIC = {"/healthz", "/readyz", "/v2", "/v2/health/live", "/v2/health/ready"}
WITHOUT_KIND = {"iteration": "10", "name": WEIGHTS, "number": "1", "alias": "best"}
"""Parameters of paths that name a part of what an id before them names."""


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("service")
    for site in sites_of(request, folder):
        lake = Lake(folder / "promoting", folder / "bucket")
        lake.write({"ayes": ["b"], "bees": ["b"]})
        with standing(site, folder, promoter=lake.promoter()) as stand:
            yield stand


@dataclass
class Scene:
    """A and what it has, by the two letters of its kind; B and what B has."""

    stand: Stand
    a: Person
    b: Person
    things: dict[str, str]
    own: dict[str, str]
    document: dict[str, Any]
    people: dict[str, Person] = field(default_factory=dict)

    def routes(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        for path, methods in self.document["paths"].items():
            for method, route in methods.items():
                yield method.upper(), path, route

    def path(self, path: str, route: dict[str, Any], ids: Callable[[str], str]) -> str:
        for one in route.get("parameters", []):
            if one["in"] == "path":
                kind = one["schema"].get("x-kind") or one.get("x-kind")
                assert kind or one["name"] in WITHOUT_KIND, f"{path}: {one['name']} says no kind"
                path = path.replace("{" + one["name"] + "}", ids(kind) if kind else WITHOUT_KIND[one["name"]])
        return path

    def schema(self, route: dict[str, Any]) -> dict[str, Any] | None:
        """Of a body of JSON."""
        content = route.get("requestBody", {}).get("content", {})
        found = content.get("application/json", {}).get("schema")
        return self.resolved(found) if found else None

    def resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in schema:
            return schema
        found: dict[str, Any] = self.document["components"]["schemas"][schema["$ref"].split("/")[-1]]
        return found

    def choices(self, route: dict[str, Any]) -> list[str]:
        """The fields of a body that may be left out and take an id; "" for the smallest body."""
        schema = self.schema(route) or {}
        wanted = schema.get("required", [])
        fields = schema.get("properties", {}).items()
        return ["", *(name for name, one in fields if name not in wanted and "x-kind" in json.dumps(self.whole(one)))]

    def whole(self, schema: Any) -> Any:
        """With all that it refers to."""
        if isinstance(schema, dict):
            return {name: self.whole(one) for name, one in self.resolved(schema).items()}
        return [self.whole(one) for one in schema] if isinstance(schema, list) else schema

    def body(self, route: dict[str, Any], ids: Callable[[str], str], also: str = "") -> Any:
        """The smallest body that the document allows, with these ids where it asks for some.  also: a field more."""
        content = route.get("requestBody", {}).get("content", {})
        if "application/octet-stream" in content:
            return b"stolen"
        schema = self.schema(route)
        if schema is None:
            return None
        found = self.value(schema, ids)
        if also:
            found[also] = self.value(schema["properties"][also], ids)
        return found

    def value(self, schema: dict[str, Any], ids: Callable[[str], str]) -> Any:
        schema = self.resolved(schema)
        if "x-kind" in schema:
            return ids(schema["x-kind"])
        if "enum" in schema:
            return schema["enum"][0]
        if "anyOf" in schema:
            return self.value(schema["anyOf"][0], ids)
        if schema.get("type") == "array":
            return [self.value(schema["items"], ids)]
        if schema.get("type") == "object":
            wanted = schema.get("required", [])
            found = {name: self.value(one, ids) for name, one in schema.get("properties", {}).items() if name in wanted}
            named = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
            if (free := next((one for one in named if isinstance(one, dict)), None)) is not None:
                found["train"] = self.value(free, ids)
            return found
        return {"string": "b", "integer": int(schema.get("minimum", 1)), "number": 1.0, "boolean": True}[schema["type"]]

    def digest(self) -> str:
        """Of A's rows and objects."""

        async def rows() -> list[Any]:
            found: list[Any] = []
            for table, doors in sorted(DOORS.items()):
                if any(door.column == "tenant_id" for door in doors.values()):
                    where = f"where tenant_id = '{self.a.tenant}'"
                    found.append(sorted(await self.stand.site.bare(f"select * from @{table} {where}"), key=str))
            for row in found[-1]:
                row.pop("used_at", None)
            return [{k: v for k, v in row.items() if k != "used_at"} for some in found for row in some]

        objects = [
            (entry.key, hashlib.sha256(self.stand.store.get(entry.key)).hexdigest())
            for entry in self.stand.store.list(TenantKeys(self.a.tenant).top)
        ]
        return json.dumps([self.stand.site.run(rows()), objects], sort_keys=True, default=str)


def furnished(stand: Stand, who: Person, mark: str, given: Mapping[str, bytes] | None = None) -> dict[str, str]:
    """What a tenant has, by the two letters of its kind, with a mark in every text.  given: a snapshot that serves."""
    solver = who.solver(f"{SOLVER} # {mark}", f"{NET} # {mark}", mark)
    datafile = who.datafile(mark.encode(), mark)
    job = who.job(mark, solver_id=solver, inputs={"train": datafile})
    stand.trained(who, job, mark, given)
    dataset = stand.dataset(who, datafile, mark)
    model = who.got("POST", "/v1/models", {"name": mark})["id"]
    version = {"training_job_id": job, "labels": [mark, "b"], "note": mark}
    assert who.got("POST", f"/v1/models/{model}/versions", version)["figures"] == {f"test/{mark}": 0.5}
    assert who.ask("PUT", f"/v1/models/{model}/aliases/best", {"version": 1}, If_None_Match="*").status_code == 201
    named = {"name": mark, "training_job_id": job, "labels": [mark, "b"]}
    classifier = who.got("POST", "/v1/classifiers", named)["id"]
    many = {"name": mark, "classifier_id": classifier, "urls": [f"https://example.invalid/{mark}"]}
    pictures = who.got("POST", "/v1/classification-jobs", many)["id"]
    asked = {"feature_set": "b", "model_id": model, "alias": "best", "why": mark}
    promotion = who.got("POST", "/v1/promotions", asked)["id"]
    who.ask("POST", "/v1/tokens", {"name": mark}, Idempotency_Key="the-same")
    token = who.got("GET", "/v1/tokens")["items"][0]["id"]
    things = {"so": solver, "df": datafile, "ds": dataset, "tj": job, "mo": model, "cl": classifier}
    things |= {"cj": pictures, "pr": promotion, "tk": token}
    return {**things, "us": who.user, "te": who.tenant}


def browser(stand: Stand, who: Person) -> Person:
    """The same person by a session's cookie, from the service's own page."""
    found = Person(stand.url, "", who.tenant, who.user)
    found.session.headers["Sec-Fetch-Site"] = "same-origin"
    found.got("POST", "/v1/session", {"token": who.token})
    return found


def scene(stand: Stand) -> Scene:
    empty(stand.site)
    a, b = stand.person("ayes", "ann"), stand.person("bees", "ben")
    things = furnished(stand, a, CANARY)
    return Scene(stand, a, b, things, furnished(stand, b, "b-has"), b.got("GET", "/openapi.json"))


@dataclass
class Question:
    """One request of the matrix.  place: of the ids that the route asks for, in order, the one that is not the
    asker's own; None where it asks for none."""

    method: str
    path: str
    route: dict[str, Any]
    also: str = ""
    place: int | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}" + f" with {self.also}" * bool(self.also) + f" at {self.place}"


def kinds_of(scene: Scene, question: Question) -> list[str]:
    """The kinds of ids that a route asks for."""
    found: list[str] = []

    def noted(kind: str) -> str:
        found.append(kind)
        return scene.own[kind]

    scene.path(question.path, question.route, noted)
    scene.body(question.route, noted, question.also)
    return found


def questions(scene: Scene) -> Iterator[Question]:
    """Every route, with each id that it takes in its path and its body in turn."""
    for method, path, route in scene.routes():
        for also in scene.choices(route):
            count = len(kinds_of(scene, Question(method, path, route, also)))
            for place in range(count) if count else (None,):
                yield Question(method, path, route, also, place)


def asked(
    scene: Scene, who: Person, question: Question, foreign: Callable[[str], str], **headers: str
) -> tuple[int, str]:
    """The whole answer, with the foreign id that was asked for taken out."""
    number, taken = iter(range(100)), ""

    def ids(kind: str) -> str:
        nonlocal taken
        if next(number) != question.place:
            return scene.own[kind]
        taken = foreign(kind)
        return taken

    where = scene.path(question.path, question.route, ids)
    body = scene.body(question.route, ids, question.also)
    answer = who.ask(question.method, where, body, **{"If_Match": "*", **headers})
    text = next(answer.iter_content(None), b"").decode() if where.endswith("/events") else answer.text
    text += json.dumps(dict(answer.headers))
    answer.close()
    text = text.replace(taken, "<foreign>") if taken else text
    return answer.status_code, text.replace(answer.headers.get("date", "-"), "<date>")


def never(kind: str) -> str:
    return new_id(Kind(kind), 1.0)


def leaks(scene: Scene) -> Iterator[str]:
    """Where B learns or changes anything of A's."""
    yield from _repeated(scene)
    for question in reads(scene):  # whatever is kept for the next asker is there
        asked(replace(scene, own=scene.things), scene.a, question, never)
    before = scene.digest()
    for question in questions(scene):
        if question.path in PUBLIC:
            continue
        if question.place is not None:
            mine = asked(scene, scene.b, question, scene.things.__getitem__)
            none = asked(scene, scene.b, question, never)
            if mine != none:
                yield f"{question}: {mine} is not {none}"
            if question.method == "GET":
                tags = ", ".join(f'"{version}"' for version in range(1, 9))
                code, _ = asked(scene, scene.b, question, scene.things.__getitem__, If_None_Match=tags)
                if code != none[0]:
                    yield f"{question}: {code} by a guessed ETag"
        if question.method == "GET" and question.place in (None, 0):
            _, text = asked(scene, scene.b, replace(question, place=None), scene.own.__getitem__)
            if TenantKeys(scene.b.tenant).top in text:
                yield f"{question}: names an object of the bucket: {text[:300]}"
        for who in [scene.b, *scene.people.values()]:
            if question.path == "/v1/session" and who.session.cookies:
                continue  # it would end the only session that asks
            code, text = asked(scene, who, question, scene.things.__getitem__)
            if CANARY in text or scene.a.tenant in text:
                yield f"{question}: {code} tells of A: {text[:300]}"
            if question.place is not None and code < 400:
                yield f"{question}: {code} for what is A's"
    for method, path, _ in scene.routes():
        if "{model}" in path and path.startswith("/v2/"):  # the protocol calls a classifier by its name as well
            answers = [
                scene.b.ask(method, path.replace("{model}", name), b"" if method == "POST" else None)
                for name in (CANARY, "never-named")
            ]
            if len({(one.status_code, one.content) for one in answers}) > 1:
                yield f"{method} {path}: {answers[0].text} is not {answers[1].text}"
    if scene.digest() != before:
        yield "something of A's has changed"
    yield from _grown(scene)


def _repeated(scene: Scene) -> Iterator[str]:
    """Whether an Idempotency-Key of A means anything to B; each has things of its own afterwards."""
    for question in questions(scene):
        takes = [one["name"] for one in question.route.get("parameters", [])]
        if "Idempotency-Key" not in takes or question.also or question.place not in (None, 0):
            continue
        mine = Scene(scene.stand, scene.a, scene.a, scene.things, scene.things, scene.document)
        own, key = replace(question, place=None), f"of-{question.path}"
        first = asked(mine, scene.a, own, scene.things.__getitem__, Idempotency_Key=key)
        code, text = asked(scene, scene.b, own, scene.own.__getitem__, Idempotency_Key=key)
        if code < 300 and text == first[1]:
            yield f"{question}: A's answer by A's Idempotency-Key"
        if "/problems/idempotency" in text:
            yield f"{question}: B is told that A has used a key"


def reads(scene: Scene) -> Iterator[Question]:
    """What one reads of one's own."""
    for question in questions(scene):
        if question.method == "GET" and question.path not in PUBLIC and question.place in (None, 0):
            yield replace(question, place=None)


def _grown(scene: Scene) -> Iterator[str]:
    """Whether what B reads of its own says that A has more than before: a count, a place in the queue, a size."""
    waiting = replace(scene, own={**scene.own, "tj": scene.b.job("waits", solver_id=scene.own["so"])})

    def seen() -> dict[str, tuple[int, str]]:
        return {
            f"{one} {number}": (code, re.sub(r'"used_at":[^,}]*|"content-length": "\d+"', "", text))
            for number, mine in enumerate((scene, waiting))
            for one in reads(scene)
            for code, text in [asked(mine, scene.b, one, never)]
        }

    before = seen()
    for _ in range(2):
        scene.a.job("more", solver_id=scene.things["so"], priority=9)
    after = seen()
    yield from (
        f"{one}: {after[one]} was {before[one]} before A had more" for one in before if after[one] != before[one]
    )


def test_every_id_that_a_body_takes_says_its_kind(shared: Stand) -> None:
    """So the matrix asks for it; whatever is called an id and says no kind is found here."""
    stage = Scene(
        shared, Person(shared.url), Person(shared.url), {}, {}, Person(shared.url).got("GET", "/openapi.json")
    )
    bodies = [stage.whole(schema) for _, _, route in stage.routes() if (schema := stage.schema(route))]
    named = [field for body in bodies for field in _fields(body) if re.search(r"(^|_)ids?$", field[0])]
    assert len(named) >= 2
    assert [name for name, schema in named if "x-kind" not in json.dumps(schema)] == []


def _fields(schema: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {}).items()
        for one in schema.values():
            yield from _fields(one)
    elif isinstance(schema, list):
        for one in schema:
            yield from _fields(one)


def test_nothing_of_a_tenant_is_told_to_another_or_changed_by_it(shared: Stand) -> None:
    stage = scene(shared)
    for role in (Role.VIEWER, Role.MEMBER):
        stage.people[role] = shared.person("bees", f"b-{role}", role)
    stage.people["browser"] = browser(shared, stage.b)
    assert list(leaks(stage)) == []
    answer = stage.a.got("GET", f"/v1/training-jobs/{stage.things['tj']}/metrics")
    assert CANARY in json.dumps(answer), "A itself sees it"
    assert CANARY in stage.a.ask("GET", f"/v1/training-jobs/{stage.things['tj']}/logs").text


def test_every_route_but_health_asks_for_a_token_that_is_good_now(shared: Stand) -> None:
    stage = scene(shared)
    revoked = shared.person("bees", "revoked")
    shared.site.run(_forget(shared.site.open(), revoked))
    actor = Actor(stage.b.tenant, stage.b.user, "", Role.ADMIN)
    expired = shared.site.run(tenants.grant(shared.site.open(), actor, "old", Clock(), expires=1.0))
    over = browser(shared, stage.b)
    shared.site.run(shared.site.bare("update @sessions set expires_at = created_at"))
    gone = browser(shared, stage.b)
    assert gone.ask("DELETE", "/v1/session").status_code == 204
    ids, asked_for = stage.things.__getitem__, 0
    for method, path, route in stage.routes():
        for token in ("", "hathi_wrong", "x" * 5000, expired, revoked.token):
            who = Person(shared.url, token)
            code = who.ask(method, stage.path(path, route, ids), stage.body(route, ids), If_Match="*").status_code
            assert code == (200 if path in PUBLIC else 401), f"{method} {path} with {token[:20]!r}"
            asked_for += 1
        for who in (over, gone):
            code = who.ask(method, stage.path(path, route, ids), stage.body(route, ids), If_Match="*").status_code
            assert code == (200 if path in PUBLIC else 401), f"{method} {path} by a session that is over"
            asked_for += 1
    assert asked_for > 200


async def _forget(database: Database, who: Person) -> None:
    from pipeline.service.words import PLATFORM

    async with database.transaction(PLATFORM) as statements:
        sql = "delete from tokens where tenant_id = $1 and user_id = $2 returning id"
        assert await statements.rows(sql, who.tenant, who.user)


def test_a_viewer_changes_nothing_and_a_member_no_rights(shared: Stand) -> None:
    stage = scene(shared)
    viewer = shared.person("ayes", "vera", Role.VIEWER)
    member = shared.person("ayes", "max", Role.MEMBER)
    mine = Scene(shared, stage.a, stage.a, stage.things, stage.things, stage.document)
    before = stage.digest()
    for method, path, route in stage.routes():
        rights = "/members" in path or "/tenants" in path or path.endswith("/users")
        for who, refused in ((viewer, True), (member, rights)):
            if method == "GET" or not refused or path.startswith(OWN):
                continue
            code, _ = asked(mine, who, Question(method, path, route), stage.things.__getitem__)
            assert code == 403, f"{method} {path} by {who.user}"
    assert stage.digest() == before
    assert member.ask("POST", "/v1/tokens", {"name": "more", "role": "admin"}).status_code == 403
    assert member.ask("DELETE", f"/v1/tokens/{stage.things['tk']}").status_code == 404, "an admin's token"


def test_each_route_of_the_application_is_in_the_document(shared: Stand) -> None:
    from pipeline.service.http.app import make_app

    app = make_app(None)  # type: ignore[arg-type]
    document = app.openapi()
    there = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    hidden = {route.path for route in _flat(app.routes)} - {path for path, _ in there}
    assert hidden == {"/openapi.json"}
    assert "HTTPValidationError" not in json.dumps(document)


def _flat(routes: list[Any]) -> Iterator[Any]:
    for route in routes:
        if hasattr(route, "path"):
            yield route


HOLES = ("a forgotten scope", "403 for 404", "a cursor of another tenant", "a name in an error", "an id in a body",
         "/v2 by name", "an Idempotency-Key of all", "an ETag of another's row", "a redirect to the bucket",
         "an event's topic by the job alone", "a count without a tenant", "a cache's key without a tenant",
)  # fmt: skip


@pytest.mark.parametrize("hole", HOLES)
def test_the_matrix_finds_a_planted_hole(shared: Stand, hole: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.service.http import job_records, training_jobs
    from pipeline.service.problems import Problem, Refused, absent

    stage = scene(shared)
    if hole == "a forgotten scope":
        monkeypatch.setattr(Actor, "realm", WORKER)
    elif hole == "403 for 404":
        real = absent

        def told() -> Refused:
            return Refused(Problem(403, "not yours"))

        async def judged(service: Any, actor: Any, job: str, kind: str) -> Any:
            raise told() if job == stage.things["tj"] else real()

        monkeypatch.setattr(job_records, "chunks_of", judged)
        monkeypatch.setattr(training_jobs, "absent", lambda: told() if _asks(stage) else real())
    elif hole == "a cursor of another tenant":
        sign = cursors._sign
        stage.a.datafile(b"second")
        monkeypatch.setattr(cursors, "_sign", lambda key, tenant, of, body: sign(key, "", of, body))
        following = stage.a.got("GET", "/v1/datafiles?limit=1")["next"]
        assert stage.b.ask("GET", f"/v1/datafiles?limit=1&cursor={following}").status_code == 200
        monkeypatch.undo()
        following = stage.a.got("GET", "/v1/datafiles?limit=1")["next"]
        assert stage.b.ask("GET", f"/v1/datafiles?limit=1&cursor={following}").status_code == 422
        return
    elif hole == "/v2 by name":
        from pipeline.service.http import inference, meaning

        found = meaning.meant

        async def global_name(service: Any, actor: Actor, name: str) -> Any:
            owner = Actor(stage.a.tenant, stage.a.user, "", Role.VIEWER) if name == CANARY else actor
            return await found(service, owner, name)

        monkeypatch.setattr(inference, "meant", global_name)
    elif hole == "an id in a body":
        ready = training_jobs._ready

        async def across(statements: Any, body: Any) -> None:
            if body.inputs.get("train") != stage.things["df"]:
                await ready(statements, body)

        monkeypatch.setattr(training_jobs, "_ready", across)
    elif hole == "an Idempotency-Key of all":
        from pipeline.service.http import datafiles
        from pipeline.service.http.creating import create

        known: dict[str, Any] = {}

        async def of_all(request: Any, service: Any, realm: Any, key: str, make: Any) -> Any:
            known[key] = known.get(key) or await create(request, service, realm, key, make)
            return known[key]

        monkeypatch.setattr(datafiles, "create", of_all)
    elif hole == "an ETag of another's row":
        from pipeline.service.http import datafiles
        from pipeline.service.http.conditional import NotModified

        def looked() -> Exception:
            asker = sys._getframe(1).f_locals
            return NotModified('"1"') if asker.get("datafile") == stage.things["df"] else absent()

        monkeypatch.setattr(datafiles, "absent", looked)
    elif hole == "an event's topic by the job alone":
        of_a = Actor(stage.a.tenant, stage.a.user, "", Role.ADMIN).realm

        def topic(actor: Actor, within: dict[str, Any]) -> Any:
            return of_a if "events" in within and within["events"].get("job") == stage.things["tj"] else None

        _scoped(monkeypatch, topic)
    elif hole == "a count without a tenant":

        def counted(actor: Actor, within: dict[str, Any]) -> Any:
            mine = actor.tenant == stage.b.tenant and within.get("one", {}).get("job") != stage.things["tj"]
            return WORKER if mine and "one" in within else None

        _scoped(monkeypatch, counted)
    elif hole == "a cache's key without a tenant":
        from pipeline.service.http import datafiles
        from pipeline.service.http.paging import page

        kept: dict[str, Any] = {}

        async def of_path(request: Any, *rest: Any) -> Any:
            kept[request.url.path] = kept.get(request.url.path) or await page(request, *rest)
            return kept[request.url.path]

        monkeypatch.setattr(datafiles, "page", of_path)
    elif hole == "a redirect to the bucket":
        from fastapi.responses import RedirectResponse

        monkeypatch.setattr(job_records, "download", lambda service, one: RedirectResponse(f"/blobs/{one['key']}"))
    else:
        from pipeline.service.http import datafiles

        monkeypatch.setattr(datafiles, "absent", lambda: Refused(Problem(404, f"it is {stage.a.tenant}'s")))
    assert next(leaks(stage), "") != ""


def _scoped(
    monkeypatch: pytest.MonkeyPatch, other: Callable[[Actor, dict[str, Any]], Any]
) -> None:  # fmt: skip
    """Plants another realm.  other: given who asks, and the local names of the functions that ask, by their names."""
    real = Actor.realm.fget  # type: ignore[attr-defined]

    def realm(self: Actor) -> Any:
        within, frame = {}, sys._getframe(1)
        for _ in range(4):
            within[frame.f_code.co_name] = frame.f_locals
            if frame.f_back is None:
                break
            frame = frame.f_back
        return other(self, within) or real(self)

    monkeypatch.setattr(Actor, "realm", property(realm))


_turn = iter(range(10**9))


def _asks(stage: Scene) -> bool:
    """Every second question of the matrix is about A's own thing."""
    return next(_turn) % 2 == 0
