"""The feature sets of the lake that a tenant may put its models into use for."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from pipeline.service.http.asking import Service, Viewer
from pipeline.service.http.documents import Told, problems
from pipeline.service.promotion import beside, granted, lakes_of

router = APIRouter(tags=["promotions"])


class Granted(Told):
    name: str
    lakes: list[str]
    blob: Annotated[str, Field(description="The blob of the net whose values are the features")]
    with_others: Annotated[
        bool, Field(description="Sets that are not granted follow the same model, and a promotion is refused")
    ]  # fmt: skip


class FeatureSets(Told):
    items: list[Granted]


async def listed(service: Service, actor: Viewer) -> FeatureSets:
    """Those that an operator granted to the tenant, by name; none where no lake stands beside the service."""
    promoter = service.promoter
    if promoter is None:
        return FeatureSets(items=[])
    async with service.database.reading(actor.realm) as statements:
        tenant = await statements.row("select name from tenants")
    name = tenant["name"] if tenant is not None else ""
    found = []
    for one in sorted(promoter.settings.service.promotion.get(name, ())):
        of = granted(promoter.settings, name, one)
        if of is not None:
            others = bool(beside(promoter.settings, name, of))
            lakes = lakes_of(promoter.settings, of)
            found.append(Granted(name=one, lakes=lakes, blob=of.blob, with_others=others))
    return FeatureSets(items=found)


router.add_api_route("/v1/feature-sets", listed, methods=["GET"], response_model=FeatureSets, responses=problems())
