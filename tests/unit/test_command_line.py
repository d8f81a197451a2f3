"""`hathi`: commands are found, errors become lines and exit codes."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline import __version__
from pipeline.app.config_check import check
from pipeline.app.installation import default_config
from pipeline.cli import main as command_line
from pipeline.errors import NetError, PermanentError, Stopped
from pipeline.process.installed import INSTALLATION
from pipeline.settings import Bucket, Fetch, Logs, Metrics, Settings
from pipeline.stage_names import STAGES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[argparse.Namespace], int]], None]:
    """Puts a function in the place of the command `status`."""

    def install(body: Callable[[argparse.Namespace], int]) -> None:
        module = types.ModuleType("pipeline.cli.stub", "a stub")
        module.add_arguments = lambda parser: None  # type: ignore[attr-defined]
        module.run = body  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "pipeline.cli.stub", module)
        monkeypatch.setitem(command_line.COMMANDS, "status", command_line.Entry("stub", "a stub"))

    return install


def failing(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def body(args: argparse.Namespace) -> int:
        raise error

    return body


def test_the_configuration_beside_the_package_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HATHI_CONFIG", raising=False)
    assert default_config() == ROOT / "config" / "local.toml"
    assert default_config().is_file()
    assert (INSTALLATION / "locks").is_dir()


@pytest.mark.parametrize("words", [["get", "state"], ["show"], ["check", "ship"]], ids=" ".join)
def test_config_without_a_file_is_about_the_default_one(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HATHI_CONFIG", raising=False)
    assert command_line.main(["config", *words]) in (0, 2), "2: the sample has not been made"
    said = capsys.readouterr().out
    assert str(ROOT / "work" / "state" if words[0] == "get" else ROOT / "config" / "local.toml") in said


def test_every_command_that_is_listed_exists() -> None:
    for name, entry in command_line.COMMANDS.items():
        assert find_spec(f"pipeline.cli.{entry.module}") is not None, name


def test_a_report_that_is_refused_pays_for_no_template_engine(tmp_path: Path) -> None:
    config = tmp_path / "hathi.toml"
    config.write_text(f'state = "{tmp_path}"\n[bucket]\nurl = "{tmp_path}"\n[lakes.shop]\nurl = "{tmp_path}"\n')
    words = ["report", "20261120T000000Z.0.0000.0-000000000000", "--config", str(config)]
    code = f"import sys; from pipeline.cli.main import main\nmain({words})\nprint('jinja2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "False\n"


def test_help_lists_commands_and_exit_codes_and_imports_nothing_heavy() -> None:
    code = "import sys; from pipeline.cli.main import main\ntry: main(['--help'])\nfinally: print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "exit codes:" in done.stdout
    for name in command_line.COMMANDS:
        assert re.search(rf"^ +{name}\b", done.stdout, re.M)
    for heavy in ("numpy", "pydantic", "pyarrow", "cv2", "aiohttp", "openvino", "onnx", "rich"):
        assert f"'{heavy}'" not in done.stdout, heavy


def test_a_command_that_makes_arrays_does_not_pay_for_pandas() -> None:
    """pyarrow would import it at the first array; it is installed here, since consumers are tested with it."""
    code = """
import sys
from pipeline.cli import main
def run():
    import pyarrow
    print(pyarrow.array([{"a": 1}, None]).to_pylist(), "pandas" in sys.modules)
    return 0
main.main = run
main.entry()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[{'a': 1}, None] False\n"


