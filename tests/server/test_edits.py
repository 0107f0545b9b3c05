"""Edits of routes, one after the other, in a runner. EDITS=1000000 makes a day's worth of them."""

import os
from collections.abc import Callable

from ..doubles.connection import Connection
from ..doubles.runner_process import RunnerProcess

EDITS = int(os.environ.get("EDITS", "6000"))
FIRST = min(10_000, EDITS // 2)
"""Number of edits after which the runner is as large as it gets."""
ROUTES = 20
MEBIBYTE = 1 << 20


def test_memory_after_very_many_edits_is_that_after_the_first(start: Callable[..., RunnerProcess]) -> None:
    runner = start()
    with runner.connect() as connection:
        edit(connection, 0, FIRST)
        first = runner.rss()
        edit(connection, FIRST, EDITS)
        last = runner.rss()
    print(f"MiB after {FIRST} edits: {first / MEBIBYTE:.1f}, after {EDITS}: {last / MEBIBYTE:.1f}")
    assert last < first + 4 * MEBIBYTE


def edit(connection: Connection, first: int, end: int) -> None:
    for number in range(first, end):
        connection.token("made", {"number": number}, key=f"route#{number % ROUTES}#ext-plugin-pre-req#{number}")
