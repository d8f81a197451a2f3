"""What a process and its children do, as the interpreter itself reports it: forks, programs, connections, names.

Goes with PYTHONPATH as `sitecustomize`, so that it sees everything from the first import on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEEN = ("os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system", "subprocess.Popen", "pty.spawn",
        "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")  # fmt: skip

PROGRAM = """
import json, os, sys

def see(event, about, seen=frozenset({seen!r}), log={log!r}):
    if event not in seen:
        return
    frame, stack = sys._getframe(1), []
    while frame is not None and len(stack) < 12:
        stack.append(f"{{frame.f_code.co_filename}}:{{frame.f_lineno}}")
        frame = frame.f_back
    words = list(map(str, about[1])) if event == "subprocess.Popen" else [str(one)[:300] for one in about]
    line = json.dumps({{"event": event, "about": words, "pid": os.getpid(), "stack": stack}}) + "\\n"
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, line.encode())
    os.close(handle)

sys.addaudithook(see)
"""


@dataclass(frozen=True)
class Witness:
    """folder: for PYTHONPATH."""

    folder: Path

    @classmethod
    def placed(cls, folder: Path, more: str = "") -> Witness:
        """more: what each process does as well, after it has begun to look."""
        folder.mkdir()
        made = cls(folder)
        (folder / "sitecustomize.py").write_text(PROGRAM.format(seen=SEEN, log=str(made.log)) + more)
        return made

    @property
    def log(self) -> Path:
        return self.folder / "seen.jsonl"

    def seen(self, *events: str) -> Iterator[dict[str, Any]]:
        """Events of these kinds, in order; each with what it was about and where it came from."""
        if self.log.exists():
            for line in self.log.read_text().splitlines():
                one = json.loads(line)
                if one["event"] in events:
                    yield one
