from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.runner_double import RunnerDouble, running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many of the recorded cases are equal, counted in the reports: other processes may have run the tests."""
    passed = {report.nodeid for report in terminalreporter.stats.get("passed", ())}
    equal = {name.partition("[")[2][:-1] for name in passed if "::test_does_what_apisix_did[" in name}
    if not equal:
        return
    from tests.gateway.test_recorded import CASES, GLOBAL, LEFT_OUT, in_response_phase

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


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerDouble]:
    with running(str(tmp_path / "runner.sock")) as double:
        yield double
