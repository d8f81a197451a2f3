"""An installation in folders whose runs take little: inline images, OpenCV's descriptor as the net, a clock as told."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.manifest import Index
from tests.crash.zygote import CLOCK, FAULTS, JOURNAL, Zygote
from tests.faults.faults import Fault, encoded

SHIPPED = 1_700_000_000.0
"""The time of the source's files."""
NOW = SHIPPED + 1000.0
DAY = 86400.0
_NONCE = re.compile(r"/[0-9a-f]{16}(?=/|$|\.proposal)")
_ATTEMPT = re.compile(r"/t/")

CONFIG = """
state = "{state}"
[bucket]
url = "{bucket}"
fsync = false
[lakes.shop]
url = "{lake}"
[[lakes.shop.sources]]
path = "refs"
[sets.demo]
net = "hog"
blob = "hog"
input_size = [32, 32]
root = "features"
[ship]
batch_refs = 2
batches_per_shipment = 2
retry_delays = [0, 100000000, 100000000]
[fetch]
attempts = 1
allow_private = true
[compute]
threads = 1
free_bytes = 0
strikes = 2
lost = 20
strikes_alone = 1
lost_alone = 1
[daemon]
poll_seconds = 0.2
[logs]
folder = "{logs}"
"""


def picture(seed: int, size: int = 32) -> bytes:
    """A PNG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    done, content = cv2.imencode(".png", pixels)
    assert done
    return bytes(content)


def inline(item: str, content: bytes, partner: int = 7) -> str:
    """A line of a ref file whose image travels with it."""
    return json.dumps({"partner_id": partner, "external_id": item, "content": base64.b64encode(content).decode()})


def down(item: str, partner: int = 7) -> str:
    """A line whose host cannot be reached: a failure that is tried again."""
    return json.dumps({"partner_id": partner, "external_id": item, "url": "http://127.0.0.1:1/none.png"})


@dataclass
class Site:
    """Folders, their configuration, and `hathi` over them."""

    folder: Path
    zygote: Zygote = field(repr=False)
    box: str = "one"
    """Of several hosts over one bucket and one lake: each has a state folder of its own."""

    @property
    def bucket(self) -> Path:
        return self.folder / "bucket"

    @property
    def lake(self) -> Path:
        return self.folder / "lake"

    @property
    def state(self) -> Path:
        return self.folder / f"state-{self.box}"

    @property
    def logs(self) -> Path:
        return self.folder / f"logs-{self.box}"

    @property
    def journal(self) -> Path:
        return self.folder / f"journal-{self.box}"

    @property
    def config(self) -> Path:
        path = self.folder / f"{self.box}.toml"
        if not path.exists():
            path.write_text(CONFIG.format(state=self.state, bucket=self.bucket, lake=self.lake, logs=self.logs))
        return path

    def refs(self, name: str, lines: Sequence[str], at: float = SHIPPED) -> Path:
        """A ref file as of a time."""
        path = self.lake / "refs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.folder / "fresh"
        fresh.write_text("\n".join(lines) + "\n")
        os.utime(fresh, (at, at))
        fresh.replace(path)
        return path

    def copy_to(self, folder: Path) -> Site:
        """The same installation elsewhere, with the same files: nothing of what is linked is ever changed in place."""
        for part in ("bucket", "lake"):
            if (self.folder / part).exists():
                shutil.copytree(self.folder / part, folder / part, copy_function=os.link)
        folder.mkdir(parents=True, exist_ok=True)
        return Site(folder, self.zygote, self.box)

    def start(
        self,
        *commands: Sequence[str],
        faults: dict[str, list[Fault]] | None = None,
        clock: str | float = NOW,
        journal: bool = True,
        **environ: str,
    ) -> int:
        """A process that runs these commands; its pid."""
        told = {place: json.loads(encoded(some)) for place, some in (faults or {}).items()}
        more = {JOURNAL: str(self.journal)} if journal else {}
        return self.zygote.start(
            *([*words, "--config", str(self.config)] for words in commands),
            environ={FAULTS: json.dumps(told), CLOCK: str(clock), **more, **environ},
            out=self.folder / f"out-{self.box}",
            err=self.folder / f"err-{self.box}",
        )

    def hathi(self, *words: str, **options: Any) -> int:
        """One command to its end; its exit code."""
        return self.zygote.wait(self.start(list(words), **options))

    @property
    def said(self) -> str:
        """What the last process printed."""
        parts = [self.folder / f"{name}-{self.box}" for name in ("out", "err")]
        return "".join(part.read_text(errors="replace") for part in parts if part.exists())

    # --- what stands ---

    def noted(self, kind: str = "") -> list[tuple[str, str, str, str]]:
        """(store, fault or `change`, verb, key) of all that was noted so far."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        rows = [tuple(line.split("\t")) for line in lines]
        return [row for row in rows if (row[1] == "change") == (kind == "change")]  # type: ignore[misc]

    def delivered(self) -> dict[str, object]:
        """What a consumer sees: the bytes of each delivered file, and the index."""
        root = self.lake / "features"
        found: dict[str, object] = {}
        for path in sorted(root.glob("2*/**/*")):
            if path.is_file():
                found[path.relative_to(root).as_posix()] = path.read_bytes()
        index = self.index()
        found["outputByPartner"] = (
            index.partners,
            sorted(index.deliveries, key=lambda one: one.folder),
        )
        return found

    def index(self, root: str = "features") -> Index:
        path = self.lake / root / "outputByPartner"
        return Index.model_validate_json(path.read_bytes()) if path.exists() else Index()

    def ledger(self) -> Counter[str]:
        """What stands in the bucket, without attempts and beats; names that nobody else uses are one."""
        keys = [path.relative_to(self.bucket).as_posix() for path in self.bucket.rglob("*") if path.is_file()]
        kept = (key for key in keys if not _ATTEMPT.search(key) and "/h/alive/" not in key and key[0] != ".")
        return Counter(key for key in (_NONCE.sub("/NONCE", one) for one in kept) if "/d/" not in key)

    def left(self) -> list[str]:
        """What the state folder holds that no ended process should leave."""
        known = {f"{stage}.lock" for stage in ("ship", "compute", "aggregate", "deliver")} | {"spill"}
        found = {path.name for path in self.state.iterdir()} if self.state.exists() else set()
        return sorted(name for name in found - known if not name.startswith("pruned."))
