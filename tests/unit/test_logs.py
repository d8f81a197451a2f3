"""Log lines have one form, one line each, no secrets, and a size that is capped."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.process import logs
from pipeline.settings import Logs

AT = 1457852392.0  # 2016-03-13 06:59:52 UTC
PRINT_LOGS = Path(__file__).parents[2] / "scripts" / "print_logs.sh"


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    logs.close_log()


def opened(folder: Path, program: str = "deliver", **settings: object) -> Path:
    return logs.open_log(program, Logs(folder=str(folder), **settings), echo=False, clock=lambda: AT)  # type: ignore[arg-type]


def test_a_line_is_utc_time_tab_program_tab_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    path = opened(tmp_path)
    logs.log("deliver").info("sent %d files", 3)
    assert path.name == "deliver.log"
    assert path.read_text() == "2016-03-13 06:59:52\t[deliver]\tsent 3 files\n"


def test_each_program_of_a_process_is_named_in_its_lines(tmp_path: Path) -> None:
    path = opened(tmp_path, "run")
    logs.summary("ship", "transferred 452 files (4 partners) to S3")
    assert path.read_text() == "2016-03-13 06:59:52\t[ship]\tSummary: transferred 452 files (4 partners) to S3\n"


def test_lines_go_to_stderr_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = logs.open_log("ship", Logs(folder=str(tmp_path)), clock=lambda: AT)
    logs.log("ship").info("hello")
    assert capsys.readouterr().err == path.read_text()


def test_newlines_and_control_characters_in_a_message_cannot_forge_a_line(tmp_path: Path) -> None:
    path = opened(tmp_path)
    logs.log("deliver").info("%s", "a\nb\tc\x1b[31m\x00\u2028\x85d\udce4 ünïcode")
    text = path.read_text()
    assert len(text.splitlines()) == 1
    assert text.endswith("\ta\\nb\\tc\\x1b[31m\\x00\\u2028\\x85d\\udce4 ünïcode\n")


def test_the_query_of_a_url_is_kept_out_unless_wanted(tmp_path: Path) -> None:
    message = "failed: https://h.example/a.jpg?sig=hunter2&x=1#f and 'http://h/?token=hunter2'"
    path = opened(tmp_path / "a")
    logs.log("deliver").info("%s", message)
    assert "hunter2" not in path.read_text()
    assert "https://h.example/a.jpg?redacted and 'http://h/?redacted'" in path.read_text()
    path = opened(tmp_path / "b", redact_queries=False)
    logs.log("deliver").info("%s", message)
    assert "hunter2" in path.read_text()


def test_a_trace_has_the_form_of_other_lines_and_no_secrets(tmp_path: Path) -> None:
    path = opened(tmp_path)
    try:
        raise ValueError("https://h/a?sig=hunter2")
    except ValueError:
        logs.log("deliver").exception("stage failed")
    lines = path.read_text().splitlines()
    assert lines[0].endswith("\tError: stage failed")
    assert all(line.startswith("2016-03-13 06:59:52\t[deliver]\t") for line in lines)
    assert "hunter2" not in path.read_text()
    assert lines[-1].endswith("ValueError: https://h/a?redacted")


def test_a_log_is_rotated_by_size_and_few_are_kept(tmp_path: Path) -> None:
    opened(tmp_path, max_bytes=1024, keep=2)
    for number in range(200):
        logs.log("deliver").info("line %d", number)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["deliver.log", "deliver.log.1", "deliver.log.2"]
    assert all(file.stat().st_size <= 1024 for file in files)
    assert "line 199" in files[0].read_text()


def test_a_line_written_while_another_process_rotates_is_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = logs.open_log("compute", Logs(folder=str(tmp_path), max_bytes=4096), echo=False)
    current = logs.SharedRotatingFile._is_current

    def rotated_after_it_was_asked(file: logs.SharedRotatingFile) -> bool:
        found = current(file)
        if path.exists():
            path.rename(tmp_path / "compute.log.1")
        return found

    monkeypatch.setattr(logs.SharedRotatingFile, "_is_current", rotated_after_it_was_asked)
    logs.log("compute").info("here")
    logs.close_log()
    assert [file.read_text().split("\t")[2] for file in tmp_path.iterdir()] == ["here\n"]
    assert capsys.readouterr().err == ""


def test_a_thing_is_said_once_until_it_is_over(tmp_path: Path) -> None:
    path = opened(tmp_path)
    once = logs.Once()
    assert [once.say("ship", "k", "the index is broken") for _ in range(3)] == [True, False, False]
    once.forget("ship", "k")
    assert once.say("ship", "k", "the index is broken again")
    assert len(path.read_text().splitlines()) == 2


def test_opening_again_does_not_double_the_lines(tmp_path: Path) -> None:
    opened(tmp_path)
    path = opened(tmp_path)
    logs.log("deliver").info("one")
    assert len(path.read_text().splitlines()) == 1
    assert not logging.getLogger(logs.ROOT).propagate


def test_an_unwritable_folder_is_a_configuration_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path / "file" / "logs")
    assert str(tmp_path / "file" / "logs" / "deliver.log") in caught.value.message
    assert "logs.folder" in caught.value.hint


def test_print_logs_shows_the_last_ten_summaries_of_each_program_oldest_first_from_rotated_files_too(
    tmp_path: Path,
) -> None:
    opened(tmp_path, "ship", max_bytes=1024, keep=20)
    for number in range(60):
        logs.log("ship").info("polled, nothing like a Summary: here")
        if number % 5 == 0:
            logs.summary("ship", f"transferred {number} files")
    opened(tmp_path, "deliver")
    logs.log("deliver").info("%s", "a message\nwith Summary: inside")
    logs.summary("deliver", "sent 3 MB")
    assert (tmp_path / "ship.log.3").exists()
    done = subprocess.run(
        [PRINT_LOGS, tmp_path], capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}
    )
    lines = done.stdout.splitlines()
    shipped = [line for line in lines if "\t[ship]\t" in line]
    assert [line.split("transferred ")[1] for line in shipped] == [f"{number} files" for number in range(10, 60, 5)]
    assert [line for line in lines if "\t[deliver]\t" in line] == ["2016-03-13 06:59:52\t[deliver]\tSummary: sent 3 MB"]
    assert [line for line in lines if line.startswith("== ")] == ["== deliver", "== ship"]


def test_print_logs_without_logs_says_so(tmp_path: Path) -> None:
    done = subprocess.run([PRINT_LOGS, tmp_path / "none"], capture_output=True, text=True, check=True)
    assert "no logs yet" in done.stderr


def test_a_log_on_a_full_disk_says_so_once_and_its_lines_on_stderr_without_a_stack_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = opened(tmp_path)
    path.unlink()
    path.symlink_to("/dev/full")
    for number in range(2):
        logs.log("deliver").warning("line %d", number)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"the log {path} cannot be written (No space left on device); its lines follow here",
        "2016-03-13 06:59:52\t[deliver]\tWarning: line 0",
        "2016-03-13 06:59:52\t[deliver]\tWarning: line 1",
    ]
