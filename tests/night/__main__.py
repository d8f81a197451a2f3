"""The whole night: `python -m tests.night [NAME...] [--verbose]` does each fault (or those whose name holds NAME) and
prints the table.  Exit code 1 where a fault is not named with cause and remedy, or something is lost.

What this machine cannot do (a server that cannot be had, a mount that is not allowed) is left out, and said.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import pytest

from tests.night.deployment import in_folders
from tests.night.disks import DISKS, on_small_disks
from tests.night.faults import FAULTS, Fault
from tests.night.hosts import CLOCKS, HOSTS
from tests.night.objects import OBJECTS
from tests.night.server_faults import MOUNT_FAULTS, SERVER_FAULTS, TICKET_FAULTS
from tests.night.trying import Found, Opened, night, table
from tests.night.with_servers import behind_kerberos, may_mount, on_servers


def parts() -> Iterator[tuple[Opened, Sequence[Fault]]]:
    """Each kind of deployment, and the faults that are done to it.  Mounts are of this process from the second on."""
    yield in_folders, (*FAULTS, *OBJECTS, *HOSTS)
    if may_mount():
        yield on_small_disks, DISKS
        yield on_servers, (*SERVER_FAULTS, *CLOCKS, *MOUNT_FAULTS)
    else:
        print(f"LEFT OUT, as this user may not mount: {', '.join(one.name for one in (*DISKS, *MOUNT_FAULTS))}")
        yield on_servers, (*SERVER_FAULTS, *CLOCKS)
    yield behind_kerberos, TICKET_FAULTS


def main(words: list[str]) -> int:
    verbose = "--verbose" in words
    names = [word for word in words if not word.startswith("--")]
    done: list[Found] = []
    for opened, faults in parts():
        chosen = [one for one in faults if not names or any(name in one.name for name in names)]
        try:
            if chosen:
                done += told(opened, chosen, verbose)
        except pytest.skip.Exception as error:
            print(error)
    print([*table(done)][-1])
    return int(not all(one.passed for one in done))


def told(opened: Opened, faults: Sequence[Fault], verbose: bool) -> Iterator[Found]:
    """These faults, one after the other, each told as it is over."""
    for found in night(opened, faults):
        print("\n".join([*table([found])][:-1]), flush=True)
        if verbose or not found.passed:
            print(found.everything, flush=True)
        yield found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
