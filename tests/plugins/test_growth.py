"""What many configurations, and many edits of them, take: memory, and time at the end."""

import asyncio
import gc
import os
import tracemalloc

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge
from asgi_bridge.plugins import ConfigurationStore
from asgi_bridge.plugins import store as module

from .calls import Clock

EDITS = int(os.environ.get("EDITS", "1500"))
"""Number of edits of routes; a day may have a million."""
ended: list[int] = []


class Passing:
    """A middleware without state that passes its lifespan on, as most do."""

    def __init__(self, app: ASGIApp, number: int) -> None:
        self.app = app
        self.number = number

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)
        if scope["type"] == "lifespan":
            ended.append(self.number)


def passing() -> Bridge:
    bridge = Bridge()
    bridge.add_middleware("passing", Passing)
    return bridge


async def prepare(store: ConfigurationStore, route: int, number: int) -> int:
    key = b"route#%d#ext-plugin-pre-req#%d" % (route, number)
    return await store.prepare(key, [(b"passing", b'{"number": %d}' % number)])


def test_a_configuration_takes_less_than_eight_kibibytes(clock: Clock) -> None:
    async def main() -> float:
        store = ConfigurationStore(passing().plugins, clock=clock)
        for number in range(20):
            await prepare(store, number, number)
        gc.collect()
        tracemalloc.start(1)
        for number in range(200):
            await prepare(store, 100 + number, number)
        gc.collect()
        found, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        await store.close()
        return found / 200

    assert asyncio.run(main()) < 8 * 1024


def test_all_lifespans_end_at_the_end_also_if_there_is_no_time_to_wait(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The gateway kills the runner after a second, so thousands cannot be waited for one by one."""
    monkeypatch.setattr(module, "SHUTDOWN_SECONDS", 0.0)
    ended.clear()

    async def main() -> None:
        store = ConfigurationStore(passing().plugins, clock=clock)
        for number in range(200):
            await prepare(store, number, number)
        await store.close()

    asyncio.run(main())
    assert ended == list(range(200))
    assert [record.getMessage() for record in caplog.records if "lifespan" in record.getMessage()] == []


def test_edits_of_a_list_replace_its_configuration(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REPLACED", 3)

    async def main() -> None:
        store = ConfigurationStore(passing().plugins, clock=clock)
        others = [await prepare(store, 100 + number, number) for number in range(5)]
        tokens = [await prepare(store, 1, number) for number in range(8)]
        assert all(store.find(token) for token in others)
        assert [store.find(token) is not None for token in tokens] == [False] * 4 + [True] * 4
        # its token still stands for it: whoever names it gets it
        assert await store.restore(tokens[0]) is not None
        # an edit that is undone
        assert await prepare(store, 1, 6) == tokens[6]
        await prepare(store, 1, 20)
        await prepare(store, 1, 21)
        assert store.find(tokens[6]) is not None
        await store.close()

    asyncio.run(main())


def test_memory_does_not_grow_with_edits(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REPLACED", 50)

    async def main() -> None:
        store = ConfigurationStore(passing().plugins, clock=clock)
        after = []
        for edits in range(EDITS):
            clock.now += 0.0864  # a million in a day
            await prepare(store, edits % 10, edits)
            if edits + 1 in (EDITS // 3, EDITS):
                while store._retiring:
                    await asyncio.wait(store._retiring.values())
                gc.collect()
                after.append(len(gc.get_objects()))
                assert store.size == len(store._prepared.latest) + len(store._prepared.replaced) == 60
        assert after[1] < after[0] * 1.02 + 100
        await store.close()

    asyncio.run(main())


def test_a_retired_chain_leaves_nothing_to_search_for(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner searches for garbage seldom, and chains are old when they are retired."""
    monkeypatch.setattr(module, "MAX_REPLACED", 5)

    async def main() -> int:
        store = ConfigurationStore(passing().plugins, clock=clock)

        async def edit(first: int, count: int) -> None:
            for number in range(first, first + count):
                await prepare(store, 1, number)
            while store._retiring:
                await asyncio.wait(store._retiring.values())

        await edit(0, 20)
        gc.collect()
        gc.disable()
        try:
            await edit(20, 20)
            return gc.collect()
        finally:
            gc.enable()
            await store.close()

    assert asyncio.run(main()) == 0


def test_further_chains_are_kept_only_while_there_is_memory(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_CHAINS", 4)
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.0)

    async def main() -> None:
        store = ConfigurationStore(passing().plugins, clock=clock)
        tokens = [await prepare(store, number, number) for number in range(16)]
        assert store.size == 16
        monkeypatch.setattr(module, "MAX_BLOCKS", 0)
        tokens.append(await prepare(store, 16, 16))
        assert [store.find(token) is not None for token in tokens] == [False] * 4 + [True] * 13
        for number in range(17, 40):
            tokens.append(await prepare(store, number, number))
        assert store.size == 5  # the last one came after the search
        await store.close()

    asyncio.run(main())


def test_very_many_chains_close_a_few_at_a_time(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once would hold up the calls, and run out of the time for their shutdowns."""
    monkeypatch.setattr(module, "SHUTDOWN_SECONDS", 60.0)
    count = 50 * module.MAX_CLOSING
    ended.clear()

    async def main() -> int:
        store = ConfigurationStore(passing().plugins, clock=clock)
        for number in range(count):
            await prepare(store, number, number)
        clock.now += 5000
        closing = []
        for number in range(count):
            before = store.size
            await prepare(store, -1, number)
            closing.append(before + 1 - store.size)
            if not closing[-1]:
                break
        assert max(closing) <= module.MAX_CLOSING
        assert sum(closing) == count
        assert store.size == len(closing)
        while store._retiring:
            await asyncio.wait(store._retiring.values())
        await store.close()
        return len(closing)

    edits = asyncio.run(main())
    assert sorted(ended) == sorted([*range(count), *range(edits)])


def test_chains_that_wait_for_a_long_call_hold_up_no_others(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CLOSING", 8)

    async def main() -> None:
        store = ConfigurationStore(passing().plugins, clock=clock)
        chains = [store.find(await prepare(store, number, number)) for number in range(40)]
        for chain in chains[:20]:
            assert chain is not None
            chain.calls += 1
        clock.now += 5000
        for number in range(11):
            await prepare(store, 100, number)
        assert store.size == 11
        assert len(store._retiring) == 20
        for chain in chains[:20]:
            assert chain is not None
            chain.call_ended()
        while store._retiring:
            await asyncio.wait(store._retiring.values())
        await store.close()

    asyncio.run(main())
