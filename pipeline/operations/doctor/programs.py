"""What runs here, or should: cron, locks, `_PIPE_RUNNING`."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.operations.health.this_host import programs
from pipeline.process.child import asked
from pipeline.process.installed import LAST_LINES, RUN_ONCE
from pipeline.process.lock import RUNNING, holder
from pipeline.stores.store import Examined
from pipeline.times import HOUR

OVERDUE_HOURS = 3.0
"""Cron starts a run each hour, and a run lasts up to one."""
CRON_FOLDERS = (Path("/etc/crontab"), Path("/etc/cron.d"))
CRONTAB_SECONDS = 4.0
NAMES = ("compute-cron.sh", "hathi")


def crontab_lines(own: Callable[[], str], places: Sequence[Path] = CRON_FOLDERS) -> list[str]:
    """Lines of this user's crontab and of the system's that start something of ours."""
    texts = [own()]
    for place in places:
        files = sorted(place.iterdir()) if place.is_dir() else [place]
        for file in files:
            try:
                texts.append(file.read_text(errors="replace"))
            except OSError:
                continue  # absent, or another user's business
    lines = [line.strip() for text in texts for line in text.splitlines()]
    return [line for line in lines if not line.startswith("#") and any(name in line for name in NAMES)]


def own_crontab() -> str:
    """What `crontab -l` prints; "" without a crontab or cron, or where it does not answer."""
    program = shutil.which("crontab")
    if program is None:
        return ""
    code, said = asked([program, "-l"], CRONTAB_SECONDS)
    return said if code == 0 else ""


def cron(
    state: Path, here: Path, now: float, *, needed: bool, lines: Callable[[], list[str]] | None = None
) -> Iterator[Examined]:
    """Whether cron starts runs, those of this folder, and when the last one was.  needed: this is a compute box."""
    ours = lines() if lines is not None else crontab_lines(own_crontab)
    if not ours:
        said = "no crontab line starts compute-cron.sh or hathi"
        yield Examined(
            "crontab", not needed, said, f"add a line with `crontab -e`: */5 * * * * {RUN_ONCE}" if needed else ""
        )
    for line in ours:
        good = _leads_to(here, line)
        hint = "" if good else f"this line may start another installation: this one is in {here}"
        yield Examined("crontab", True, line if good else f"{line}; {hint}")
    if ours and not any(_leads_to(here, line) for line in ours) and needed:
        yield Examined(
            "crontab", False, "no crontab line starts this installation", f"name its folder in the crontab: {here}"
        )
    lock = state / "compute.lock"
    if not lock.exists():
        yield Examined(
            "last run",
            not needed,
            "compute has never run on this host",
            f"start it by hand: {RUN_ONCE}" if needed else "",
        )
        return
    hours = max(0.0, now - lock.stat().st_mtime) / HOUR
    late = bool(ours) and hours > OVERDUE_HOURS and holder(state, "compute") is None
    hint = "see whether cron runs: its log (journalctl -u cron) says what it starts" if late else ""
    yield Examined(
        "last run", not late, f"compute last worked {'less than 1' if hours < 1 else f'{hours:.0f}'} h ago", hint
    )


def locks(state: Path) -> Iterator[Examined]:
    """Who runs, who died, and whether `_PIPE_RUNNING` tells the truth."""
    running, died = programs(state)
    for program, who in running.items():
        yield Examined("lock", True, f"{program} runs: {who}")
    for program, who in died.items():
        said = f"{program} {who} and was not started again"
        yield Examined("lock", False, said, f"see its last log lines with {LAST_LINES}, then start it again")
    if not running and not died:
        yield Examined("lock", True, "nothing runs on this host now")
    if (state / RUNNING).exists():
        stale = "compute" not in running
        said = f"{RUNNING} is there and compute does not run" if stale else f"{RUNNING} is there, and compute runs"
        hint = "the last run was killed; start compute again: the next run continues its work" if stale else ""
        yield Examined(RUNNING, not stale, said, hint)


def _leads_to(here: Path, line: str) -> bool:
    """Whether a crontab's line starts what lies in that folder, by its name or through a link, as uv makes them."""
    words = line.split()
    return str(here) in line or any(Path(one).resolve().is_relative_to(here) for one in words if one.startswith("/"))
