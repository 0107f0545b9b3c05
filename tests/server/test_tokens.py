"""Tokens of very many configurations. TOKENS=300000 makes more of them."""

import os
from collections.abc import Callable

from ..doubles.connection import Connection
from ..doubles.runner_process import RunnerProcess

TOKENS = int(os.environ.get("TOKENS", "6000"))
BLOCK = min(1000, TOKENS // 12)
"""Configurations between two looks at the runner."""
FIRST = 10 if TOKENS < 100_000 else 70
"""Number of blocks before the runner is as large as it gets."""


def test_hundreds_of_thousands_of_configurations(start: Callable[..., RunnerProcess]) -> None:
    """None is refused, no two share a token, and the last costs as much as the first."""
    runner = start()
    tokens: set[int] = set()
    figures: list[tuple[float, int]] = []
    with runner.connect() as connection:
        connection.token("hello")  # the worker is there once it has answered
        for first in range(0, TOKENS, BLOCK):
            begun = cpu(runner)
            tokens |= prepared(connection, first, BLOCK)
            figures.append((cpu(runner) - begun, runner.rss()))
    assert len(tokens) == TOKENS
    early, late = figures[2:FIRST], figures[-3:]
    print(
        f"CPU seconds for {BLOCK}: {figures[2][0]:.2f}, {figures[-1][0]:.2f}; MiB: {[rss >> 20 for _, rss in figures]}"
    )
    assert min(seconds for seconds, _ in late) < 1.5 * max(seconds for seconds, _ in early)
    assert late[-1][1] < figures[FIRST - 1][1] + 30 * 2**20


def prepared(connection: Connection, first: int, count: int) -> set[int]:
    return {
        connection.token("hello", key=f"route#{number}#ext-plugin-pre-req#1") for number in range(first, first + count)
    }


def cpu(runner: RunnerProcess) -> float:
    """Return the worker's processor time in seconds."""
    with open(f"/proc/{runner.worker}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
