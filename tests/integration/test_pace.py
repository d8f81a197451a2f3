"""A run says that a polite limit sets its pace where that is so, and not where the web server is what is slow."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator

import pytest

from tests.integration.conftest import OwnList
from tests.integration.fetch.hostile import Hostile, Visit, ok


@pytest.fixture
def server() -> Iterator[Hostile]:
    with Hostile() as hostile:
        yield hostile


def listed(own: OwnList, server: Hostile, path: str, number: int) -> None:
    rows = ({"external_id": f"sku-{n}", "url": server.url(f"{path}?{n}")} for n in range(number))
    own.refs.write_text("\n".join(map(json.dumps, rows)))


def test_a_limit_that_sets_the_pace_is_said_once_on_the_way_and_at_the_end(own: OwnList, server: Hostile) -> None:
    listed(own, server, "/ok.jpg", 45)
    done = own.run("--allow-private", "--set", "fetch.requests_per_second=4", "--set", "fetch.burst=1")
    assert done.returncode == 0, done.stderr
    host = re.escape(server.url("").removeprefix("http://").rstrip("/"))
    lifts = "if the host is yours, raise it: --set 'fetch.requests_per_second=40'"
    said = re.findall(rf"{host}'s limit of 4/s sets the pace, not this machine; {re.escape(lifts)}", done.stderr)
    assert len(said) == 1, done.stderr
    assert re.search(rf"(?m)^pace  .*{host}'s limit of 4/s set the pace; {re.escape(lifts)}$", done.stdout)
    log = "".join(path.read_text() for path in (own.out / ".hathi" / "logs").glob("*.log"))
    assert "set the pace" in next(line for line in log.splitlines() if "Summary: computed" in line)


def test_a_host_that_answers_slowly_is_no_limit_of_ours(own: OwnList, server: Hostile) -> None:
    async def slow(visit: Visit) -> None:
        await asyncio.sleep(1.0)
        await ok(visit)

    server.extra["/slow"] = slow
    listed(own, server, "/slow", 40)
    done = own.run("--allow-private", "--set", "fetch.requests_per_second=10", "--set", "fetch.burst=1")
    assert done.returncode == 0, done.stderr
    assert "the pace" not in done.stderr + done.stdout
    quick = own.run("--allow-private", "--again", "--set", "fetch.requests_per_second=1000")
    assert quick.returncode == 0, quick.stderr
    assert "the pace" not in quick.stderr + quick.stdout
