"""The pipeline beside the service, for who runs the installation: what is open and how fresh, and the report of a day.

A tenant sees of it what it asked for itself: its promotions and their back-fills.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import Field

from pipeline.service.http.asking import Behind, Platform, Service
from pipeline.service.http.documents import Told, problems
from pipeline.service.overview import Overview
from pipeline.service.problems import Problem, Refused

router = APIRouter(prefix="/v1/pipeline", tags=["pipeline"])
Day = Annotated[
    str | None,
    Query(pattern=r"^\d{4}-\d{2}-\d{2}$", description="As 2026-11-20, UTC; today by default"),
]  # fmt: skip
PAGE = {"text/html": {"schema": {"type": "string"}}}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
"""The page of a report is for a file; a browser that shows it all the same runs nothing of it."""


NOWHERE: Mapping[str, Any] = {
    **dict.fromkeys(("lakes", "findings", "estop_remote", "stages", "open", "running", "retries", "held"), ()),
    **dict.fromkeys(("partners", "failing", "backfills", "models"), ()), "at": 0.0, "level": "OK", "estop": False,
    "open_more": 0, "waiting": 0, "more": {}, "unseen": {},
}  # fmt: skip
"""What is told where no lake is configured."""


class Finding(Told):
    level: Annotated[str, Field(description="Warning or Alert")]
    text: str
    hint: str


class Stage(Told):
    """What waits for a stage.  last_hour: image refs that it did; seconds_left: at that rate."""

    lake: str
    stage: str
    shipments: int
    batches: int
    refs: int
    oldest: float | None
    last_hour: int
    seconds_left: float | None


class OpenShipment(Told):
    lake: str
    shipment: str
    set: str
    stage: Annotated[str, Field(description="What it waits for")]
    batches: int
    results: Annotated[int, Field(description="Batches that are computed")]


class Running(Told):
    lake: str
    host: str
    stage: str
    shipment: str
    attempt: int
    since: float


class Retry(Told):
    lake: str
    at: Annotated[str, Field(description="As a version: 20261120T000000Z")]
    shipments: int


class Partner(Told):
    """How fresh a partner is.  source, delivered: the newest version at the source, and in the lake; "" without one."""

    lake: str
    partner: str
    set: str
    source: str
    delivered: str
    lag: Annotated[float, Field(description="Seconds that it is behind")]


class FailingPartner(Told):
    """More of its images failed in the last day than `[health]` allows."""

    lake: str
    partner: str
    set: str
    refs: int
    failed: int
    reason: str
    host: str


class PipelineBackFill(Told):
    lake: str
    set: str
    kind: Annotated[str, Field(description="backfill, or again: shipped once more by a person")]
    by: Annotated[str, Field(description="The promotion that it computes with; empty where the set names files")]
    snapshots: int
    delivered: Annotated[int, Field(description="Snapshots whose features are in the lake")]
    images: int
    computed: int
    begun: float
    seconds_left: float | None


class ModelInUse(Told):
    """The promotion that a model's name stands for.  at: as a version; unreadable: why nothing more is known."""

    lake: str
    model: str
    number: int
    sets: list[str]
    at: str = ""
    by: str = ""
    why: str = ""
    unreadable: str


class Pipeline(Told):
    """As `hathi status --json` and `hathi health --json` tell it, the first rows of each table."""

    lakes: Annotated[list[str], Field(description="None where no lake is configured beside the service")]
    at: float
    level: Annotated[str, Field(description="OK, Warning or Alert")]
    findings: list[Finding]
    estop: Annotated[bool, Field(description="On the host of this server")]
    estop_remote: Annotated[list[str], Field(description="Lakes in whose bucket ESTOP stands")]
    stages: list[Stage]
    open: list[OpenShipment]
    open_more: Annotated[int, Field(description="Open shipments that were not read")]
    running: list[Running]
    waiting: Annotated[int, Field(description="Shipments of retries whose day has not come")]
    retries: list[Retry]
    held: Annotated[list[str], Field(description="Batches that wait for `hathi quarantine`")]
    partners: Annotated[list[Partner], Field(description="The most lagging first")]
    failing: list[FailingPartner]
    backfills: list[PipelineBackFill]
    models: list[ModelInUse]
    more: Annotated[dict[str, int], Field(description="Rows that a table has beyond those told, by its name")]
    unseen: Annotated[dict[str, str], Field(description="What could not be looked at, and why")]


