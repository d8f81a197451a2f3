"""`hathi service`: teams train over REST; its API, its workers, and who may use them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import json
import os
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.amounts import counted
from pipeline.app.installation import default_config
from pipeline.cli import service_keeping
from pipeline.clock import Clock
from pipeline.errors import ConfigError
from pipeline.process import logs
from pipeline.process.installed import to_install
from pipeline.process.stop import Drain, Stop, drained
from pipeline.settings import Settings, load
from pipeline.stores.opening import open_bucket

if TYPE_CHECKING:
    from pipeline.service.database.statements import Database

ACTIONS = (
    "start",
    "serve",
    "worker",
    "scale",
    "migrate",
    "check",
    "backup",
    "restore",
    "prune",
    "tenant",
    "user",
    "token",
)
KINDS = ("train", "light")
_NAMES = {"tenant": "TENANT", "user": "TENANT USER", "token": "TENANT USER", "backup": "FOLDER", "restore": "FOLDER"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`hathi service start|serve|worker|scale|migrate|check|backup|restore|prune|tenant|user|token`."""
    parser.usage = (
        "hathi service start [--config FILE]            API and workers on this machine, until Ctrl-C\n"
        "       hathi service serve|worker [--config FILE]     an API server; a worker: any number of each\n"
        "       hathi service scale [--once] [--config FILE]   tells service.scaling.command how many workers to run\n"
        "       hathi service migrate|check [--config FILE] [--json]\n"
        "       hathi service backup|restore FOLDER [--without-objects] [--version VERSION]\n"
        "       hathi service prune [--dry-run] [--yes] [--days N]\n"
        "       hathi service tenant TENANT\n"
        "       hathi service user TENANT USER [--role R] [--password] [--platform]\n"
        "       hathi service token TENANT USER [--role R] [--platform]"
    )
    option = parser.add_argument
    option("action", choices=ACTIONS, help="what to do")
    option("names", nargs="*", metavar="NAME", help="a tenant, and a user; a folder of backups")
    option("--role", choices=("viewer", "member", "operator", "admin"), default="member", help="(default: member)")
    said = "user: give a password, asked for on the terminal or read from standard input"
    option("--password", action="store_true", help=said)
    option("--platform", action="store_true", help="token, password: who has it may also make tenants and users")
    option("--once", action="store_true", help="worker: end when nothing is queued; scale: print the numbers, and end")
    option("--kind", choices=KINDS, help="worker: do work of this kind alone (default: one of each at a time)")
    option("--name", default="", metavar="ID", help="worker: its name (default: a new one)")
    option("--config", default="", metavar="FILE", help="the configuration")
    option("--json", action="store_true", help="print JSON")
    service_keeping.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0; what cannot be done is raised."""
    settings = load(Path(args.config) if args.config else default_config(), os.environ)
    wanted = _NAMES.get(args.action, "").split()
    if len(args.names) != len(wanted):
        usage = f"hathi service {args.action} {' '.join(wanted)}".strip()
        raise ConfigError(f"hathi service {args.action} takes {counted(len(wanted), 'name')}", "", usage)
    try:
        return _ACTIONS[args.action](args, settings)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "pipeline":
            raise
        raise ConfigError(
            "hathi service needs packages that are not here", str(error), to_install("service")
        ) from error


def _say(text: str) -> None:
    print(logs.escape(logs.redact(text)), file=sys.stderr, flush=True)


def _migrate(args: argparse.Namespace, settings: Settings) -> int:
    from pipeline.service.database.opening import migrate

    made = asyncio.run(migrate(settings.service.database))
    if args.json:
        print(json.dumps({"made": made}))
    else:
        print(f"{counted(len(made), 'migration')} made" if made else "the database is as this version wants it")
    return 0


def _serve(args: argparse.Namespace, settings: Settings) -> int:
    from pipeline.cli.wiring.service_stop import stoppable

    def ready(url: str) -> None:
        _say(f"the API answers at {url}")

    with stoppable(settings, _say) as stop:
        return _answering(args, settings, stop, ready, None)


def _start(args: argparse.Namespace, settings: Settings) -> int:
    from pipeline.cli.wiring.service_stop import stoppable
    from pipeline.service import tenants
    from pipeline.service.database.opening import migrate
    from pipeline.service.words import PLATFORM

    first: list[str] = []
    link: list[str] = []

    async def begin(database: Database) -> None:
        async with database.reading(PLATFORM) as statements:
            there = await statements.row("select id from tenants limit 1")
        if there is None:
            first.append(await tenants.make_first(database, Clock()))
        link.extend(await tenants.link_of_first(database, Clock()))

    def ready(url: str) -> None:
        public = settings.service.public_url or url
        if link:
            print(f"{public}/#link={link[0]}", flush=True)
            _say("the link logs a browser in as admin of the tenant main, once and within an hour")
        print(f"{public}/openapi.json", flush=True)
        if first:
            _say(f"a token of the tenant main with all rights, shown this once: {first[0]}")
        else:
            _say("it goes on; hathi service token main admin --role admin --platform makes another token")

    with stoppable(settings, _say) as stop:
        asyncio.run(migrate(settings.service.database))
        return _answering(args, settings, stop, ready, begin)


def _answering(
    args: argparse.Namespace, settings: Settings, stop: Stop, ready: Callable[[str], None],
    first: Callable[[Database], Awaitable[None]] | None,
) -> int:  # fmt: skip
    """first: awaited before, of a start that also runs workers; None: an API server alone."""
    from pipeline.cli.wiring.metering import metered_service
    from pipeline.cli.wiring.overview import overview_of
    from pipeline.cli.wiring.promoter import promoter_of
    from pipeline.cli.wiring.service_health import looked_after
    from pipeline.cli.wiring.service_pool import pooled
    from pipeline.service.fetching import fetcher_for, file_fetcher_for
    from pipeline.service.http.server import Server, bound, serve
    from pipeline.service.scaling import rules_of
    from pipeline.service.serving.parent import sizes_of

    config = args.config or str(default_config())
    listening = bound(settings.service.listen)
    server = Server(
        settings.service.database, open_bucket(settings), Clock(), _say, stop, ready, Path(settings.state) / "service",
        fetcher_for(settings.fetch), file_fetcher_for(settings.fetch), sizes_of(settings.service), first,
        settings.service.public_url, rules_of(settings.service), promoter_of(settings),
        overview=overview_of(settings, Path(config)),
    )  # fmt: skip
    pool = pooled(settings, config, stop, _say) if first is not None else contextlib.nullcontext()
    metered = metered_service(settings, server, _say)
    # A loop in the main thread would take the signals for itself.
    with pool, metered, looked_after(settings, Clock()), ThreadPoolExecutor(1, "api") as thread:
        thread.submit(serve, server, listening).result()
    return stop.exit_code


def _worker(args: argparse.Namespace, settings: Settings) -> int:
    from pipeline.cli.wiring.promoter import promoter_of
    from pipeline.cli.wiring.service_stop import stoppable
    from pipeline.service.database.one_host import refuse_other_host
    from pipeline.service.database.opening import file_of, open_database
    from pipeline.service.fetching import fetcher_for
    from pipeline.service.ids import Kind, new_id
    from pipeline.service.serving.parent import sizes_of
    from pipeline.service.words import Slot
    from pipeline.service.work.attempt import PARTING_SECONDS, Hands
    from pipeline.service.work.missing import living, miss
    from pipeline.service.work.room import is_full, no_room, owned
    from pipeline.service.work.worker import work

    state = Path(settings.state)
    name, slots = args.name or new_id(Kind.WORKER, Clock().now()), [Slot(args.kind)] if args.kind else list(Slot)

    def unheard(_: object, context: dict[str, Any]) -> None:
        _say(f"{context['message']}: {context.get('exception')}")

    async def works(scratch: Path, stop: Stop) -> None:
        asyncio.get_running_loop().set_exception_handler(unheard)
        database = await open_database(settings.service.database)
        hands = Hands(
            database, open_bucket(settings), Clock(), scratch, stop, _say, fetcher_for(settings.fetch),
            sizes_of(settings.service), promoter_of(settings),
        )  # fmt: skip
        try:
            if file_of(settings.service.database) is not None:
                await refuse_other_host(database)
            for gone in await miss(database, state):
                _say(f"{gone} is gone; what it held goes to the next worker that asks")
            await work(hands, name, slots=slots, once=args.once)
        finally:
            await database.close()

    with contextlib.ExitStack() as held:
        stop = held.enter_context(stoppable(settings, _say))
        # A thread may wait for a bucket that is away.
        held.enter_context(drained(stop, _say, lambda: None, Drain(PARTING_SECONDS)))
        held.enter_context(living(state, name))
        try:
            with owned(state / "service", "worker-") as scratch:
                asyncio.run(works(scratch, stop))
        except OSError as error:
            if not is_full(error):
                raise
            raise no_room(state / "service", str(error)) from error
    return stop.exit_code


def _scale(args: argparse.Namespace, settings: Settings) -> int:
    from pipeline.cli.wiring.service_pool import scaled, told_once
    from pipeline.cli.wiring.service_stop import stoppable

    if args.once:
        print(json.dumps(asyncio.run(told_once(settings)), sort_keys=True))
        return 0
    if not settings.service.scaling.command:
        raise ConfigError("service.scaling.command is not set: there is nobody to tell", "", "set it, or give --once")
    with stoppable(settings, _say) as stop:
        asyncio.run(scaled(settings, stop, _say))
    return stop.exit_code


def _people(args: argparse.Namespace, settings: Settings) -> int:
    from pipeline.service import tenants
    from pipeline.service.auth import passwords
    from pipeline.service.database.opening import open_database
    from pipeline.service.database.statements import Taken
    from pipeline.service.words import PLATFORM, Actor, Role

    if args.password and args.action != "user":
        raise ConfigError("a password is a user's", "", "hathi service user TENANT USER --password")
    password = _asked_for() if args.password else ""

    async def made() -> dict[str, Any]:
        database = await open_database(settings.service.database)
        try:
            if args.action == "tenant":
                try:
                    async with database.transaction(PLATFORM) as statements:
                        return {"tenant_id": await tenants.add_tenant(statements, args.names[0], Clock())}
                except Taken as error:
                    raise ConfigError(
                        f"a tenant is called {args.names[0]} already", error.detail, "another name"
                    ) from error
            named, who = args.names
            user, tenant = await tenants.join(database, named, who, Role(args.role), Clock())
            actor = Actor(tenant, user, "", Role(args.role), args.platform)
            if args.action == "user":
                if password:
                    hashed = await passwords.Passwords(Clock()).hashed(password)
                    await passwords.set_by_operator(database, actor, hashed, Clock())
                return {"user_id": user, "tenant_id": tenant}
            return {"token": await tenants.grant(database, actor, "by an operator", Clock())}
        finally:
            await database.close()

    found = asyncio.run(made())
    print(json.dumps(found) if args.json else "\n".join(found.values()))
    return 0


def _asked_for() -> str:
    """A new password: twice from the terminal, or the first line of standard input.  Raises ConfigError."""
    from pipeline.service.auth.passwords import LEAST, MOST

    if sys.stdin.isatty():
        password = getpass.getpass("the password: ")
        if getpass.getpass("again: ") != password:
            raise ConfigError("the two are not the same", "", "give the password again")
    else:
        password = sys.stdin.readline().removesuffix("\n")
    if not LEAST <= len(password) <= MOST:
        raise ConfigError("the password cannot be taken", f"it has {LEAST} to {MOST} letters", "give another one")
    return password


_ACTIONS: dict[str, Callable[[argparse.Namespace, Settings], int]] = {
    "start": _start, "serve": _serve, "worker": _worker, "scale": _scale, "migrate": _migrate,
    "check": service_keeping.check, "backup": service_keeping.backup, "restore": service_keeping.restore,
    "prune": service_keeping.prune,
    "tenant": _people, "user": _people, "token": _people,
}  # fmt: skip
