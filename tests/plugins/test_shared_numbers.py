"""Two numbers that all workers of a runner share."""

import asyncio
import functools
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from starlette.types import ASGIApp

from asgi_bridge import Bridge, upstream
from asgi_bridge.plugins import ConfigurationStore
from asgi_bridge.plugins import shared_numbers as module
from asgi_bridge.plugins.shared_numbers import ENTRIES, Numbers, SharedNumbers, SharedTable, shared_numbers

PRE = b"route#1#ext-plugin-pre-req#1"
OTHER = b"route#2#ext-plugin-pre-req#1"

COUNTING = """
import sys
from asgi_bridge.plugins.shared_numbers import SharedNumbers, SharedTable

table = SharedTable(int(sys.argv[1]))
several = [SharedNumbers(table, f"key {number}") for number in range(3)]
for _ in range(2000):
    for each in several:
        with each as pair:
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


def read(numbers: Numbers) -> list[float]:
    with numbers as pair:
        return list(pair)


def test_nothing_is_lost_between_processes(memory: int) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", COUNTING, str(memory)], pass_fds=[memory]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    table = SharedTable(memory)
    assert [read(SharedNumbers(table, f"key {number}")) for number in range(4)] == [[6000, -3000]] * 3 + [[0, 0]]


def test_an_exception_keeps_what_was_written_and_gives_the_lock_back(memory: int) -> None:
    numbers = SharedNumbers(SharedTable(memory), "key")
    with pytest.raises(ZeroDivisionError), numbers as pair:
        pair[0] = 1 / len(pair)
        pair[1] = 1 / (len(pair) - 2)
    assert read(numbers) == [0.5, 0]


def test_a_full_group_forgets_what_was_unused_for_longest(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUPS", 1)
    table = SharedTable(memory)
    several = [SharedNumbers(table, number) for number in range(ENTRIES + 1)]
    for number, each in enumerate(several[:-1]):
        with each as pair:
            pair[0] = number + 1
    assert read(several[0]) == [1, 0]
    assert read(several[-1]) == [0, 0]
    assert [read(each)[0] for each in (several[0], *several[2:-1])] == [1, *range(3, ENTRIES + 1)]
    assert read(several[1]) == [0, 0]


def instances(*keys: bytes) -> list[list[Numbers]]:
    """The numbers of instances that several processes build, one for each key."""

    def counts(conf: dict[str, int], found: list[Numbers]) -> ASGIApp:
        found.extend((shared_numbers(), shared_numbers()))
        return upstream

    got: list[list[Numbers]] = []
    for key in keys:
        got.append([])
        bridge = Bridge()
        bridge.plugin("counts")(functools.partial(counts, found=got[-1]))
        asyncio.run(prepared(bridge, key))
    return got


async def prepared(bridge: Bridge, key: bytes) -> None:
    store = ConfigurationStore(bridge.plugins)
    await store.prepare(key, [(b"counts", b"{}")])
    await store.close()


def test_instances_of_one_route_and_configuration_share_numbers(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_table", None)
    module.share(memory)
    (first, second), other_process, other_route = instances(PRE, PRE, OTHER)
    with first as pair:
        pair[:] = 1, 2
    with second as pair:
        pair[:] = 3, 4
    assert [read(each) for each in other_process] == [[1, 2], [3, 4]]
    assert [read(each) for each in other_route] == [[0, 0], [0, 0]]


def test_without_workers_they_are_the_processs_own() -> None:
    (first, _), (same_key, _) = instances(PRE, PRE)
    with first as pair:
        pair[:] = 1, 2
    assert (read(first), read(same_key)) == ([1, 2], [0, 0])
    assert shared_numbers() is not shared_numbers()
