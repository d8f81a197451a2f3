"""What a run shows of a test beside its result: `figures("520 schedules")`.

The tests of a run are spread over processes, and a person sees the terminal of one: figures go there with the
test's result.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

FIGURES = "figures"


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """A function that takes the lines to show once this test has run, whether it passes or not."""
    return lambda text: record_property(FIGURES, text)


class Shown:
    """Prints figures where the results of all tests arrive."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        said = [str(text) for name, text in report.user_properties if name == FIGURES]
        if terminal is not None and report.when == "call" and said:
            terminal.write("\n" + "\n".join(said) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Shown(config))
