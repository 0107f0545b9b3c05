"""Packages that nobody here wrote do through gateway and runner what they do as plain ASGI or WSGI."""

from collections import Counter
from pathlib import Path

import pytest

from tests.alike.ecosystem.conftest import GROUP
from tests.alike.ecosystem.rows import ROWS
from tests.alike.ecosystem.stage import LIMITS, Row, alone, differences, gateway, plain, unmet

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_client_and_upstream_get_what_they_get_without_a_gateway(row: Row):
    here = plain(row)
    found = [*differences(row, here, gateway(row)), *unmet(row, here)]
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("mounted", [row for row in ROWS if row.alone is not None], ids=lambda row: row.name)
def test_the_request_phase_alone_does_too_where_the_page_says_so(mounted: Row):
    row = alone(mounted)
    here = plain(row)
    found = [*differences(row, here, gateway(row)), *unmet(row, here)]
    assert not found, "\n".join(["", *found])


def test_each_row_is_tried_with_ten_requests_or_more():
    assert [row.name for row in ROWS if len(row.all_requests) < 10] == []


def test_there_are_45_rows_or_more_each_with_a_name_of_its_own():
    assert len(ROWS) >= 45
    assert Counter(row.name for row in ROWS).most_common(1)[0][1] == 1


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_has_its_line_in_the_documentation(name: str):
    assert LIMITS[name].line in (ROOT / "docs" / "mapping.md").read_text("utf-8")


def test_each_package_of_the_extra_has_a_row():
    tried = {row.package.lower() for row in ROWS}
    assert [each.name for each in GROUP if each.name.lower() not in tried and each.name not in SUPPORT] == []


SUPPORT = {"asgi_bridge", "opentelemetry-sdk", "packaging", "pytest", "python-multipart"}
"""What the packages under test stand on."""
