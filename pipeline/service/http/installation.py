"""How the installation is, for who runs it: its workers, what stands in the way of its work, and why work failed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from pipeline.service import troubles
from pipeline.service.http.asking import Platform, Service
from pipeline.service.http.documents import Told, problems
from pipeline.service.words import WORKER, Slot
from pipeline.times import DAY, HOUR

router = APIRouter(tags=["installation"])
MOST = 200
"""Workers that are named."""


class Worker(Told):
    id: str
    host: str
    kind: Slot
    retired: Annotated[bool, Field(description="It ends, and takes no more work")]
    started_at: float
    heard_at: float


class Trouble(Told):
    """What is wrong and why, and what to do about it."""

    text: str
    hint: str


class Installation(Told):
    workers: Annotated[list[Worker], Field(description="Those of the last hour, the newest first")]
    troubles: Annotated[list[Trouble], Field(description="As `hathi service check` says them, but for its objects")]
    failures: Annotated[dict[str, int], Field(description="Work of all tenants that failed in the last day, by reason")]


async def seen(service: Service, actor: Platform) -> Installation:
    """Its workers, its troubles with their remedies, and the failures of the last day."""
    found = await troubles.look(service.database)
    async with service.database.reading(WORKER) as statements:
        workers = await statements.rows(
            f"select * from workers where beat_at > instant() - $1 order by id desc limit {MOST}", HOUR
        )
        failed = await statements.rows(
            """select reason, count(*) as n from work where state = 'failed' and finished_at > (select instant()) - $1
               group by reason order by count(*) desc""",
            DAY,
        )  # fmt: skip
    return Installation(
        workers=[
            Worker(id=one["id"], host=one["host"], kind=one["slot"], retired=one["state"] == "retired",
                   started_at=one["started_at"], heard_at=one["beat_at"])
            for one in workers
        ],
        troubles=[
            Trouble(text=one.text, hint=one.hint)
            for one in troubles.judge(found, (), service.rules.target_wait)
        ],
        failures={row["reason"] or "": int(row["n"]) for row in failed},
    )  # fmt: skip


router.add_api_route("/v1/installation", seen, methods=["GET"], response_model=Installation, responses=problems(403))
