"""pytest plugin of scripts/test.sh: how many tests each part of tests/ had, and the seconds they took."""

from __future__ import annotations

from collections import defaultdict

import pytest

_seconds: dict[str, float] = defaultdict(float)
_tests: dict[str, set[str]] = defaultdict(set)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    part = report.nodeid.split("/")[1] if report.nodeid.count("/") > 1 else "."
    _seconds[part] += report.duration
    _tests[part].add(report.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("parts")
    for part, seconds in _seconds.items():
        terminalreporter.line(f"{part:<12} {len(_tests[part]):>5} tests {seconds:>7.1f} s")
