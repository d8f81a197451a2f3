"""A promotion as work: a version's files come onto this host, are compared with the set, and go into use once.

Whoever is cut between the files, the number and the row has left garbage, or a promotion that the next attempt finds
by the id of the work, which the promotion's document names.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, FormatError, NotFound, PermanentError, TemporaryError
from pipeline.service import blobs, queue
from pipeline.service.classifying import facts_of
from pipeline.service.database.statements import Row, Statements
from pipeline.service.preparation import differences
from pipeline.service.promotion import Bundle, Order, Overtaken, Parted, Promoter, beside, granted
from pipeline.service.serving.parent import files_of
from pipeline.service.serving.placing import WEIGHTS
from pipeline.service.words import WORKER, Claimed, Ending, Reason, State
from pipeline.service.work import room
from pipeline.service.work.attempt import Hands, placed
from pipeline.service.work.lease import Lease
from pipeline.service.work.preparing import SERVING

LABEL_BYTES = 4 * 2**20
"""Of a model's labels together: a promotion is one small document that every host reads."""
_TEST = "test/"


async def attempt(hands: Hands, held: Claimed) -> None:
    """Puts it into use, or says why not; nothing where the work is somebody else's meanwhile.

    Raises TemporaryError where this worker had better rest: it has parted with the work then.
    """
    async with placed(hands, held) as folder:
        try:
            async with Lease(hands.database, held, hands.clock).beating() as lease:
                ending = await _ending(hands, lease, folder)
            if ending is not None:
                await queue.finish(hands.database, held, ending)
        except TemporaryError:
            await queue.release(hands.database, held)
            raise


async def _ending(hands: Hands, lease: Lease, folder: Path) -> Ending | None:
    """How it ends; None: it is another worker's.  Raises TemporaryError."""
    held = lease.held
    if held.seconds_left <= 0:
        says = "the bucket did not answer for max_seconds"
        return Ending(State.FAILED, Reason.TIME_LIMIT, says)
    try:
        order, bundle = await _asked(hands, held, folder)
        promoter = _promoter(hands)
        done = await asyncio.to_thread(promoter.promote, order, bundle, lambda: not lease.lost)
    except Parted:
        return None
    except TemporaryError:
        raise
    except Overtaken as error:
        return Ending(State.FAILED, Reason.OVERTAKEN, hands.told(held, error, folder))
    except (NotFound, FormatError, OSError) as error:
        if room.is_full(error):
            await queue.strike(hands.database, held, hands.told(held, error, folder), Reason.DISK_LIMIT)
            raise room.no_room(hands.scratch, str(error)) from error
        return Ending(State.FAILED, Reason.NO_DATA, hands.told(held, error, folder))
    except PermanentError as error:
        return Ending(State.FAILED, Reason.BAD_SPEC, hands.told(held, error, folder))
    return Ending(State.SUCCEEDED, result=done.as_result())


def _promoter(hands: Hands) -> Promoter:
    if hands.promoter is None:
        raise ConfigError("this worker promotes nothing", "", "give it the configuration of the API server")
    return hands.promoter


async def _asked(hands: Hands, held: Claimed, folder: Path) -> tuple[Order, Bundle | None]:
    """What is to be put into use; of a version its files in the folder.  Raises PipelineError, OSError."""
    body, settings = held.body, _promoter(hands).settings
    async with hands.database.reading(WORKER) as statements:
        tenant = await statements.row("select name from tenants where id = $1", held.tenant)
        version = await _version(statements, held)
        data = await _data(statements, held.tenant, version["work_id"]) if version is not None else {}
    name = body["feature_set"]
    one = granted(settings, tenant["name"], name) if tenant is not None else None
    if tenant is None or one is None or beside(settings, tenant["name"], one):
        raise ConfigError(f"set {name} is not the tenant's to promote to", "", "ask an operator of the installation")
    order = Order(
        held.id, name, body["lake"], body["number"], f"{body['by']}@{tenant['name']}", body["why"], body["backfill"]
    )
    if version is None:
        return order, None
    files = files_of(json.loads(version["files"]))
    await asyncio.to_thread(_fetch, hands, files, folder)
    facts = facts_of((folder / SERVING).read_bytes())
    if "refused" in facts:
        raise ConfigError("the net of this version classifies nothing", facts["refused"])
    if wrong := differences(name, one, facts):
        raise ConfigError("the set prepares pictures in another way", "; ".join(wrong), "change the set, or train anew")
    bundle = await asyncio.to_thread(_bundle, folder, version, data)
    return order, bundle


