"""Whether this server runs, and whether it can answer: without a token."""

from __future__ import annotations

from fastapi import APIRouter

from pipeline.service.http.asking import Service
from pipeline.service.http.documents import Told, problems
from pipeline.service.words import PLATFORM

router = APIRouter(tags=["health"])


class Health(Told):
    status: str


async def alive() -> Health:
    """This process answers."""
    return Health(status="alive")


async def ready(service: Service) -> Health:
    """The database answers, too; 503 where it does not."""
    async with service.database.reading(PLATFORM) as statements:
        await statements.row("select 1 as one")
    return Health(status="ready")


def public(*codes: int) -> dict[int | str, object]:
    """The problems of a route that asks for no token."""
    return {code: said for code, said in problems(*codes).items() if code in (400, 500, *codes)}


router.add_api_route("/healthz", alive, methods=["GET"], response_model=Health, responses=public())
router.add_api_route("/readyz", ready, methods=["GET"], response_model=Health, responses=public(503))
