"""The code blocks of README.md, CONTRIBUTING.md and docs/, and the commands in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LANGUAGES = {"sh", "console", "python", "sql", "toml", "json", "yaml", "crontab", "text"}
_FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.S | re.M)
_INDENTED = re.compile(r"(?:^|\n\n)((?:    .*\n)+)")
_COMMENT = re.compile(r"(?:^|\s+)# .*$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands of a sh or console block, each on one line, without comments and what they print."""
        text = self.text.replace("\\\n", " ")
        lines = text.splitlines()
        if self.language == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        typed = [_COMMENT.sub("", line).rstrip() for line in lines]
        return [re.sub(r" {2,}", " ", line) for line in typed if line]


def pages(root: Path) -> list[Path]:
    """The pages that are walked, in the order in which a newcomer would."""
    return [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))]


def blocks(root: Path) -> list[Block]:
    """Every fenced block of the pages."""
    found = []
    for page in pages(root):
        text = page.read_text()
        for fenced in _FENCED.finditer(text):
            line = text.count("\n", 0, fenced.start()) + 1
            found.append(Block(str(page.relative_to(root)), line, fenced[1], fenced[2]))
    return found


def indented(root: Path) -> list[str]:
    """Code that is indented, not fenced: no language says what it is, so nothing checks it."""
    return [
        f"{page.name}: {block.splitlines()[0]}"
        for page in pages(root)
        for block in _INDENTED.findall(_FENCED.sub("", page.read_text()))
    ]
