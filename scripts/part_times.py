"""pytest plugin of scripts/test.sh: how many tests each part of tests/ and each lane had, and the seconds they took."""

from __future__ import annotations

from collections import defaultdict

import pytest

_seconds: dict[str, float] = defaultdict(float)
_tests: dict[str, set[str]] = defaultdict(set)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    part = report.nodeid.split("/")[1] if report.nodeid.count("/") > 1 else "."
    lane = getattr(report, "node", None)  # of pytest-xdist
    for name in (part, f"lane {lane.gateway.id}") if lane is not None else (part,):
        _seconds[name] += report.duration
        _tests[name].add(report.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("parts")
    for name in sorted(_seconds, key=lambda name: (name.startswith("lane "), name)):  # who came first is chance
        terminalreporter.line(f"{name:<12} {len(_tests[name]):>5} tests {_seconds[name]:>7.1f} s")
