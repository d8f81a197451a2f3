"""What partners write, names of files, ids and URLs, moves no cursor, turns no text round and leaves no folder."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import pytest

from pipeline.errors import FormatError
from pipeline.ledger.bodies import body_of
from pipeline.ledger.deliveries import IndexFile
from pipeline.ledger.manifest import DataFile, Done, OutFile, SourceFile
from pipeline.process.logs import escape
from tests.fuzz.targets import CORPUS
from tests.integration.conftest import picture, row
from tests.integration.test_secrets import hathi, site

__all__ = ["site"]

NASTY = "\x1b[2J\x1b]0;owned\x07\u202e\u2066\r\u2028\x9b31m"
"""Clears a screen, names a window, turns letters round, and begins a line anew."""


def obeyed(text: str) -> list[str]:
    """What in it a terminal would obey: control characters but ends of lines, and what changes direction."""
    return [
        f"{ord(sign):x} after {text[max(0, at - 60) : at]!r}"
        for at, sign in enumerate(text)
        if sign != "\n" and (unicodedata.category(sign) == "Cc" or unicodedata.bidirectional(sign) in BIDI)
    ]


BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def test_no_terminal_obeys_a_file_name_an_id_or_a_url(site: Path) -> None:
    config = ("--config", str(site / "hathi.toml"))
    refs = site / "lake" / "refs"
    lines = [row(f"sku{NASTY}", b"no picture"), row("good", picture(1))]
    lines += [json.dumps({"partner_id": 7, "external_id": f"x{NASTY}", "url": f"http://127.0.0.1:9/{NASTY}"})]
    lines += [json.dumps({"partner_id": f"7{NASTY}", "external_id": "bad", "url": f"http://{NASTY}/"})]
    (refs / f"a{NASTY.replace('/', '')}.jsonl").write_text("\n".join(lines) + "\n")
    (refs / f"partner=7{NASTY}").mkdir()
    (refs / f"partner=7{NASTY}" / "b.jsonl").write_text(row("else", picture(2)) + "\n")
    (refs / f"broken{NASTY}.jsonl").write_bytes(b"\xff\xfe")
    net = site / f"net{NASTY}.prototxt"
    net.write_text(f'name: "{NASTY!r}" layer {{ typ: "x" }}')
    said = {
        "run": hathi(site, "run", *config),
        "status": hathi(site, "status", *config),
        "health": hathi(site, "health", *config),
        "verify": hathi(site, "verify", *config, "--deep"),
        "why": hathi(site, "why", *config, "7", f"sku{NASTY}"),
        "quarantine": hathi(site, "quarantine", *config, "list"),
        "prune": hathi(site, "prune", *config, "--dry-run"),
        "ship": hathi(site, "ship", *config, "--again", "7"),
        "fetch": hathi(site, "fetch", "--allow-private", f"http://127.0.0.1:9/{NASTY}", f"http://{NASTY}.example/"),
        "net": hathi(site, "net", "show", str(net)),
        "no such": hathi(site, "status", "--config", f"/nowhere/{NASTY}"),
    }
    assert "good" in hathi(site, "why", *config, "7", "good")
    said |= {path.name: path.read_text().replace("\t", " ") for path in (site / "logs").glob("*.log")}
    assert any("\\x1b[2J" in text for text in said.values()), "the names were shown at all"
    assert {
        where: obeyed(text.replace("\t", " "))[:3] for where, text in said.items() if obeyed(text.replace("\t", " "))
    } == {}


def test_what_turns_text_round_or_hides_is_escaped_and_letters_are_not() -> None:
    for code in (0x61C, 0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF, 0xE0041):
        assert escape(f"a{chr(code)}b") == f"a{chr(code).encode('unicode_escape').decode()}b"
    for text in ("Größe 42", "שלום", "سلام", "日本語", "a\u200db\u200c", "🙂"):
        assert escape(text) == text


@pytest.mark.parametrize("path", ["../other/d/x", "/etc/passwd", "a/../../b", ".."])
def test_no_body_names_what_lies_elsewhere(path: str) -> None:
    data = {"key": path, "size": 1, "sha256": "0" * 64, "rows": 1}
    index_file = {"name": path, "size": 1, "sha256": "0" * 64, "rows": 1}
    for kind, fields in (
        (DataFile, data),
        (OutFile, {**data, "name": "features/a.parquet"}),
        (OutFile, {**data, "key": "shop/d/x", "name": path}),
        (IndexFile, index_file),
        (SourceFile, {"path": path, "length": 1, "modified": 1}),
    ):
        with pytest.raises(ValueError, match="leads out of its folder"):
            kind.model_validate(fields)
    with pytest.raises(FormatError, match="leads out of its folder"):
        body_of(Done, json.dumps({"format": 1, "folders": [path], "at": ""}).encode(), "c/done")


def test_a_manifest_that_names_a_key_of_another_lake_is_refused_and_said(site: Path) -> None:
    config = ("--config", str(site / "hathi.toml"))
    assert "rror" not in hathi(site, "run", "--once", "ship", *config)
    batch, *others = (site / "bucket" / "shop" / "c").glob("*/b/00000")
    body = json.loads(batch.read_text())
    body["data"]["key"] = "other/d/stolen"
    batch.write_text(json.dumps(body))
    assert "other/d/stolen is not data of the lake shop" in hathi(site, "run", "--once", "compute", *config)
    assert len(list((site / "bucket" / "shop" / "c").glob("*/*/r/00000"))) == len(others), "the others have theirs"


def test_a_file_that_kills_its_reader_stops_no_other(site: Path) -> None:
    config = (site / "hathi.toml").read_text()
    (site / "hathi.toml").write_text(config.replace("refs/*.jsonl", "refs/*"))
    (site / "lake" / "refs" / "0.orc").write_bytes((CORPUS / "orc-75f0cf0c4214").read_bytes())
    said = hathi(site, "run", "--config", str(site / "hathi.toml"))
    assert re.search(r"0\.orc cannot be read as ORC.*the file kills the process that reads it", said)
    assert list((site / "lake" / "features").glob("*/7/_SUCCESS"))
