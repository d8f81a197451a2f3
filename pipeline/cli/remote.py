"""Use a service as a client: push data, train, watch, cancel, classify; docs/service.md has the way from start to end.

`hathi remote login URL` keeps the address and a token in ~/.config/hathi/remote.json, which nobody else may read.
$HATHI_REMOTE_URL and $HATHI_REMOTE_TOKEN win over it.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.cli.output.columns import columns
from pipeline.errors import ConfigError
from pipeline.process import logs
from pipeline.times import to_the_minute

if TYPE_CHECKING:
    from pipeline.remote.client import Client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`hathi remote ACTION ...`."""
    from pipeline.cli import remote_data, remote_jobs, remote_models

    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    json_too = argparse.ArgumentParser(add_help=False)
    json_too.add_argument("--json", action="store_true", help="print JSON, for programs")

    def add(name: str, purpose: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=purpose, description=purpose, parents=[json_too])

    login = add("login", "keep a service's address and a token; the token is asked for, or read from standard input")
    login.add_argument("url", metavar="URL", help="the service, as https://hathi.example")
    login.add_argument("--user", default="", metavar="NAME", help="ask for this user's password, and have a token made")
    login.add_argument("--tenant", default="", metavar="NAME", help="with --user: which one, of a user of several")
    login.set_defaults(does=_login)
    add("logout", "forget the address and the token").set_defaults(does=_logout)
    add("me", "say who asks, for which tenant, and what is used of its limits").set_defaults(does=_me)
    for room in (remote_data, remote_jobs, remote_models):
        room.add_to(add)


def run(args: argparse.Namespace) -> int:
    """0; 1 where a training that was followed has failed; what the service refuses is raised."""
    does: Callable[[argparse.Namespace], int] = args.does
    return does(args)


def client() -> Client:
    """As whoever has logged in.  Raises ConfigError."""
    from pipeline.remote import transport
    from pipeline.remote.client import Client
    from pipeline.remote.login import login_of

    kept = login_of(os.environ)
    return Client(kept.url, kept.token, patience=transport.PATIENCE_SECONDS, waiting=warn)


def say(text: str) -> None:
    """A line for a person, without secrets and what a terminal obeys: others wrote the names in it."""
    print(logs.escape(logs.redact(text)), flush=True)


def warn(text: str) -> None:
    """The same beside the output."""
    print(logs.escape(logs.redact(text)), file=sys.stderr, flush=True)


def put(tree: Mapping[str, Any]) -> None:
    """One JSON object a line."""
    print(json.dumps(tree, sort_keys=True), flush=True)


def table(
    args: argparse.Namespace, items: Iterable[Mapping[str, Any]], heads: Mapping[str, Callable[[Any], str]]
) -> int:
    """Things as a table, or as JSON.  heads: what each column shows of one."""
    if args.json:
        for one in items:
            put(one)
        return 0
    rows = [[show(one) for show in heads.values()] for one in items]
    for line in columns([list(heads), *rows]):
        print(logs.redact(line))
    return 0


def at(seconds: float | None) -> str:
    """A time as people read it; nothing where there is none."""
    return to_the_minute(seconds) if seconds is not None else ""


def _login(args: argparse.Namespace) -> int:
    from pipeline.remote.client import Client
    from pipeline.remote.login import Login, in_the_clear, keep, place_of, token_by_password
    from pipeline.remote.transport import base_of

    url = base_of(args.url)
    if in_the_clear(url):
        warn(f"{url} has no TLS: whoever is on the way reads the token")
    if args.user:
        token = token_by_password(url, (args.user, _asked_for(f"the password of {args.user}: ")), args.tenant)
    else:
        token = _asked_for("the token: ").strip()
    me = Client(url, token, patience=0.0).me()
    path = place_of(os.environ)
    keep(Login(url, token), path)
    if args.json:
        put({**me, "url": url, "file": str(path)})
    else:
        say(f"{url}: {me['role']} of the tenant {me['tenant']}; the token is in {path}")
    return 0


def _asked_for(what: str) -> str:
    """From the terminal, where nobody sees it, or the first line of standard input.  Raises ConfigError."""
    found = getpass.getpass(what) if sys.stdin.isatty() else sys.stdin.readline().removesuffix("\n")
    if not found:
        raise ConfigError("nothing was given", "", f"type {what.removesuffix(': ')}, or give it by standard input")
    return found


def _logout(args: argparse.Namespace) -> int:
    from pipeline.remote.login import forget, place_of

    path = place_of(os.environ)
    gone = forget(path)
    if args.json:
        put({"forgotten": gone})
    else:
        say(f"{path} is gone; the token holds until it is revoked" if gone else "nobody had logged in here")
    return 0


def _me(args: argparse.Namespace) -> int:
    me = client().me()
    if args.json:
        put(me)
        return 0
    say(f"{me['role']} of the tenant {me['tenant']}" + ("; an operator of the installation" if me["platform"] else ""))
    for name, value in sorted(me["quotas"].items()):
        say(f"  at most {value:,} {name}" + (f", {me['used'][name]:,} used" if name in me["used"] else ""))
    return 0
