"""One API server: it holds no state, and any number of them stand before one database."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop

from pipeline.clock import Clock
from pipeline.errors import ConfigError
from pipeline.service.auth.passwords import Passwords
from pipeline.service.database.opening import open_database
from pipeline.service.database.statements import Database
from pipeline.service.fetching import Accept
from pipeline.service.http.app import Say, make_app
from pipeline.service.http.asking import Behind
from pipeline.service.http.counting import Counted, Requests
from pipeline.service.overview import Overview
from pipeline.service.promotion import Promoter
from pipeline.service.scaling import NOBODY, Rules
from pipeline.service.serving.parent import Serving, Sizes
from pipeline.service.words import PLATFORM
from pipeline.service.work.room import owned
from pipeline.stores.store import Store

if TYPE_CHECKING:
    from pipeline.fetch.fetcher import Fetcher

GRACE_SECONDS = 3
"""So long answers that are under way may take once the server is asked to end; then streams are cut."""
LOOK_SECONDS = 0.1
IDLE_SECONDS = 75
"""So long a connection stays open that asks nothing.  Longer than load balancers keep theirs, mostly 60 s: who
closes first leaves the other with a request that nobody answers."""


@dataclass(frozen=True)
class Server:
    """database: its URL or file.  stopping: asked ten times a second.  ready: told once it answers, with its address.

    scratch: a local folder, where nets lie that answer; sizes: of what holds them.  fetcher, files: new ones, for
    pictures and for other bodies by URLs of strangers.  first: awaited before, with the database.  public_url: where
    people reach it, "" where that is the address it listens on.  rules: how many workers it asks for.  promoter: of
    models.  requests: counts what it answers.  overview: of the pipeline, where there is one.
    """

    database: str
    store: Store
    clock: Clock
    say: Say
    stopping: Callable[[], bool]
    ready: Callable[[str], None]
    scratch: Path
    fetcher: Callable[[], Fetcher]
    files: Callable[[Accept, int], Fetcher]
    sizes: Sizes = field(default_factory=Sizes)
    first: Callable[[Database], Awaitable[None]] | None = None
    public_url: str = ""
    rules: Rules = NOBODY
    promoter: Promoter | None = None
    requests: Requests = field(default_factory=Requests)
    overview: Overview | None = None


def bound(listen: str) -> socket.socket:
    """The socket for `HOST:PORT`.  Raises ConfigError where nobody can listen there."""
    host, _, port = listen.rpartition(":")
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=_family(host), backlog=512)
    except (OSError, ValueError) as error:
        hint = "give another service.listen, or end what listens there"
        raise ConfigError(f"service.listen: {listen} cannot be listened on", str(error), hint) from error


def serve(server: Server, listening: socket.socket) -> None:
    """Answers until it is asked to end.  Raises PipelineError."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(server, listening))


async def behind_of(database: Database, server: Server, serving: Serving) -> Behind:
    """What an API server works with; the key that cursors are signed with is made once for all servers."""
    async with database.transaction(PLATFORM, serial=True) as statements:
        row = await statements.row("select value from secrets where name = 'cursors'")
        if row is None:
            row = {"value": secrets.token_hex(32)}
            sql = "insert into secrets (name, value) values ('cursors', $1) returning name"
            await statements.row(sql, row["value"])
    key = bytes.fromhex(row["value"])
    return Behind(
        database, server.store, key, server.clock, serving, server.fetcher, server.files, server.scratch,
        Passwords(server.clock), server.public_url, server.rules, promoter=server.promoter,
        overview=server.overview,
    )  # fmt: skip


async def _serve(server: Server, listening: socket.socket) -> None:
    def unheard(_: object, context: dict[str, Any]) -> None:
        server.say(f"{context['message']}: {context.get('exception')}")

    asyncio.get_running_loop().set_exception_handler(unheard)
    database = await open_database(server.database, server.clock)
    with owned(server.scratch, "serving-") as scratch:
        await _answering(database, server, Serving(server.store, scratch, server.say, server.sizes), listening)


async def _answering(database: Database, server: Server, serving: Serving, listening: socket.socket) -> None:
    try:
        if server.first is not None:
            await server.first(database)
        app = Counted(make_app(await behind_of(database, server, serving), server.say), server.requests)
        config = uvicorn.Config(
            app, http="httptools", loop="none", log_config=None, access_log=False, server_header=False, ws="none",
            lifespan="off", timeout_graceful_shutdown=GRACE_SECONDS, timeout_keep_alive=IDLE_SECONDS,
        )  # fmt: skip
        running, told = uvicorn.Server(config), False
        running.capture_signals = contextlib.nullcontext  # they are the program's to hear (`process/stop.py`)
        answering = asyncio.ensure_future(running.serve([listening]))
        while not answering.done():
            if running.started and not told:
                told = True
                host, port = listening.getsockname()[:2]
                server.ready(f"http://{host}:{port}")
            running.should_exit = running.should_exit or server.stopping()
            await asyncio.wait([answering], timeout=LOOK_SECONDS)
        answering.result()
    finally:
        await serving.close()
        await database.close()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
