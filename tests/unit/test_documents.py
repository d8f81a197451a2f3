"""What the documents of the repository promise of each other and of the code."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import get_args

import pytest

from pipeline.cli import main as command_line
from pipeline.ledger.layout import Keys
from pipeline.ledger.manifest import AttemptEnd, Plan, Result
from pipeline.stage_names import STAGES

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
GLOSSARY = ARCHITECTURE.partition("## Glossary\n")[2].partition("\n## ")[0]


def words() -> set[str]:
    """What the glossary explains: the first column, and the words in code in the second."""
    rows = [line.strip("|").split("|") for line in GLOSSARY.splitlines() if line.startswith("| ")][1:]
    terms = {term.strip(" `") for row in rows for term in row[0].split(",")}
    return terms | set(re.findall(r"`([^`]+)`", GLOSSARY))


@pytest.mark.parametrize(
    "word",
    sorted(
        {
            "strike", "held", "hint", "beat", "claim", "lost", "due", "void", "round", "part", "generation", "window",
            "breaker", "rejected", "duplicate", "ids alike", "left out", "not read yet", "redacted",
            "quarantine", "spill", "poison", "alone", "carried", "child", "parent", "law", "index", "watchdog",
            *get_args(Plan.model_fields["kind"].annotation),
            *get_args(AttemptEnd.model_fields["kind"].annotation),
            *get_args(Result.model_fields["kind"].annotation),
        }
    ),
)  # fmt: skip
def test_the_glossary_explains_each_word_of_logs_and_manifests(word: str) -> None:
    assert word in words()


def test_the_protocol_explains_each_key_that_the_code_spells() -> None:
    protocol = (ROOT / "docs" / "protocol.md").read_text()
    keys = Keys("")
    for prefix in (
        keys.open_hints,
        keys.held_hints,
        keys.alive_hints,
        keys.gone_hints,
        keys.expects_hints,
        keys.refused_hints,
        keys.commits,
        keys.data,
    ):
        assert prefix.strip("/").rstrip("/") + "/" in protocol, prefix
    for name in ("plan", "end", "out", "done", "b/<n>", "t/<n>/<k>", "r/<n>", "t/out/<k>"):
        assert f"/{name}`" in protocol, name
    assert all(f"## {number} {stage}" in protocol for number, stage in ((4, "ship"), (5, "compute"), (7, "deliver")))
    assert set(STAGES) <= set(re.findall(r"[a-z]+", protocol))


def test_each_citation_of_the_protocol_names_a_section_that_there_is() -> None:
    sections = set(re.findall(r"^## (\d+) ", (ROOT / "docs" / "protocol.md").read_text(), re.M))
    cited: dict[str, str] = {}
    for folder in ("pipeline", "tests", "hathi"):
        for path in (ROOT / folder).rglob("*.py"):
            for numbers in re.findall(r"docs/protocol\.md ([\d, ]*\d)", path.read_text()):
                cited |= dict.fromkeys(re.split(r"[, ]+", numbers), path.name)
    assert len(cited) > 8
    assert set(cited) <= sections, cited


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_between_the_pages_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_architecture_is_two_pages_and_names_each_room() -> None:
    assert len(ARCHITECTURE.splitlines()) <= 130
    for path in sorted((ROOT / "pipeline").iterdir()):
        if path.name in ("__init__.py", "py.typed", "__pycache__") or path.name.startswith("."):
            continue
        shown = f"`{path.name}/`" if path.is_dir() else f"`{path.name}`"
        assert shown in ARCHITECTURE, shown


def test_the_licence_is_the_one_that_the_package_names() -> None:
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]
    assert "Version 2.0" in (ROOT / "LICENSE").read_text()[:200]


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_the_readme_leads_to_each_page_at_the_top(name: str) -> None:
    assert f"]({name})" in (ROOT / "README.md").read_text()


def options_of(command: str) -> set[str]:
    """Every option of a command and of what stands below it."""
    found: set[str] = set()
    parsers = [command_line._parser(command)]
    for parser in parsers:
        for action in parser._actions:
            found |= set(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return found


def test_commands_within_sentences_exist_and_have_their_options() -> None:
    """The code blocks are typed by tests/acceptance/test_documents_typed.py; the changelog tells of what was."""
    known = {name: options_of(name) for name in command_line.COMMANDS}
    wrong, seen = [], 0
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M) if page.name != "CHANGELOG.md" else ""
        for span in re.findall(r"`(?:\.venv/bin/)?hathi ([^`]+)`", text):
            name, *words = span.split()
            options = {word.partition("=")[0] for word in words if word.startswith("--")}
            seen += 1
            if not (name.startswith("-") or (name in known and options <= known[name])):
                wrong.append(f"{page.name}: {span}")
    assert wrong == []
    assert seen > 100


def test_scripts_within_sentences_exist() -> None:
    named = {
        name
        for page in PAGES
        for name in re.findall(r"(?<![\w/])(?:scripts/[\w-]+\.(?:sh|py|awk)|run-all\.sh)", page.read_text())
    }
    assert len(named) > 10
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []
