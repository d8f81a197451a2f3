"""A person's own list without a network: images travel inline, the net is the sample's."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from sample import random_features
from tests.environment import environ

ROOT = Path(__file__).parents[2]


def picture(seed: int, size: int = 40) -> bytes:
    """A PNG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    done, content = cv2.imencode(".png", pixels)
    assert done
    return bytes(content)


def row(item: str, content: bytes, partner: int = 7) -> str:
    return json.dumps({"partner_id": partner, "external_id": item, "content": base64.b64encode(content).decode()})


@dataclass(frozen=True)
class OwnList:
    """A folder with refs, a net, and `hathi run` over them."""

    folder: Path

    @property
    def net(self) -> Path:
        return ROOT / "sample" / "random_features.prototxt"

    @property
    def weights(self) -> Path:
        return self.folder / "random.caffemodel"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def refs(self) -> Path:
        return self.folder / "refs.jsonl"

    def command(self, *more: str, **changes: str) -> list[str]:
        options = {
            "refs": self.refs,
            "features": self.out,
            "net": self.net,
            "weights": self.weights,
            "blob": "features",
        }
        options |= {name: Path(value) for name, value in changes.items()}
        words = [sys.executable, "-m", "pipeline.cli.main", "run"]
        for name, value in options.items():
            words += [f"--{name}", str(value)]
        return [*words, *more]

    def hathi(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another command."""
        return self.hathi_in(ROOT, *words)

    def hathi_in(self, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """Another command, in a folder."""
        return subprocess.run(
            [sys.executable, "-m", "pipeline.cli.main", *words],
            cwd=folder,
            env=environ(),
            capture_output=True,
            text=True,
            timeout=100,
        )

    def run(self, *more: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """`hathi run` with these options; stdout and stderr are kept apart."""
        return subprocess.run(
            self.command(*more, **changes), cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=300
        )


@pytest.fixture
def own(tmp_path: Path) -> OwnList:
    made = OwnList(tmp_path)
    random_features.write(made.weights)
    return made
