import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many responses are as uvicorn's, counted in the reports: other processes may have run the tests."""
    passed = terminalreporter.stats.get("passed", ())
    found = [value for report in passed for name, value in report.user_properties if name == "fidelity"]
    if not found:
        return
    from tests.test_fidelity import CASES, EXCEPTIONS, SUBJECTS

    terminalreporter.section("fidelity to uvicorn")
    terminalreporter.line(
        f"{found.count('equal')} of {len(CASES) - len(EXCEPTIONS)} responses equal; {found.count('limited')} of "
        f"{len(EXCEPTIONS)} differ as a limit of the protocol says; {len(SUBJECTS)} middlewares"
    )
    for (subject, request), name in EXCEPTIONS.items():
        terminalreporter.line(f"  limit: {name}: {subject}: {request}")
