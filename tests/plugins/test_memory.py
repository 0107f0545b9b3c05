"""What an instance leaves to the next one with the same key, and for how long."""

import asyncio
import contextlib
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, ConfigurationError, upstream
from asgi_bridge.plugins import ConfigurationStore
from asgi_bridge.plugins import memory as module
from asgi_bridge.plugins import store as store_module
from asgi_bridge.plugins.memory import Memory, remembered

from .calls import FakeCall

Conf = list[tuple[bytes | None, bytes | None]]
PRE = b"route#1#ext-plugin-pre-req#1"
OTHER: Conf = [(b"other", b"")]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def one_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the store hold one chain, so that each new chain retires the one before."""
    monkeypatch.setattr(store_module, "MAX_CHAINS", 1)


def counting(**options: Any) -> tuple[Bridge, list[list[int]]]:
    """A bridge with a plugin that remembers a list, and the lists that its instances got."""
    bridge = Bridge()
    seen: list[list[int]] = []

    @bridge.plugin("counts", **options)
    def counts(conf: dict[str, Any]) -> ASGIApp:
        bucket: list[int] = remembered(list)
        bucket.append(len(seen))
        seen.append(bucket)
        if conf.get("fails"):
            raise OSError
        return upstream

    bridge.mount("other", upstream)
    return bridge, seen


def conf_of(**conf: Any) -> Conf:
    return [(b"counts", repr(conf).replace("'", '"').encode())]


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


def prepare(bridge: Bridge, clock: Clock, *steps: tuple[bytes | None, Conf] | float, expire: float = 100.0) -> None:
    """Prepare each (key, configuration), and let `seconds` pass after each."""

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins, expire=expire, clock=clock)
        for step in steps:
            if isinstance(step, tuple):
                with contextlib.suppress(ConfigurationError):
                    await store.prepare(*step)
            else:
                clock.now += step
            await settle()
        await store.close()

    asyncio.run(main())


def test_outside_of_a_build_it_is_made_each_time() -> None:
    assert remembered(list) is not remembered(list)


@pytest.mark.parametrize(
    ("keys", "options"),
    [
        ((PRE, PRE), {}),
        ((PRE, b"route&consumer#1&jack#ext-plugin-post-resp#5&6"), {}),
        ((b"global_rule#1#ext-plugin-pre-req#1", b"global_rule#1#ext-plugin-post-resp#1"), {}),
    ],
)
def test_the_next_instance_gets_what_the_one_before_it_made(
    keys: tuple[bytes, bytes], options: dict[str, Any], one_chain: None, clock: Clock
) -> None:
    bridge, seen = counting(**options)
    prepare(bridge, clock, (keys[0], conf_of()), (PRE, OTHER), 119.0, (keys[1], conf_of()))

    assert len(seen) == 2 and seen[0] is seen[1]
    assert seen[0] == [0, 1]


@pytest.mark.parametrize(
    "other",
    [
        (b"route#2#ext-plugin-pre-req#1", conf_of()),
        (PRE, conf_of(a=1)),
        (b"route#1&jack#ext-plugin-pre-req#1", conf_of()),
        (None, conf_of()),
        (b"", conf_of()),
    ],
)
def test_another_route_or_configuration_begins_anew(
    other: tuple[bytes | None, Conf], one_chain: None, clock: Clock
) -> None:
    bridge, seen = counting()
    prepare(bridge, clock, (PRE, conf_of()), other, (PRE, OTHER), other)

    assert seen[0] == [0]
    assert seen[1] == ([1, 2] if other[0] else [1])  # without a route it belongs to no owner


def test_it_is_forgotten_1_2_times_the_gateways_expiry_after_the_last_chain(one_chain: None, clock: Clock) -> None:
    bridge, seen = counting()
    steps = [(PRE, conf_of()), 500.0, (PRE, OTHER), 119.9, (PRE, conf_of()), (PRE, OTHER), 120.0, (PRE, conf_of())]
    prepare(bridge, clock, *steps)  # type: ignore[arg-type]

    assert seen == [[0, 1], [0, 1], [2]]


def test_it_is_kept_as_long_as_any_chain_has_the_instance(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    bridge, seen = counting()
    monkeypatch.setattr(store_module, "MAX_CHAINS", 2)
    response = b"route#1#ext-plugin-post-resp#1"
    steps = [(PRE, conf_of()), (response, conf_of()), (PRE, OTHER), 1000.0, (PRE, [*conf_of(), *OTHER])]
    prepare(bridge, clock, *steps, expire=1e6)  # type: ignore[arg-type]

    assert seen == [[0]]  # one instance all the time


def test_a_build_that_fails_neither_leaves_nor_takes_anything(one_chain: None, clock: Clock) -> None:
    bridge, seen = counting()
    fails: Conf = [(b"counts", b'{"fails": true}')]
    prepare(bridge, clock, (PRE, fails), 5.0, (PRE, fails))

    assert seen == [[0], [1]]


def test_several_things_come_back_in_their_order(one_chain: None, clock: Clock) -> None:
    bridge, seen = Bridge(), []

    @bridge.plugin("counts")
    async def counts() -> ASGIApp:
        first = remembered(lambda: ["first"])
        await asyncio.sleep(0)
        seen.append((first, remembered(lambda: ["second"])))
        return upstream

    bridge.mount("other", upstream)
    prepare(bridge, clock, (PRE, [(b"counts", b"")] * 2), (PRE, OTHER), (PRE, [(b"counts", b"")] * 2))

    assert seen == [(["first"], ["second"])] * 4
    # two equal entries of a list have one each
    assert all(one is other for one, other in zip(sum(seen[:2], ()), sum(seen[2:], ()), strict=True))
    assert seen[0][0] is not seen[1][0]


def test_what_a_factory_leaves_running_and_calls_remember_nothing(clock: Clock) -> None:
    bridge = Bridge()
    made: list[list[int]] = []

    def make() -> list[int]:
        made.append([len(made)])
        return made[-1]

    @bridge.plugin("late")
    async def late(conf: int) -> ASGIApp:
        async def behind() -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            remembered(make)

        asyncio.get_running_loop().create_task(behind())

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                remembered(make)

        return app

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins, clock=clock)
        for number in (1, 2):
            chain = store.find(await store.prepare(PRE, [(b"late", b"%d" % number)]))
            assert chain is not None
            await chain.layers[0].app({"type": "http"}, FakeCall().receive, FakeCall().send)
            await settle()
        await store.close()
        assert len(store._instances._memory) == 0

    asyncio.run(main())

    assert made == [[0], [1], [2], [3]]


def test_the_number_is_bounded_and_the_oldest_that_nobody_has_goes_first(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert module.MAX_REMEMBERED == 100_000
    monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
    memory = Memory(10.0, clock)

    def make(key: str) -> list[int]:
        with memory.recalling(key):
            return remembered(list)

    made = {key: make(key) for key in "abcd"}
    for key in "bca":
        clock.now += 1
        memory.released(key)
    assert len(memory) == 3  # d is in use; c and a are the newest of the others
    assert [make(key) is made[key] for key in "cab"] == [True, True, False]


def test_nothing_is_kept_for_instances_that_remember_nothing(clock: Clock) -> None:
    memory = Memory(10.0, clock)
    for number in range(10):
        with memory.recalling(number):
            pass
        memory.released(number)

    assert len(memory) == 0
