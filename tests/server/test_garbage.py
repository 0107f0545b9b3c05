"""How often Python searches for garbage in the runner, and that memory stays bounded."""

import gc
import subprocess
import sys
from collections.abc import Callable

import pytest

from asgi_bridge.server import garbage
from asgi_bridge.server.garbage import Garbage

from ..doubles.connection import body_of
from ..doubles.runner_process import RunnerProcess

MEBIBYTE = 1 << 20


def test_cycles_of_few_large_objects_do_not_pile_up(start: Callable[..., RunnerProcess]) -> None:
    """1,500 calls leave 300 MB, in fewer objects than Python waits for."""
    runner = start()
    with runner.connect() as connection:
        token = connection.token("cycling")
        for _ in range(50):
            connection.call(token)
        before = most = runner.rss()
        for _ in range(1500):
            assert body_of(connection.call(token)) == b"left"
            most = max(most, runner.rss())
    assert most - before < 150 * MEBIBYTE


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("", "True True"),
        ("gc.set_threshold(5000, 5, 5)", "False False"),
        ("gc.disable()", "False False"),
        ("gc.freeze()", "False True"),
    ],
    ids=["nothing", "threshold", "disabled", "frozen"],
)
def test_what_somebody_has_set_stays(setting: str, expected: str) -> None:
    code = f"""
import gc
from asgi_bridge.server.garbage import GARBAGE, NEW_OBJECTS
{setting}
before = gc.get_threshold()
GARBAGE.search_less()
print(gc.get_threshold() == (NEW_OBJECTS, *before[1:]), gc.get_freeze_count() > 0)
GARBAGE.search_as_before()
assert gc.get_threshold() == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_a_search_begins_when_the_process_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []
    peak = 0
    monkeypatch.setattr(garbage, "_peak", lambda: peak)
    monkeypatch.setattr(gc, "collect", lambda generation=2: searched.append(generation))
    found = Garbage()
    found.look()
    found._before = gc.get_threshold()
    for peak in (0, 30, 32, 33, 33, 60, 66, 120, 129, 150, 170, 1000, 1100, 1490, 1501):
        peak *= MEBIBYTE
        found.look()
    assert searched == [1, 1, 1, 2, 1, 2, 1, 1, 2]
    found._before = None


EDITS = """
import asyncio, resource
from asgi_bridge import Bridge
from asgi_bridge.plugins import ConfigurationStore, store as module
from asgi_bridge.server.garbage import GARBAGE

module.MAX_REPLACED = 300

class Cycle:
    def __init__(self, app, number: int) -> None:
        self.app, self.itself, self.large = app, self, b"x" * 200_000

    async def __call__(self, scope, receive, send) -> None:
        await self.app(scope, receive, send)

bridge = Bridge()
bridge.add_middleware("cycle", Cycle)

async def main():
    store = ConfigurationStore(bridge.plugins)
    GARBAGE.search_less()
    for number in range(2400):
        if number == 400:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await store.prepare(b"route#1#ext-plugin-pre-req#1", [(b"cycle", b'{"number": %d}' % number)])
        GARBAGE.look()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    await store.close()

asyncio.run(main())
"""


def test_plugins_of_edited_routes_that_are_cycles_do_not_pile_up() -> None:
    """2,000 edits leave 400 MB, in objects that were there for a while."""
    done = subprocess.run([sys.executable, "-c", EDITS], capture_output=True, text=True, check=True)
    assert int(done.stdout) * garbage._UNIT < 250 * MEBIBYTE
