"""Sentences that were wrong where a person read them: a cause that was not the cause, a remedy that does not help."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.app.quarantine import choose
from pipeline.cli.fetch import Steps
from pipeline.cli.output.progress import UNITS
from pipeline.errors import ConfigError
from pipeline.records import Failure


@pytest.mark.parametrize(
    ("names", "unanswered", "message", "hint"),
    [
        ([], False, "no batch was named", "--all takes each of them"),
        ([], True, "no batch waits for an answer", "hathi quarantine list"),
        (["S.0"], False, "not held: S.0", "hathi quarantine list"),
    ],
)
def test_quarantine_says_which_of_its_words_is_wrong(
    names: list[str], unanswered: bool, message: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        choose([], names, unanswered=unanswered)
    assert raised.value.message == message
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    ("detail", "lifted"), [("port 8973", True), ("127.0.0.1 is private", True), ("scheme ftp", False)]
)
def test_fetch_names_its_option_only_where_the_option_helps(detail: str, lifted: bool) -> None:
    out = io.StringIO()
    Steps(out, hides=True).end(Failure.of("blocked", detail, url="ftp://x/y"), 0.1, "")
    assert ("--allow-private" in out.getvalue()) == lifted


def test_verify_counts_delivered_folders_beside_shipments_and_says_so() -> None:
    assert UNITS["verify"] == "shipments and folders"


@pytest.mark.parametrize("path", sorted(Path(cli.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_each_json_option_says_that_it_prints_json(path: Path) -> None:
    helps = re.findall(r'"--json",[^)]*?help=\(?"([^"]*)', path.read_text())
    assert [said for said in helps if not re.match("print .*JSON", said)] == []
