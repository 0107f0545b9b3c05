"""The manual's page of figures says what the last run of the benchmarks found."""

import json
import re
from typing import Any

import pytest

from benchmarks.bench import CHARTS, FIGURES, PAGE
from benchmarks.cases import CASES, FLOOR, GROUPS
from benchmarks.chart import charts
from benchmarks.report import page_with


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FIGURES.read_text("utf-8"))
    return found


def test_the_tables_are_those_of_the_figures(figures: dict[str, Any]) -> None:
    page = PAGE.read_text("utf-8")
    assert page == page_with(page, figures), "python -m benchmarks.bench --page writes it anew"


def test_the_charts_are_those_of_the_figures(figures: dict[str, Any]) -> None:
    assert {path.name: path.read_text("utf-8") for path in CHARTS.iterdir()} == dict(charts(figures))


def test_every_case_is_in_the_figures(figures: dict[str, Any]) -> None:
    measured = {(case["group"], case["name"]) for case in figures["cases"] if case["group"] != FLOOR}
    assert measured >= {(case.group, case.name) for case in CASES}


def test_every_group_is_on_the_page() -> None:
    shown = set(re.findall(r"<!-- figures: ([^>]+?) -->", PAGE.read_text("utf-8")))
    assert shown == {*GROUPS, FLOOR, "machine", "compared", "start"} - {"bare", "served"}
