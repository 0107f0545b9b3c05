"""Two numbers for each name, which all workers of a runner share."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from asgi_bridge_apps import bridge

from asgi_bridge.plugins import numbers_by_name as module
from asgi_bridge.plugins import shared_numbers
from asgi_bridge.plugins.numbers_by_name import NumbersByName, SharedNumbersByName, numbers_by_name
from asgi_bridge.plugins.shared_numbers import ENTRIES, SharedNumbers, SharedTable
from asgi_bridge.testing import PluginClient

COUNTING = """
import sys
from asgi_bridge.plugins.numbers_by_name import SharedNumbersByName
from asgi_bridge.plugins.shared_numbers import SharedTable

numbers = SharedNumbersByName(SharedTable(int(sys.argv[1]), 1), "route 1")
for _ in range(2000):
    for name in (b"a", b"b", b"c"):
        with numbers.of(name) as pair:
            pair[0] += 1
            pair[1] -= 0.5
"""


@pytest.fixture
def memory() -> Iterator[int]:
    """Descriptor of a new memory, as the supervisor makes it."""
    descriptor = os.memfd_create("numbers")
    os.write(descriptor, os.urandom(16))
    yield descriptor
    os.close(descriptor)


def read(numbers: NumbersByName, name: bytes) -> list[float]:
    with numbers.of(name) as pair:
        return list(pair)


def test_nothing_is_lost_between_processes(memory: int) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", COUNTING, str(memory)], pass_fds=[memory]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    table = SharedTable(memory, 1)
    assert [read(SharedNumbersByName(table, "route 1"), name) for name in (b"a", b"b", b"c", b"d")] == [
        *[[6000, -3000]] * 3, [0, 0]
    ]  # fmt: skip
    assert read(SharedNumbersByName(table, "route 2"), b"a") == [0, 0]


def test_many_names_of_one_route_push_out_no_instance_and_few_names_of_others(
    memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_numbers, "GROUPS", 64)
    monkeypatch.setattr(shared_numbers, "_SIZE", 64 * ENTRIES * 40)
    monkeypatch.setattr(module, "GROUPS_OF_NAMES", 4)
    instance = SharedNumbers(SharedTable(memory), "route 1")
    names = SharedTable(memory, 1)
    others = [SharedNumbersByName(names, f"route {number}") for number in range(2, 50)]
    with instance as pair:
        pair[:] = 1, 2
    for each in others:
        with each.of(b"a") as pair:
            pair[:] = 3, 4

    flooded = SharedNumbersByName(names, "route 1")
    for number in range(2000):
        with flooded.of(b"%d" % number) as pair:
            pair[0] += 1

    with instance as pair:
        assert pair == [1, 2]
    lost = sum(read(each, b"a") != [3, 4] for each in others)
    assert lost < 15  # about a sixteenth of the table was flooded, and groups were full before
    assert sum(read(flooded, b"%d" % number) == [1, 0] for number in range(2000)) <= 4 * ENTRIES


@pytest.mark.parametrize("window", ["fixed", "sliding"])
def test_limit_count_counts_for_all_workers(memory: int, monkeypatch: pytest.MonkeyPatch, window: Any) -> None:
    monkeypatch.setattr(shared_numbers, "_table", None)
    shared_numbers.share(memory)
    conf = {"count": 3, "time_window": 3600, "window": window, "key": "http_x_key"}
    # clients with stores of their own, as workers have
    clients = [PluginClient(bridge, "limit-count", conf, route_id=route) for route in ("1", "1", "2")]

    def statuses(name: str) -> list[int]:
        return [clients[number % 2].get("/", headers={"x-key": name}).status_code for number in range(5)]

    assert (statuses("a"), statuses("b")) == ([200, 200, 200, 429, 429], [200, 200, 200, 429, 429])
    assert clients[2].get("/", headers={"x-key": "a"}).status_code == 200


def test_without_workers_they_are_the_processs_own() -> None:
    assert type(numbers_by_name()) is NumbersByName
