"""Leaves the suite out where its packages are not installed. ``make test-ecosystem`` installs them."""

import tomllib
from collections.abc import Generator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
GROUP = [
    Requirement(text)
    for text in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]["ecosystem"]
]

# these packages warn of themselves or of others, which nobody here can mend
FILTERS = (
    # starlette-authlib
    "ignore:Config file '.env' not found:UserWarning",
    # starlette-gzip-request
    "ignore:'HTTP_422_UNPROCESSABLE_ENTITY' is deprecated",
    # webob, under oslo.middleware
    "ignore:'cgi' is deprecated:DeprecationWarning",
    # Django, which would want another stream for its ASGI than for its WSGI
    "ignore:StreamingHttpResponse must consume synchronous iterators:Warning",
    # sentry-sdk: the new option would leave out the client's address
    "ignore:The send_default_pii option is deprecated:DeprecationWarning",
)


def _installed(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(version(requirement.name))
    except PackageNotFoundError:
        return False


MISSING = [each.name for each in GROUP if not _installed(each)]
collect_ignore_glob = ["test_*.py"] if MISSING else []
alike: list[str] = []
"""Names of the rows that are alike."""
tried: list[str] = []
"""Names of the rows that were run."""


def pytest_configure(config: pytest.Config) -> None:
    for line in FILTERS:
        config.addinivalue_line("filterwarnings", line)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    report = (yield).get_result()
    row = item.callspec.params.get("row") if hasattr(item, "callspec") else None
    if row is not None and report.when == "call":
        tried.append(row.name)
        if report.passed:
            alike.append(row.name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MISSING:
        terminalreporter.write_line(
            f"tests/alike/ecosystem was left out: {len(MISSING)} of its packages are not installed; "
            "see make test-ecosystem"
        )
    elif tried:
        terminalreporter.write_line(f"ecosystem: {len(alike)} of {len(tried)}")
