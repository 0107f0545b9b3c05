"""Packages of others do the same through gateway and runner as in plain ASGI or WSGI."""

from collections import Counter

import pytest

from ..limits import LIMITS, undocumented
from .conftest import GROUP
from .rows import ROWS
from .stage import Row, alone, differences, gateway, plain, unmet


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_client_and_upstream_get_what_they_get_without_a_gateway(row: Row) -> None:
    here = plain(row)
    found = [*differences(row, here, gateway(row)), *unmet(row, here)]
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("mounted", [row for row in ROWS if row.alone is not None], ids=lambda row: row.name)
def test_the_request_phase_alone_does_too_where_the_page_says_so(mounted: Row) -> None:
    row = alone(mounted)
    here = plain(row)
    found = [*differences(row, here, gateway(row)), *unmet(row, here)]
    assert not found, "\n".join(["", *found])


def test_each_row_is_tried_with_ten_requests_or_more() -> None:
    assert [row.name for row in ROWS if len(row.all_requests) < 10] == []


def test_there_are_45_rows_or_more_each_with_a_name_of_its_own() -> None:
    assert len(ROWS) >= 45
    assert Counter(row.name for row in ROWS).most_common(1)[0][1] == 1


@pytest.mark.parametrize("name", dict.fromkeys(name for row in ROWS for name in row.all_limits))
def test_a_limit_has_its_line_in_the_documentation(name: str) -> None:
    assert undocumented(LIMITS[name]) == []


def test_each_package_of_the_extra_has_a_row() -> None:
    tried = {row.package.lower() for row in ROWS}
    assert [each.name for each in GROUP if each.name.lower() not in tried and each.name not in SUPPORT] == []


SUPPORT = {"asgi_bridge", "opentelemetry-sdk", "packaging", "pytest", "python-multipart"}
"""Packages that the tests or the tried packages need."""
