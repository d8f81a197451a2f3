"""scripts/venv.sh: made once, by one of two that start together, and again when a lock changed."""

from __future__ import annotations

from tests.acceptance.conftest import Clone


def test_two_starts_at_once_make_one_environment_and_a_third_does_nothing(other_clone: Clone) -> None:
    both = other_clone.run("./scripts/venv.sh runtime & ./scripts/venv.sh runtime && wait $!")
    assert both.returncode == 0, both.stdout
    assert both.stdout.count(".venv is ready") <= 1, both.stdout
    assert other_clone.run("./scripts/venv.sh runtime").stdout == ""
    assert other_clone.run(".venv/bin/hathi --help").returncode == 0


def test_a_changed_lock_makes_the_environment_stale(other_clone: Clone) -> None:
    lock = other_clone.path / "locks" / "runtime.txt"
    content = lock.read_text()
    assert other_clone.run("./scripts/venv.sh runtime").returncode == 0
    try:
        lock.write_text(content + "\n")
        assert ".venv is ready" in other_clone.run("./scripts/venv.sh runtime").stdout
    finally:
        lock.write_text(content)
    assert ".venv is ready" in other_clone.run("./scripts/venv.sh runtime").stdout


def test_a_python_that_is_too_old_is_refused_with_what_to_do(other_clone: Clone) -> None:
    folder = other_clone.path / "old"
    folder.mkdir()
    for name in ("python", "python3", *(f"python3.{minor}" for minor in range(11, 15))):
        (folder / name).write_text("#!/bin/sh\n[ $1 = --version ] && echo Python 3.9.2\nexit 1\n")
        (folder / name).chmod(0o755)
    path = other_clone.path.parent / "other"
    done = other_clone.run(
        f"git clone -q . {path} && cd {path} && PATH={folder}:$PATH ./scripts/venv.sh runtime",
        PATH=other_clone.environ["PATH"],
    )
    assert done.returncode == 2, done.stdout
    assert "needs Python 3.11 or newer; this machine has Python 3.9.2" in done.stdout
