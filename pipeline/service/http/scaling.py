"""How many workers there should be: for whoever begins and ends them, in the form that KEDA's metrics-api reads."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from pipeline.service import backlog, scaling
from pipeline.service.http.asking import Platform, Service
from pipeline.service.http.documents import Told, problems
from pipeline.service.words import Slot

router = APIRouter(tags=["scaling"])


class KindOfWork(Told):
    """All tenants together."""

    desired: Annotated[int, Field(description="Workers that there should be now")]
    queued: int
    running: int
    workers: Annotated[int, Field(description="Workers that were heard of within 15 s")]
    oldest_seconds: Annotated[float, Field(description="For so long the oldest queued work has waited")]


class Scaling(Told):
    kinds: dict[Slot, KindOfWork]


async def told(service: Service, actor: Platform) -> Scaling:
    """How many workers of each kind there should be now, and what it is told from."""
    found = scaling.wanted_now(await backlog.read(service.database, service.took), service.rules)
    return Scaling(**scaling.told(found))


router.add_api_route("/v1/scaling", told, methods=["GET"], response_model=Scaling, responses=problems(403))
