"""Begins with what takes longest, and prints at the end how many responses and recorded cases are equal.

The latter is counted in the reports, because with pytest-xdist other processes have run the tests.
"""

import logging
from collections.abc import Iterable, Iterator

import pytest

from asgi_bridge.hiding import SECRETS
from asgi_bridge.logs import GUARD

LONGEST = [
    "tests/manual/test_pages.py",
    "tests/inspector/test_page.py",
    "tests/new/test_new.py",
    "tests/succession/test_reloads.py",
    "tests/supervisor/test_worker_succession.py",
    "tests/dev/test_dev.py",
    "tests/supervisor/test_workers.py",
    "tests/server/test_configuration_bounds.py",
    "tests/adapter/test_bounds.py",
    "tests/insight/test_page.py",
    "tests/test_fail_closed.py",
    "tests/server/test_serve.py",
    "tests/server/test_hangs.py",
]
"""The modules that take longest. One that began last would keep one processor busy while the others have no work."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {module: place for place, module in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(LONGEST)))


@pytest.fixture(autouse=True)
def no_secrets_of_other_tests() -> Iterator[None]:
    """What is hidden in log lines belongs to the process, so the words of one test would be hidden in the next."""
    yield
    SECRETS.forget()


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Undo what a command or a server sets up in this process: its handlers write to the streams of that test."""
    names = ("uvicorn", "uvicorn.error", "uvicorn.access", "asgi_bridge", "")
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in map(logging.getLogger, names)]
    last_resort = logging.lastResort
    yield
    logging.lastResort = last_resort
    GUARD.counts = False
    for logger, handlers, level, propagate in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
        logger.propagate = propagate


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed = terminalreporter.stats.get("passed", ())
    _report_fidelity(terminalreporter, passed)
    _report_recorded(terminalreporter, {report.nodeid for report in passed})


def _report_fidelity(terminalreporter: pytest.TerminalReporter, passed: Iterable[pytest.TestReport]) -> None:
    found = [value for report in passed for name, value in report.user_properties if name == "fidelity"]
    if not found:
        return
    from .alike.fidelity.cases import CASES, EXCEPTIONS
    from .alike.fidelity.subjects import SUBJECTS

    terminalreporter.section("fidelity to uvicorn")
    terminalreporter.line(
        f"{found.count('equal')} of {len(CASES) - len(EXCEPTIONS)} responses equal; {found.count('limited')} of "
        f"{len(EXCEPTIONS)} differ as a limit of the protocol says; {len(SUBJECTS)} middlewares"
    )
    for (subject, request), name in EXCEPTIONS.items():
        terminalreporter.line(f"  limit: {name}: {subject}: {request}")


def _report_recorded(terminalreporter: pytest.TerminalReporter, passed: set[str]) -> None:
    equal = {name.partition("[")[2][:-1] for name in passed if "::test_does_what_apisix_did[" in name}
    if not equal:
        return
    from .replay.test_gateway import CASES, GLOBAL, LEFT_OUT, in_response_phase

    if any(name.endswith("::test_two_response_phases_are_as_in_apisix") for name in passed):
        equal |= {*GLOBAL}

    terminalreporter.section("recorded cases of APISIX 3.18.0")
    for response_phase, part in ((False, "request phase"), (True, "response phase")):
        cases = [name for name, case in CASES.items() if in_response_phase(case) is response_phase]
        left_out = [name for name in cases if name in LEFT_OUT]
        terminalreporter.line(
            f"{part}: {len(equal & {*cases})} of {len(cases) - len(left_out)} equal; {len(left_out)} of {len(cases)} "
            "cases left out"
        )
        for name in left_out:
            terminalreporter.line(f"  left out: {name}: {': '.join(LEFT_OUT[name])}")