async def _version(statements: Statements, held: Claimed) -> Row | None:
    """The row of what is promoted; None where an older promotion comes back.  Raises NotFound: it was deleted."""
    if held.body["model_id"] is None:
        return None
    row = await statements.row(
        "select * from model_versions where tenant_id = $1 and model_id = $2 and number = $3",
        held.tenant, held.body["model_id"], held.body["version"],
    )  # fmt: skip
    if row is None:
        raise NotFound("the version was deleted", "", "promote one that is there")
    return row


async def _data(statements: Statements, tenant: str, job: str) -> dict[str, str]:
    """What the job learned from, by id: of its dataset the digest, of a datafile the SHA-256.

    Of a datafile that came in several pieces: the SHA-256 over those of its pieces, in hex, one after the other.
    """
    found: dict[str, str] = {}
    made = await statements.row(
        """select made.id, made.result from work join judgements
           on judgements.tenant_id = work.tenant_id and judgements.solver_id = work.solver_id
           join work made on made.tenant_id = judgements.tenant_id and made.id = judgements.dataset_id
           where work.tenant_id = $1 and work.id = $2""",
        tenant, job,
    )  # fmt: skip
    if made is not None and made["result"]:
        found[made["id"]] = str(json.loads(made["result"]).get("digest", ""))
    rows = await statements.rows(
        """select datafiles.id, datafiles.chunks from inputs join datafiles
           on datafiles.tenant_id = inputs.tenant_id and datafiles.id = inputs.datafile_id
           where inputs.tenant_id = $1 and inputs.work_id = $2""",
        tenant, job,
    )  # fmt: skip
    return found | {row["id"]: _digest([one["sha256"] for one in json.loads(row["chunks"])]) for row in rows}


def _digest(pieces: Sequence[str]) -> str:
    return pieces[0] if len(pieces) == 1 else hashlib.sha256("".join(pieces).encode()).hexdigest()


def _fetch(hands: Hands, files: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    for name, one in files.items():
        if not blobs.copied(hands.store, one["key"], folder / name, one["sha256"]):
            raise FormatError("a file of the version is not what was put", one["key"], "make the version again")
    if not files:
        raise FormatError("this version does not say how its net serves", "", "train the job again")


def _bundle(folder: Path, version: Row, data: Mapping[str, str]) -> Bundle:
    """Raises PipelineError, OSError."""
    from pipeline.training.dataset.mean import as_binaryproto  # whoever promotes nothing does without them
    from pipeline.training.deploying import Deployed

    made = Deployed.read((folder / SERVING).read_bytes())
    net, mean = folder / "net.prototxt", None
    net.write_text(made.net)
    picture = made.pictures.transform.mean if made.pictures is not None else None
    if picture is not None and picture.shape[1:] != (1, 1):
        mean = folder / "mean.binaryproto"
        mean.write_bytes(as_binaryproto(picture))
    labels = tuple(json.loads(version["labels"])) if version["labels"] else ()
    if len(json.dumps(labels)) > LABEL_BYTES:
        raise ConfigError("the labels are too long to be promoted", f"at most {LABEL_BYTES:,} bytes", "shorten them")
    figures = {name.removeprefix(_TEST): value for name, value in json.loads(version["figures"]).items()}
    return Bundle(net, folder / WEIGHTS, mean, labels, figures, version["work_id"], dict(data))
