"""The alerts and the dashboard: each metric that they name exists, and promtool accepts them where it is installed."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from metrics_page import PAGE, page
from rows import each_row
from stopwatch import HANG_S

from bucketfront.admin.collectors.table import FAMILIES

DEPLOY = Path(__file__).parent.parent / "deploy"
RULES = DEPLOY / "prometheus" / "bucketfront.rules.yml"
RULE_TESTS = DEPLOY / "prometheus" / "bucketfront.rules.test.yml"
DASHBOARD = DEPLOY / "grafana" / "bucketfront.json"
ALL = [family for families in FAMILIES.values() for family in families]
SERIES = {name: family for family in ALL for name in family.series_names}
PROMTOOL = shutil.which("promtool")

_SELECTOR = re.compile(r"\b(bucketfront_\w+)(?:\{([^}]*)\})?")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPED = re.compile(r"\bby \(([^)]*)\)")
SCRAPED = {"job", "instance", "le"}


def rule_groups() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
    return groups


def queries() -> Iterator[tuple[str, str]]:
    """Yield each query with the name of its rule or panel."""
    for group in rule_groups():
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


QUERIES = list(queries())


def test_the_page_is_current() -> None:
    """docs/metrics.md has the table of the code: `make reference`."""
    assert PAGE.read_text() == page(PAGE.read_text())


@each_row(("name", "query"), QUERIES, ids=[f"{name}-{number}" for number, (name, _) in enumerate(QUERIES)])
def test_names_of_queries_exist(name: str, query: str) -> None:
    """Each metric of a query exists, with the labels by which the query selects and groups."""
    found = _SELECTOR.findall(query)
    assert found or "process_" in query or "up{" in query or "bucketfront:" in query, name
    labels = set(SCRAPED)
    for metric, selector in found:
        assert metric in SERIES, (name, metric)
        known = set(SERIES[metric].labels) | SCRAPED
        assert set(_LABEL.findall(re.sub(r'"[^"]*"', "", selector))) <= known, (name, selector)
        labels |= known
    for group in _GROUPED.findall(query):
        assert {label.strip() for label in group.split(",")} <= labels, (name, group)


def test_alerts_have_cures() -> None:
    """Each alert has a severity, a summary and what to do."""
    alerts = [rule for group in rule_groups() for rule in group["rules"] if "alert" in rule]
    assert len(alerts) == len({alert["alert"] for alert in alerts})
    for alert in alerts:
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert alert["annotations"].keys() == {"summary", "cure"}


def test_panels_do_not_overlap() -> None:
    """Each panel of the dashboard has a title, queries and a place of its own."""
    taken = set[tuple[int, int]]()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (column, line)
            for column in range(place["x"], place["x"] + place["w"])
            for line in range(place["y"], place["y"] + place["h"])
        }
        assert panel["title"]
        assert place["x"] + place["w"] <= 24
        assert panel["type"] == "row" or panel["targets"]
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_promtool(tmp_path: Path) -> None:
    """Promtool accepts the rules, their tests pass, and it can parse each query of the dashboard."""
    assert PROMTOOL is not None
    dashboard = [
        {"record": f"panel:{number}", "expr": re.sub(r"\$\w+", "5m", query)}
        for number, (_, query) in enumerate(QUERIES)
    ]
    rules = tmp_path / "dashboard.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": dashboard}]}))
    for command in (("check", "rules", RULES), ("test", "rules", RULE_TESTS), ("check", "rules", rules)):
        done = subprocess.run(
            [PROMTOOL, *map(str, command)],
            cwd=RULES.parent,
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
