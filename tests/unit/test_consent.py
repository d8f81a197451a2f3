"""Commands that delete say what will go and ask; without a terminal and without --yes they refuse."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.main import main
from pipeline.ledger.bodies import Body
from pipeline.ledger.layout import Keys, ShipmentName
from pipeline.ledger.manifest import Batch, DataFile, End, Place, Plan, Result, Snapshot

STRAY = "shop/d/20200101T000000Z.000.00000.0-0123456789ab/x/y"
HELD = ShipmentName.of("shop", "s", "demo", "20260101T000000Z", 0, 0, 0)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    path = tmp_path / "hathi.toml"
    path.write_text(
        f'state = "{tmp_path}/state"\nlogs.folder = "{tmp_path}/logs"\nbucket.url = "{tmp_path}/bucket"\n'
        f'[lakes.shop]\nurl = "{tmp_path}/shop"\n'
    )
    return path


@pytest.fixture
def strays(tmp_path: Path) -> list[Path]:
    """More than a question names."""
    paths = [tmp_path / "bucket" / f"{STRAY}{number}" for number in range(12)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"of a process that was killed")
        os.utime(path, (1, 1))
    return paths


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where to write what a person types: stdin is a terminal."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield ours
    os.close(ours)


def test_prune_without_a_terminal_refuses_and_deletes_nothing(
    config: Path, strays: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["prune", "--config", str(config)]) == 2
    said = capsys.readouterr().err
    assert "nothing was deleted" in said
    assert "hathi prune --dry-run" in said
    assert "--yes" in said
    assert all(path.exists() for path in strays)
    assert main(["prune", "--yes", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "12 objects deleted\n"
    assert not any(path.exists() for path in strays)


@pytest.mark.parametrize(("answer", "goes"), [("y", True), ("YES", True), ("", False), ("n", False), ("ye", False)])
def test_prune_on_a_terminal_says_what_will_go_and_does_what_is_answered(
    config: Path, strays: list[Path], typed: int, answer: str, goes: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    os.write(typed, f"{answer}\n".encode())
    assert main(["prune", "--config", str(config)]) == 0
    out, asked = capsys.readouterr()
    assert f"{STRAY}0" in asked
    assert "and 2 more" in asked
    assert "12 objects would be deleted" in asked
    assert [path.exists() for path in strays] == [not goes] * 12
    assert out == ("12 objects deleted\n" if goes else "")
    assert ("nothing was deleted" in asked) is not goes


def test_prune_with_nothing_to_delete_has_nothing_to_ask(
    config: Path, typed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prune", "--config", str(config)]) == 0
    assert capsys.readouterr() == ("nothing was deleted\n", "")


def hold(tmp_path: Path) -> None:
    """One held batch, as a box leaves it."""
    keys = Keys("shop")
    data = DataFile(key=keys.shipment_data(HELD, "n", "00000.pb"), size=0, sha256="0" * 64, rows=3)
    snapshot = Snapshot(source="refs/a.csv", version=HELD.version, files=())
    bodies: dict[str, Body] = {
        keys.plan(HELD): Plan(lake="shop", set="demo", snapshot=snapshot, snapshot_digest="s", batch_refs=3,
                              batch_bytes=1, batches=1, due="00000000T000000Z"),
        keys.batch(HELD, 0): Batch(data=data, refs=3, rows=3, rejected=0, cursor=Place()),
        keys.end(HELD): End(batches=1, refs=3, rows=3, rejected=0),
        keys.result(HELD, "f" * 12, 0): Result(kind="held", refs=3, reason="lost 20 times alone"),
    }  # fmt: skip
    for key, body in bodies.items():
        path = tmp_path / "bucket" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body.encode())
    hint = tmp_path / "bucket" / keys.held_hint(HELD, 0)
    hint.parent.mkdir(parents=True, exist_ok=True)
    hint.write_bytes(b"")


def announced(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "bucket").glob("shop/c/*/plan") if path.parent.name != str(HELD)]


def test_drop_all_without_a_terminal_refuses_and_drops_nothing(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["quarantine", "drop", "--all", "--config", str(config)]) == 2
    assert "add --yes" in capsys.readouterr().err
    assert announced(tmp_path) == []
    assert main(["quarantine", "drop", "--all", "--yes", "--config", str(config)]) == 0
    assert len(announced(tmp_path)) == 1


@pytest.mark.parametrize(("answer", "goes"), [("yes", True), ("no", False)])
def test_drop_all_on_a_terminal_says_what_will_be_given_up_and_does_what_is_answered(
    config: Path, tmp_path: Path, typed: int, answer: str, goes: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(tmp_path)
    os.write(typed, f"{answer}\n".encode())
    assert main(["quarantine", "drop", "--all", "--config", str(config)]) == 0
    asked = capsys.readouterr().err
    assert f"{HELD}.0  3 refs  lost 20 times alone" in asked
    assert "Hathi gives up 1 batch with 3 refs for good" in asked
    assert len(announced(tmp_path)) == int(goes)


def test_a_batch_that_is_named_is_dropped_as_it_is_named_and_release_never_asks(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["quarantine", "drop", f"{HELD}.0", "--config", str(config)]) == 0
    assert len(announced(tmp_path)) == 1


@pytest.mark.parametrize(("name", "said"), [("x", "not a shipment: x"), (str(HELD), f"there is no shipment {HELD}")])
def test_a_shipment_that_is_not_there_is_said_before_anybody_is_asked(
    config: Path, name: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["ship", "--close", name, "--config", str(config)]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "--yes" not in told