class Counts(Told):
    """What became of rows: rows = rejected + refs; refs = unfinished + duplicates + features + failures."""

    rows: int
    rejected: int
    refs: int
    unfinished: int
    duplicates: int
    features: int
    failures: int
    delivered: int


class FailedItem(Told):
    lake: str
    shipment: str
    partner: int
    external_id: str
    url: str
    detail: str


class FailureReason(Told):
    """first, again: of first tries, and of retries."""

    reason: str
    meaning: str
    first: int
    again: int
    examples: list[FailedItem]


class FailingHost(Told):
    host: Annotated[str, Field(description="Empty for items without a host")]
    failures: int
    reasons: dict[str, int]


class HourDone(Told):
    at: float
    shipped: int
    computed: int
    aggregated: int
    delivered: int


class PartnerDone(Told):
    lake: str
    partner: str
    features: int
    failures: int
    reason: Annotated[str, Field(description="The most frequent one of its failures")]


class ShipmentOfDay(Told):
    lake: str
    name: str
    kind: str
    set: str
    source: str
    refs: int
    features: int
    failures: int
    state: str
    lag: float | None


class DayReport(Told):
    """As `hathi report DAY` has it.  first, again: of first tries, and of retries, whose refs were counted before."""

    title: str
    made: float
    begin: float
    end: float
    first: Counts
    again: Counts
    reasons: Annotated[list[FailureReason], Field(description="The most frequent first")]
    hosts: list[FailingHost]
    hours: list[HourDone]
    partners: Annotated[list[PartnerDone], Field(description="Those with the most failures first")]
    shipments: Annotated[list[ShipmentOfDay], Field(description="The newest first")]
    notes: Annotated[list[str], Field(description="What is not in here, and why")]
    more: dict[str, int]


async def seen(service: Service, actor: Platform) -> Pipeline:
    """What is open, waits, fails and runs in the lakes beside the service, and how fresh each partner is."""
    if service.overview is None:
        return Pipeline(**NOWHERE)
    return Pipeline(**await _told(service, service.overview.look))


async def report(service: Service, actor: Platform, day: Day = None) -> DayReport:
    """What became of each row of a day, and why there is no feature."""
    return DayReport(**await _of_day(service, day))


async def page(service: Service, actor: Platform, day: Day = None) -> Response:
    """The same as one HTML page that can be mailed and kept: as `hathi report` writes it."""
    found = await _of_day(service, day)
    headers = {
        "Content-Disposition": f'attachment; filename="hathi-{found["title"]}.html"',
        "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff",
    }  # fmt: skip
    return Response(found["page"].encode("utf-8", "backslashreplace"), headers=headers, media_type="text/html")


async def _of_day(service: Behind, day: str | None) -> Mapping[str, Any]:
    """Raises Refused: 404 without a lake, 422 for a day that no calendar has."""
    overview: Overview | None = service.overview
    if overview is None:
        said = "no lake is configured beside this service"
        raise Refused(Problem(404, said, "an operator configures [lakes.NAME] where the API server runs"))
    if day is not None:
        try:
            date.fromisoformat(day)
        except ValueError:
            said = f"no calendar has the day {day}"
            wrong = ({"pointer": "#/query/day", "detail": said},)
            raise Refused(Problem(422, said, "a day in UTC as 2026-11-20", errors=wrong)) from None
    return await _told(service, lambda: overview.day(day or "today"))


async def _told(service: Behind, ask: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """A few at a time: each that waits keeps a thread."""
    async with service.overlooking:
        return await asyncio.to_thread(ask)


def _add(path: str, route: object, model: type[Told] | None, **more: Any) -> None:
    router.add_api_route(path, route, methods=["GET"], response_model=model, **more)


_add("", seen, Pipeline, responses=problems())
_add("/report", report, DayReport, responses=problems(404))
_add(
    "/report/page",
    page,
    None,
    responses={**problems(404), 200: {"description": "The page", "content": PAGE}},
)
