"""An installation in folders whose runs take little: inline images, OpenCV's descriptor as the net, a clock as told."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq

from pipeline.errors import NotFound
from pipeline.ledger.deliveries import Index
from pipeline.ledger.layout import Keys
from pipeline.settings import load
from pipeline.stage_names import STAGES
from pipeline.stores.opening import open_bucket, open_lake
from tests.crash.zygote import CLOCK, FAULTS, JOURNAL, Zygote
from tests.faults.faults import Fault, encoded

SHIPPED = 1_700_000_000.0
"""The time of the source's files."""
NOW = SHIPPED + 1000.0
DAY = 86400.0
YEARS_AWAY = "2031"
_NONCE = re.compile(r"/[0-9a-f]{16}(?=/|$|\.proposal)")
_ATTEMPT = re.compile(r"/t/")

CONFIG = """
state = "{state}"
[bucket]
{bucket}
[lakes.shop]
{lake}
[[lakes.shop.sources]]
path = "refs"
[sets.demo]
net = "hog"
blob = "hog"
input_size = [32, 32]
root = "{root}"
[ship]
batch_refs = 2
batches_per_shipment = 2
retry_delays = [0, 300000000, 300000000]
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


def data_url(item: str, content: bytes, partner: int = 7) -> str:
    """A line of a ref file whose URL is its image: it is fetched like any other."""
    url = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return json.dumps({"partner_id": partner, "external_id": item, "url": url})


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
    root: str = "features"
    bucket_lines: str = ""
    """Of the table [bucket], where it is no folder of this installation; lake_lines: of [lakes.shop]."""
    lake_lines: str = ""

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
            bucket = self.bucket_lines or f'url = "{self.bucket}"\nfsync = false'
            lake = self.lake_lines or f'url = "{self.lake}"'
            path.write_text(CONFIG.format(state=self.state, bucket=bucket, lake=lake, root=self.root, logs=self.logs))
        return path

    def refs(self, name: str, lines: Sequence[str], at: float = SHIPPED) -> Path:
        """A ref file as of a time."""
        path = self.lake / "refs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.lake / "fresh"  # of the same disk, and where nobody looks
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
        for words in commands:
            self._pruned_today(list(words), clock)
        told = {place: json.loads(encoded(some)) for place, some in (faults or {}).items()}
        more = {JOURNAL: str(self.journal)} if journal else {}
        return self.zygote.start(
            *([*words, "--config", str(self.config)] for words in commands),
            environ={FAULTS: json.dumps(told), CLOCK: str(clock), **more, **environ},
            out=self.folder / f"out-{self.box}",
            err=self.folder / f"err-{self.box}",
        )

    def _pruned_today(self, words: list[str], clock: str | float) -> None:
        """A run does not also do what is done once a day, which would put back what a kill has lost."""
        stages = [word for word in words[1:] if not word.startswith("-")]
        mark = self.state / f"pruned.{'-'.join(stages or STAGES)}"
        if words[0] in ("run", "serve") and not mark.exists() and not str(clock).startswith("@"):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
            os.utime(mark, (float(clock or time.time()),) * 2)

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
        """What a consumer sees: the bytes of each delivered file, and the index but for when and where it says."""
        settings = load(self.config, {})
        lake = open_lake(settings, "shop")
        top = f"{self.root}/"
        found: dict[str, object] = {entry.key.removeprefix(top): lake.get(entry.key) for entry in lake.list(f"{top}2")}
        try:
            index = Index.model_validate_json(lake.get(f"{top}outputByPartner"))
        except NotFound:
            index = Index()
        deliveries = (one.model_copy(update={"delivered": ""}) for one in index.deliveries)
        partners = {key: one.model_copy(update={"outputFolder": ""}) for key, one in index.partners.items()}
        found["outputByPartner"] = partners, sorted(deliveries, key=lambda one: one.folder)
        return found

    def done(self, whole: Site) -> bool:
        """Whether what is delivered is what another installation has."""
        return self.delivered() == whole.delivered()

    def rows(self) -> list[tuple[str, str, str]]:
        """(file, external id, reason or hash of the feature) of each delivered row, whatever the time was."""
        found = []
        for path in sorted((self.lake / self.root).glob("2*/**/*.parquet")):
            name = path.relative_to(self.lake / self.root).as_posix()
            for row in pq.read_table(path).to_pylist():
                value = row.get("reason") or hashlib.sha256(repr(row["features"]).encode()).hexdigest()
                found.append((name, str(row["external_id"]), str(value)))
        return found

    def delivered_at(self) -> list[str]:
        """When the index says that each folder was delivered."""
        return sorted(f"{one.folder} {one.delivered}" for one in self.index().deliveries)

    def index(self) -> Index:
        """As it stands in a lake that is a folder."""
        path = self.lake / self.root / "outputByPartner"
        return Index.model_validate_json(path.read_bytes()) if path.exists() else Index()

    def nothing_open(self) -> bool:
        """Whether no hint stands but those of retries that are years away."""
        keys = Keys("shop")
        hints = open_bucket(load(self.config, {})).list(keys.open_hints)
        return all(entry.key.removeprefix(keys.open_hints) > YEARS_AWAY for entry in hints)

    def ledger(self) -> Counter[str]:
        """What stands in the bucket, without attempts, beats and pages; names that nobody else uses are one."""
        keys = [path.relative_to(self.bucket).as_posix() for path in self.bucket.rglob("*") if path.is_file()]
        aids = ("/h/alive/", "/u/")
        kept = (key for key in keys if not _ATTEMPT.search(key) and key[0] != "." and not any(a in key for a in aids))
        return Counter(key for key in (_NONCE.sub("/NONCE", one) for one in kept) if "/d/" not in key)

    def left(self) -> list[str]:
        """What no ended process leaves in its state folder once the next one has ended by itself.

        Commands that look leave their empty folder for files on their way; the next process takes it.
        """
        found = [*self.state.glob("_PIPE_RUNNING"), *self.state.glob("spill/*/*"), *self.state.glob("tmp/*")]
        return sorted(path.relative_to(self.state).as_posix() for path in found)
