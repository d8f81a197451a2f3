"""The alert rules and the dashboard of config/, by Prometheus' own tool, against the figures that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.servers.prometheus import promtool

ROOT = Path(__file__).parents[2]
RULES = ROOT / "config" / "prometheus-rules.yml"
TESTS = ROOT / "config" / "prometheus-rules.test.yml"
DASHBOARD = ROOT / "config" / "grafana.json"


def documented() -> dict[str, set[str]]:
    """Figure -> labels, as docs/metrics.md has them."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    found = re.findall(r"^\| `(hathi_\w+)(?:\{([^}]*)\})?` \|", page, re.M)
    return {name: set(labels.replace(" ", "").split(",")) - {""} for name, labels in found}


def expressions(value: Any) -> Iterator[str]:
    """Every query of a dashboard."""
    if isinstance(value, dict):
        yield from (text for key, text in value.items() if key in ("expr", "definition") and isinstance(text, str))
        for below in value.values():
            yield from expressions(below)
    elif isinstance(value, list):
        for below in value:
            yield from expressions(below)


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def test_the_rules_are_rules_and_say_what_they_should_of_good_days_and_bad_ones() -> None:
    checked = promtool("check", "rules", RULES)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tried = promtool("test", "rules", TESTS)
    assert tried.returncode == 0, tried.stdout + tried.stderr


def test_each_alert_is_seen_firing_and_says_what_to_do() -> None:
    names = re.findall(r"^ +- alert: (\w+)$", RULES.read_text(), re.M)
    assert len(names) == len(set(names)) >= 15
    assert set(re.findall(r'alertname="(\w+)"', TESTS.read_text())) == set(names)
    assert len(re.findall(r"^ +action: \S", RULES.read_text(), re.M)) == len(names)
    assert len(re.findall(r"^ +labels: \{severity: (?:page|ticket)\}$", RULES.read_text(), re.M)) == len(names)


def test_prometheus_takes_the_scrape_job_and_the_rules_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    (job,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    assert "job_name: hathi" in job
    config = tmp_path / "prometheus.yml"
    config.write_text(f"rule_files: [{RULES}]\nscrape_configs:\n{job}")
    checked = promtool("check", "config", config)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_page_lists_each_alert_under_its_severity() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    for severity in ("page", "ticket"):
        (listed,) = re.findall(rf"^\| `{severity}` \| (.*) \|$", page, re.M)
        rules = re.findall(
            rf"alert: (\w+)\n(?:(?! +- alert).*\n)*? +labels: {{severity: {severity}}}", RULES.read_text()
        )
        assert re.findall(r"`(\w+)`", listed) == rules


def test_a_rule_that_is_wrong_is_found_by_its_test(tmp_path: Path) -> None:
    """The judge judges: with a threshold moved, the same tests fail."""
    (tmp_path / RULES.name).write_text(RULES.read_text().replace("> 0.9", "> 0.99"))
    (tmp_path / TESTS.name).write_text(TESTS.read_text())
    tried = promtool("test", "rules", tmp_path / TESTS.name)
    assert tried.returncode != 0
    assert "HathiDiskFull" in tried.stdout + tried.stderr


def test_rules_and_dashboard_name_only_figures_that_there_are_and_the_dashboard_all_of_them() -> None:
    figures = documented()
    assert len(figures) > 25
    in_rules = set(re.findall(r"hathi_[a-z0-9_]+", RULES.read_text()))
    shown = {name for text in expressions(board()) for name in re.findall(r"hathi_[a-z0-9_]+", text)}
    assert in_rules <= figures.keys()
    assert shown == figures.keys()


def test_each_label_that_a_query_names_is_one_of_its_figure() -> None:
    """`instance` and `job` are Prometheus' own."""
    figures = documented()
    queries = [*expressions(board()), *re.findall(r"expr: (?:>\n)?((?:.+\n)+?) +(?:for|labels):", RULES.read_text())]
    for text in queries:
        names = re.findall(r"(hathi_[a-z0-9_]+)(?:\{([^}]*)\})?", text)
        known = set().union(*(figures[name] for name, _ in names), {"instance", "job"})
        for name, selectors in names:
            assert set(re.findall(r"(\w+)(?:=~|!~|!=|=)", selectors)) <= figures[name], text
        for group in re.findall(r"\b(?:by|on|without) \(([^)]*)\)", text):
            assert set(group.replace(" ", "").split(",")) <= known, text


def test_each_query_of_the_dashboard_is_one_that_prometheus_takes(tmp_path: Path) -> None:
    queries = [text for text in expressions(board()) if not text.startswith("label_values(")]
    assert len(queries) > 25
    rules = [
        {"record": f"query_{number}", "expr": text.replace("$__rate_interval", "5m").replace("$lake", ".*")}
        for number, text in enumerate(queries)
    ]
    path = tmp_path / "dashboard.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML, too
    checked = promtool("check", "rules", path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_dashboard_can_be_imported_as_it_is() -> None:
    found = board()
    panels = found["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert found["templating"]["list"][0]["type"] == "datasource"
    assert all(panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"} for panel in panels)
    boxes = [panel["gridPos"] for panel in panels]
    assert all(box["x"] + box["w"] <= 24 for box in boxes)
    cells = [(box["x"] + dx, box["y"] + dy) for box in boxes for dx in range(box["w"]) for dy in range(box["h"])]
    assert len(cells) == len(set(cells)), "no panel lies on another"
