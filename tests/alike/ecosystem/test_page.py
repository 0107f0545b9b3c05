"""docs/compatibility.md says what the table says."""

import re

from .conftest import GROUP
from .page import PAGE, render, versions_of
from .rows import ROWS


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text("utf-8")
    # a newer release within its range does not make the page stale
    versions = {row.package: "?" for row in ROWS} | versions_of(page)
    assert page == render(versions), "stale: .venv-ecosystem/bin/python -m tests.alike.ecosystem.page"


def test_the_versions_of_the_page_are_within_the_ranges_of_the_extra() -> None:
    versions = {name.lower(): version for name, version in versions_of(PAGE.read_text("utf-8")).items()}
    ranges = {each.name.lower(): each.specifier for each in GROUP}
    outside = [name for name, version in versions.items() if name in ranges and not ranges[name].contains(version)]
    assert outside == []


def test_the_page_names_no_place_on_a_machine() -> None:
    assert re.findall(r"(?<![\w.])/(?:tmp|home|root|usr|opt)/", PAGE.read_text("utf-8")) == []