def test_help_shows_each_command_once_under_what_a_person_wants_to_do() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli.main", "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    titles = [line.removesuffix(":") for line in done.stdout.splitlines() if line.endswith(":") and line[0] != " "]
    assert [title for title in titles if title in command_line.GROUPS] == list(command_line.GROUPS)
    for title, entries in command_line.GROUPS.items():
        block = done.stdout.partition(f"\n{title}:\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in block.splitlines()] == list(entries)
    for name, entry in command_line.COMMANDS.items():
        assert done.stdout.count(entry.purpose) == 1, name


def test_an_error_is_message_detail_and_hint_without_a_trace(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(failing(PermanentError("it broke", "at the third bolt", "turn the bolt")))
    assert command_line.main(["status"]) == 1
    assert capsys.readouterr().err == "hathi: it broke\n  detail: at the third bolt\n  hint: turn the bolt\n"


@pytest.mark.parametrize("words", [["--debug", "status"], ["status", "--debug"]])
def test_with_debug_the_trace_is_printed(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    command(failing(PermanentError("it broke")))
    assert command_line.main(words) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(NetError("n"), 2), (Stopped("s"), 4), (KeyboardInterrupt(), 130)])
def test_the_exit_code_is_that_of_the_error(command: Callable[..., None], error: BaseException, code: int) -> None:
    command(failing(error))
    assert command_line.main(["status"]) == code


def test_an_unexpected_error_is_one_line_and_names_the_file_with_the_trace(
    command: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    command(failing(ZeroDivisionError("division by zero\nsecond line\nhttp://user:secret@host/a?token=secret")))
    assert command_line.main(["status"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("hathi: unexpected ZeroDivisionError: division by zero; the trace is in ")
    trace = Path(lines[0].split(" is in ")[1])
    assert "Traceback" in trace.read_text()
    assert "secret" not in trace.read_text()
    assert trace.stat().st_mode & 0o777 == 0o600, "a temporary folder is for all"


def test_an_unknown_command_is_a_usage_error_that_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command_line.main(["rum"])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert all(name in said for name in command_line.COMMANDS)
    assert "did you mean run?" in said
    with pytest.raises(SystemExit):
        command_line.main(["stat"])
    assert "did you mean start, stats, status?" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command_line.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"hathi {__version__}\n"


@pytest.mark.parametrize("words", [["A1"], ["A1", "A2"]])
def test_an_item_without_its_partner_is_told_how_to_ask(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command_line.main(["why", *words])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "PARTNER ITEM" in said
    assert "a list without partners has partner 0" in said
    assert "--url URL" in said


def test_config_show_prints_where_each_value_came_from_and_masks_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "h.toml"
    path.write_text('[bucket]\nurl = "b"\nsecret_key = "hunter2"\n')
    monkeypatch.setenv("HATHI_FETCH__BURST", "3")
    assert command_line.main(["config", "show", "--config", str(path)]) == 0
    out = capsys.readouterr().out
    assert f'bucket.url = "{tmp_path}/b"  # {path}\n' in out
    assert "fetch.burst = 3  # HATHI_FETCH__BURST\n" in out
    assert "fetch.share = 1.0  # default\n" in out
    assert command_line.main(["config", "show", "--json", "--config", str(path)]) == 0
    both = out + (shown := capsys.readouterr().out)
    assert json.loads(shown)["fetch.burst"] == {"value": 3, "from": "HATHI_FETCH__BURST"}
    assert "hunter2" not in both


def test_config_check_exits_2_when_something_cannot_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "h.toml"
    path.write_text(
        'state = "s"\nlogs.folder = "l"\n[bucket]\nurl = "b"\n[lakes.m]\nurl = "lake"\n'
        '[sets.a]\nnet = "n.onnx"\nblob = "x"\nroot = "r"\n'
    )
    assert command_line.main(["config", "check", "--config", str(path)]) == 2
    assert f"the model {tmp_path}/n.onnx cannot be read" in capsys.readouterr().out
    assert command_line.main(["config", "check", "ship", "--config", str(path)]) == 0, "a gateway needs no net"


def test_config_check_does_not_look_for_hog_among_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "h.toml"
    path.write_text(
        'state = "s"\nlogs.folder = "l"\n[bucket]\nurl = "b"\n[lakes.m]\n'
        '[sets.a]\nnet = "hog"\nblob = "hog"\nroot = "r"\n'
    )
    assert command_line.main(["config", "check", "--config", str(path)]) == 0
    assert "hog: 3780 values" in capsys.readouterr().out


def settings_in(folder: Path, **more: object) -> Settings:
    return Settings(
        state=str(folder / "state"),
        bucket=Bucket(url=str(folder / "bucket")),
        logs=Logs(folder=str(folder / "logs")),
        **more,  # type: ignore[arg-type]
    )


def said(settings: Settings, level: str) -> dict[str, str]:
    return {finding.key: finding.text for finding in check(settings, STAGES) if finding.level == level}


def test_check_warns_of_what_is_lifted_and_of_what_is_missing(tmp_path: Path) -> None:
    warnings = said(settings_in(tmp_path, fetch=Fetch(allow_private=True)), "warning")
    assert {"fetch.allow_private", "fetch.contact", "sets"} <= set(warnings)
    assert "no lake is configured" in said(settings_in(tmp_path), "error")["lakes"], "run refuses it"


def test_check_warns_of_a_metrics_file_that_nobody_would_read(tmp_path: Path) -> None:
    assert "metrics.file" in said(settings_in(tmp_path, metrics=Metrics(file="/x/hathi.txt")), "warning")
    assert "metrics.file" not in said(settings_in(tmp_path, metrics=Metrics(file="/x/hathi.prom")), "warning")


def test_check_finds_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "bucket").touch()
    assert "is not a folder" in said(settings_in(tmp_path), "error")["bucket.url"]
    assert not (tmp_path / "state").exists(), "checking makes nothing"


@pytest.mark.parametrize("ours", [True, False])
def test_output_that_nobody_reads_ends_with_141_and_another_broken_pipe_is_unexpected(ours: bool) -> None:
    code = "import sys\nfrom pipeline.cli import main, status\n"
    code += "def broken(args): raise BrokenPipeError(32, 'of whoever it is')\nstatus.run = broken\n"
    code += "sys.exit(main.main(['status']))"
    read, write = os.pipe()
    if ours:
        os.close(read)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=write, stderr=subprocess.DEVNULL, timeout=60)
    os.close(write)
    if not ours:
        os.close(read)
    assert done.returncode == (141 if ours else 1)
