from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway import figures
from tests.gateway.runner_double import RunnerDouble, running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not figures.cases:
        return
    terminalreporter.section("recorded cases of APISIX 3.18.0")
    for response_phase, part in ((False, "request phase"), (True, "response phase")):
        left_out = figures.left_out[response_phase]
        played = figures.cases[response_phase] - len(left_out)
        terminalreporter.line(
            f"{part}: {figures.equal[response_phase]} of {played} equal; {len(left_out)} of "
            f"{figures.cases[response_phase]} cases left out"
        )
        for name, why, what in left_out:
            terminalreporter.line(f"  left out: {name}: {why}: {what}")


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[RunnerDouble]:
    with running(str(tmp_path / "runner.sock")) as double:
        yield double
