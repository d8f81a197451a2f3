"""`hathi train SOLVER --on replicas`: one of several processes that an operator or a launcher has begun."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.output.training import Tested, shown
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.training.job import Ended, Wanted

REPLICAS = "replicas"


def run(
    wanted: Wanted, patience: float | None, estop: Path | None, tested: Tested, row: Callable[[dict[str, Any]], None]
) -> Ended:
    """To the end; Ending.LEFT where this process was asked to end, or lost another one.  Raises what training raises.

    The others, their number and this one's are in the environment (`training/sharing/replicas.py`).
    """
    from pipeline.training import job
    from pipeline.training.sharing.connection import PeerLost
    from pipeline.training.sharing.exchange import Alone
    from pipeline.training.sharing.fence import claim
    from pipeline.training.sharing.peers import PATIENCE_SECONDS
    from pipeline.training.sharing.process import silent
    from pipeline.training.sharing.processes import demand_shards
    from pipeline.training.sharing.replicas import meet, replica_of
    from pipeline.training.surroundings import Ending

    one = replica_of(os.environ)
    how = replace(wanted.how, threads=wanted.how.threads or 1)  # of whatever host: they decide the last digits
    wanted = replace(wanted, how=how)
    read = wanted.read()
    demand_shards(one.size, how.shards, "worker")
    kept: Callable[[str], Path] = lambda name: job.beside(read.snapshots.prefix, name)  # noqa: E731
    saved = [0]
    with shown(tested=tested) as (write, show):
        write(f"hathi: {one.name} of {one.size}, attempt {one.attempt}\n")
        try:
            exchange = meet(one, how.shards, patience or PATIENCE_SECONDS) if one.size > 1 else Alone()
            if one.rank:
                return job.train(wanted, replace(silent(exchange, one.name), estop=estop))
            check = claim(kept, one.attempt)

            def saving(iteration: int) -> None:
                check(iteration)
                saved.append(iteration)

            out = replace(job.by_prefix(write, show, row), estop=estop, exchange=exchange, name=one.name)
            return job.train(wanted, replace(out, attempts=False, saved=saving))
        except PeerLost as error:
            print(f"hathi: {error}", file=sys.stderr, flush=True)
            return job.Ended(Ending.LEFT, saved[-1], None, error.message)


def refuse(options: dict[str, bool]) -> None:
    """Raises ConfigError for the first of these options that is given beside --on replicas."""
    for option, given in options.items():
        if given:
            raise ConfigError(f"--on replicas and {option} exclude each other",
                              "whoever begins the replicas says how many there are", f"leave {option} out")  # fmt: skip
