"""The token store: tokens, builds, what it remembers and for how long, and what it drops."""

import asyncio
import contextlib
import gc
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, ConfigurationError, upstream
from asgi_bridge.plugins import Chain, ConfigurationStore, build_chain, tokens
from asgi_bridge.plugins import build as building
from asgi_bridge.plugins import store as module
from asgi_bridge.plugins.key import phase_of, route_id_of

from .calls import KEY, Clock, FakeCall, answering

EDITS = int(os.environ.get("EDITS", "600"))

Conf = list[tuple[bytes | None, bytes | None]]
Lines = Callable[[], list[str]]
CORS: Conf = [(b"cors", b"{}")]


class Life:
    """A lifespan that counts how often it started and stopped."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @contextlib.asynccontextmanager
    async def __call__(self, app: Starlette) -> AsyncIterator[dict[str, Any]]:
        self.events.append("up")
        yield {"life": 1}
        self.events.append("down")

    def app(self) -> Starlette:
        return Starlette(lifespan=self)


def cors() -> Bridge:
    bridge = Bridge()
    bridge.add_middleware("cors", CORSMiddleware)
    return bridge


def counting(life: Life | None = None) -> tuple[Bridge, list[Any]]:
    """A bridge with a factory that notes what it was called with."""
    bridge, calls = Bridge(), []

    @bridge.plugin("made")
    async def made(conf: dict[str, Any]) -> ASGIApp:
        calls.append(conf)
        await asyncio.sleep(0)
        return upstream if life is None else life.app()

    return bridge, calls


def conf_of(number: int) -> Conf:
    return [(b"made", b'{"a": %d}' % number)]


def refused(coroutine: Coroutine[Any, Any, object]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        asyncio.run(coroutine)
    return str(caught.value)


async def settle() -> None:
    """Let everything run that can run without waiting."""
    for _ in range(20):
        await asyncio.sleep(0)


# keys


@pytest.mark.parametrize(
    ("key", "route_id", "phase"),
    [
        (None, None, None),
        (b"", None, None),
        (b"\xff", None, None),
        (b"route#1", None, None),
        (b"service#1#ext-plugin-pre-req#1", None, "request"),
        (b"route#1#ext-plugin-pre-req#1", "1", "request"),
        (b"route#a-b_c#ext-plugin-post-req#1", "a-b_c", "request"),
        (b"route#1#ext-plugin-post-resp#1", "1", "response"),
        (b"route&consumer#1&jack#ext-plugin-post-resp#1&2", "1", "response"),
        (b"route#1#something-else#1", "1", None),
    ],
)
def test_what_a_key_tells(key: bytes | None, route_id: str | None, phase: str | None) -> None:
    assert (route_id_of(key), phase_of(key)) == (route_id, phase)


# preparing


def test_a_prepared_configuration_is_found_by_its_token(clock: Clock) -> None:
    async def main() -> None:
        store = ConfigurationStore(cors().plugins, clock=clock)
        token = await store.prepare(KEY, CORS)
        chain = store.find(token)
        assert chain is not None
        assert (chain.names, chain.route_id) == ("cors", "1")
        assert await store.prepare(KEY, CORS) == token
        assert await store.prepare(b"route#1#ext-plugin-pre-req#8", CORS) == token
        assert store.find(token) is chain
        assert await store.restore(token) is chain
        assert store.find(token + 1) is None
        assert await store.restore(token + 1) is None
        await store.close()

    asyncio.run(main())


def test_concurrent_preparations_build_once(clock: Clock) -> None:
    bridge, calls = counting()

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins, clock=clock)
        tokens = await asyncio.gather(*[store.prepare(KEY, conf_of(1)) for _ in range(5)])
        assert len(set(tokens)) == 1
        assert calls == [{"a": 1}]
        assert store._building == {}
        await store.close()

    asyncio.run(main())


def test_whoever_gives_up_waiting_does_not_end_the_build_of_the_others(clock: Clock) -> None:
    bridge, calls = counting()

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins, clock=clock)
        one, other = (asyncio.get_running_loop().create_task(store.prepare(KEY, conf_of(1))) for _ in range(2))
        await asyncio.sleep(0)
        one.cancel()
        token = await other
        assert one.cancelled()
        assert store.find(token) is not None
        assert calls == [{"a": 1}]
        await store.close()

    asyncio.run(main())


def broken() -> Bridge:
    bridge = cors()
    bridge.mount("request", upstream, phase="request")
    bridge.mount("response", upstream, phase="response")

    @bridge.plugin("raises")
    def raises() -> ASGIApp:
        raise OSError("no route to redis")

    @bridge.plugin("raises-late")
    async def raises_late() -> ASGIApp:
        raise TimeoutError("redis")

    @bridge.plugin("exits")
    def exits() -> ASGIApp:
        sys.exit("no")

    @bridge.plugin("cancelled")
    async def cancelled() -> ASGIApp:
        raise asyncio.CancelledError

    @bridge.plugin("nothing")
    def nothing() -> Any:
        return 5

    @bridge.plugin("refuses")
    def refuses() -> ASGIApp:
        raise ConfigurationError("field 'a': not with 'b'")

    @bridge.plugin("fails-to-start")
    def fails_to_start() -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "lifespan.startup.failed", "message": "no database"})

        return app

    return bridge


RESPONSE_KEY = b"route#1#ext-plugin-post-resp#7"


@pytest.mark.parametrize(
    ("key", "conf", "reason"),
    [
        (
            KEY,
            [(b"crs", b"{}")],
            "plugin crs is not mounted; mounted are: cancelled, cors, exits, fails-to-start, nothing, raises, "
            "raises-late, refuses, request, response; did you mean 'cors'?",
        ),
        (
            KEY,
            [(b"cors", b"{")],
            "plugin cors: the configuration is not JSON: Expecting property name enclosed in double quotes: "
            "line 1 column 2 (char 1)",
        ),
        (KEY, [(b"cors", b'{"max_age": "s3cret"}')], "plugin cors: field 'max_age': Input should be a valid integer"),
        (KEY, [(b"raises", b"")], "plugin raises: it could not be built: OSError: no route to redis"),
        (KEY, [(b"raises-late", b"")], "plugin raises-late: it could not be built: TimeoutError: redis"),
        (KEY, [(b"exits", b"")], "plugin exits: it could not be built: SystemExit: no"),
        (KEY, [(b"cancelled", b"")], "plugin cancelled: it could not be built: CancelledError: "),
        (KEY, [(b"nothing", b"")], "plugin nothing: its factory returned int, not an application"),
        (KEY, [(b"refuses", b"")], "plugin refuses: field 'a': not with 'b'"),
        (KEY, [(b"fails-to-start", b"")], "plugin fails-to-start: its lifespan start-up failed: no database"),
        (KEY, [(None, b"{}")], "an entry of the plugin list lacks its name or value"),
        (KEY, [(b"cors", None)], "an entry of the plugin list lacks its name or value"),
        (KEY, [(b"\xff", b"{}")], "plugin b'\\xff': name and configuration must be UTF-8"),
        (KEY, [(b"cors", b"\xff")], "plugin b'cors': name and configuration must be UTF-8"),
        (KEY, [(b"response", b"")], "plugin response is for the response phase: list it under ext-plugin-post-resp"),
        (
            RESPONSE_KEY,
            [(b"request", b"")],
            "plugin request is for the request phase: list it under ext-plugin-pre-req or ext-plugin-post-req",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_with_one_line(
    key: bytes, conf: Conf, reason: str, clock: Clock, lines: Lines
) -> None:
    async def main() -> None:
        store = ConfigurationStore(broken().plugins, clock=clock)
        try:
            await store.prepare(key, conf)
        finally:
            assert store._prepared == {}
            await store.close()

    assert refused(main()) == reason
    assert lines() == [f"route 1 refused: {reason}"]


def test_without_a_key_every_phase_is_possible() -> None:
    async def main() -> None:
        store = ConfigurationStore(broken().plugins)
        assert await store.prepare(None, [(b"request", b"")])
        assert await store.prepare(None, [(b"response", b"")])
        assert await store.prepare(None, [])

    asyncio.run(main())


def test_the_cause_of_a_failed_build_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    refused(ConfigurationStore(broken().plugins).prepare(KEY, [(b"raises", b"")]))
    (record,) = caplog.records

    assert record.exc_info is not None and isinstance(record.exc_info[1], OSError)


def test_a_failure_is_remembered_longer_each_time(clock: Clock, lines: Lines) -> None:
    bridge = Bridge()
    attempts: list[int] = []

    @bridge.plugin("late")
    def late() -> ASGIApp:
        attempts.append(1)
        if len(attempts) < 9:
            raise OSError("not yet")
        return upstream

    conf: Conf = [(b"late", b"")]

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins, clock=clock)

        async def refused(now: float) -> int:
            clock.now = 1000.0 + now
            with pytest.raises(ConfigurationError, match="^plugin late: it could not be built: OSError: not yet$"):
                await store.prepare(KEY, conf)
            return len(attempts)

        tried, now = [], 0.0
        for seconds in (2, 4, 8, 16, 32, 60, 60):
            tried.append([await refused(now), await refused(now + 0.1), await refused(now + seconds - 0.1)])
            now += seconds
        assert tried == [[number] * 3 for number in range(1, 8)]
        # long after the last failure, the next one counts as the first again
        now += 200
        assert [await refused(now), await refused(now + 1.9)] == [8, 8]
        clock.now = 1000.0 + now + 2
        assert await store.prepare(KEY, conf)
        assert store._failures == {}
        await store.close()

    asyncio.run(main())

    assert len(lines()) == 8


@pytest.mark.parametrize("back", [10.0, 3600.0, 1e6])
def test_a_clock_that_goes_back_does_not_prolong_a_failure(clock: Clock, back: float) -> None:
    bridge = Bridge()
    attempts: list[int] = []

    @bridge.plugin("late")
    def late() -> ASGIApp:
        attempts.append(1)
        if len(attempts) < 2:
            raise OSError("not yet")
        return upstream

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins, clock=clock)
        with pytest.raises(ConfigurationError):
            await store.prepare(KEY, [(b"late", b"")])
        clock.now -= back
        assert await store.prepare(KEY, [(b"late", b"")])
        await store.close()

    asyncio.run(main())


def test_a_failure_is_that_of_its_content(clock: Clock) -> None:
    """It does not belong to a token: another configuration that wants the same token may work."""
    bridge, calls = counting()
    bridge.plugin("raises")(lambda: 1 / 0)

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins, clock=clock)
        with pytest.raises(ConfigurationError):
            await store.prepare(KEY, [(b"raises", b"")])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokens, "token_of", lambda secret, digest, number: 5 + number)
            assert await store.prepare(KEY, conf_of(1)) == 5
        await store.close()

    asyncio.run(main())
    assert calls == [{"a": 1}]


def test_a_remembered_failure_does_not_grow_and_is_forgotten(clock: Clock) -> None:
    async def main() -> None:
        store = ConfigurationStore(broken().plugins, clock=clock)
        raised = []
        for _ in range(3):
            with pytest.raises(ConfigurationError) as caught:
                await store.prepare(KEY, [(b"raises", b"")])
            raised.append(caught.value)
        assert len(set(map(id, raised))) == 3  # an exception that is raised again and again would collect tracebacks
        clock.now += 63
        await store.prepare(KEY, CORS)
        assert store._failures == {}
        await store.close()

    asyncio.run(main())


@pytest.mark.parametrize("where", ["factory", "lifespan"])
def test_building_takes_four_seconds_at_most(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert building.BUILD_SECONDS == 4.0
    monkeypatch.setattr(building, "BUILD_SECONDS", 0.01)
    bridge = cors()

    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    @bridge.plugin("slow")
    async def slow() -> ASGIApp:
        if where == "factory":
            await asyncio.Event().wait()
        return hangs

    reason = refused(ConfigurationStore(bridge.plugins).prepare(KEY, [(b"cors", b""), (b"slow", b"")]))

    assert reason in (
        "plugin slow: building took more than 0.01 s",
        'plugin slow: its lifespan start-up took more than 0.01 s: it was called with scope["type"] == "lifespan" and '
        'never called receive; an application without a lifespan returns at once unless scope["type"] is "http"',
    )


def test_a_time_limit_that_no_plugin_is_to_blame_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(building, "_decoded", lambda entry: (_ for _ in ()).throw(TimeoutError))
        await build_chain(Bridge().plugins, KEY, CORS, None)

    assert refused(main()) == "building took more than 4 s"


def test_a_failed_build_shuts_down_what_it_started() -> None:
    life = Life()
    bridge, _ = counting(life)
    bridge.plugin("raises")(lambda: 1 / 0)

    reason = refused(
        ConfigurationStore(bridge.plugins).prepare(KEY, [(b"raises", b""), (b"made", b""), (b"made", b"")])
    )

    assert reason == "plugin raises: it could not be built: ZeroDivisionError: division by zero"
    assert life.events == ["up", "up", "down", "down"]


# mounted applications


def test_a_mounted_application_starts_once_for_the_process(clock: Clock) -> None:
    life = Life()
    app = life.app()
    bridge = Bridge()
    bridge.mount("a", app)
    bridge.mount("b", app)

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins, clock=clock)
        await store.start()
        tokens = [await store.prepare(b"route#%d##" % number, [(b"a", b""), (b"b", b"")]) for number in range(3)]
        chain = store.find(tokens[0])
        assert chain is not None
        assert [layer.state for layer in chain.layers] == [{"life": 1}] * 2
        assert life.events == ["up"]
        await store.close()

    asyncio.run(main())

    assert life.events == ["up", "down"]


def test_a_mounted_application_that_does_not_start_refuses_its_routes_and_no_others(clock: Clock, lines: Lines) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    bridge = cors()
    bridge.mount("fails", fails)
    bridge.mount("again", fails)

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins, clock=clock)
        await store.start()
        assert await store.prepare(KEY, CORS)
        for number in range(3):
            with pytest.raises(ConfigurationError) as caught:
                await store.prepare(b"route#%d##" % number, [(b"again", b"")])
            assert str(caught.value) == "plugin fails: its lifespan start-up failed: no database"
        reason = "plugin fails: its lifespan start-up failed: no database"  # a text, which holds no traceback
        assert store._mounted.failed == {id(bridge.plugins["fails"].application): reason}
        await store.close()

    asyncio.run(main())

    assert lines()[0] == "plugin fails: its lifespan start-up failed: no database; routes that list it are refused"


# forgetting


def test_a_text_expires_after_its_time_and_use_extends_it(clock: Clock) -> None:
    life = Life()
    bridge, _calls = counting(life)

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins, expire=100.0, clock=clock)
        found, restored, prepared, unused = [
            await store.prepare(b"route#%d#x#1" % number, conf_of(number)) for number in range(4)
        ]
        clock.now += 119
        for token in (found, restored):  # the file is asked, which extends the claim
            assert store.find(token) is None
            assert await store.restore(token) is store.find(token) is not None
        await store.prepare(b"route#2#x#1", conf_of(2))
        clock.now += 2
        await store.prepare(b"route#9#x#1", conf_of(9))
        assert store.find(unused) is None
        assert await store.restore(unused) is None
        clock.now += 117
        await store.prepare(b"route#10#x#1", conf_of(10))
        assert None not in [await store.restore(token) for token in (found, restored, prepared)]
        await settle()
        assert (life.events.count("up"), life.events.count("down")) == (6, 1)
        await store.close()

    asyncio.run(main())

    assert life.events.count("up") == life.events.count("down") == 6


def test_a_chain_too_many_is_retired_and_rebuilt_on_use_under_the_same_token(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CHAINS", 2)
    life = Life()
    bridge, calls = counting(life)

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins, clock=clock)
        a, b = [await store.prepare(b"route#%d#x#1" % number, conf_of(number)) for number in range(2)]
        assert store.find(a) is not None  # so b is the one that was unused for longest
        c = await store.prepare(b"route#2#x#1", conf_of(2))
        await settle()
        assert [store.find(token) is not None for token in (a, b, c)] == [True, False, True]
        assert life.events == ["up", "up", "up", "down"]
        rebuilt = await store.restore(b)
        assert rebuilt is not None and store.find(b) is rebuilt
        assert calls == [{"a": 0}, {"a": 1}, {"a": 2}, {"a": 1}]
        await store.close()

    asyncio.run(main())

    assert life.events.count("up") == life.events.count("down") == 4


def test_a_chain_moves_to_the_end_of_those_in_use_once_a_second(clock: Clock) -> None:
    bridge, _ = counting(Life())

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins, clock=clock)
        a, b = [await store.prepare(b"route#%d#x#1" % number, conf_of(number)) for number in range(2)]
        chains = [store.find(token) for token in (a, b)]
        assert store.find(a) is chains[0]
        assert [each.chain for each in store.in_use()] == chains
        clock.now += 1
        assert store.find(a) is chains[0]
        assert [each.chain for each in store.in_use()] == chains[::-1]
        await store.close()

    asyncio.run(main())


@pytest.mark.parametrize("expire", [0.25, 0.5, 1.25, 2.0])
@pytest.mark.parametrize("real", [False, True], ids=["", "real clock"])
def test_no_chain_is_found_after_the_end_of_its_claim(clock: Clock, expire: float, real: bool) -> None:
    """The compiled core looks at the real clock only."""
    bridge, _ = counting(Life())
    now = time.time if real else clock

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins, clock=now, expire=expire)
        token = await store.prepare(b"route#1#x#1", conf_of(1))
        end = now() + expire
        for _ in range(3):
            assert store.find(token) is not None
        while now() < end + 0.05:
            if now() < end - 0.1:
                assert store.find(token) is not None
            if real:
                await asyncio.sleep(0.02)
            else:
                clock.now += 0.02
        assert store.find(token) is None
        await store.close()

    asyncio.run(main())


def test_a_chain_that_cannot_be_rebuilt_keeps_its_text(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHAINS", 1)
    bridge = Bridge()
    down: list[bool] = []

    @bridge.plugin("made")
    def made(conf: dict[str, Any]) -> ASGIApp:
        if down:
            raise OSError("down")
        return upstream

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins, clock=clock)
        a = await store.prepare(b"route#1#x#1", conf_of(1))
        await store.prepare(b"route#2#x#1", conf_of(2))
        down.append(True)
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="OSError: down$"):
                await store.restore(a)
        down.clear()
        clock.now += 2
        assert await store.restore(a) is not None
        await store.close()

    asyncio.run(main())


def test_a_retired_chain_lives_until_its_calls_have_ended(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHAINS", 1)
    life = Life()
    bridge, _ = counting(life)

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins, clock=clock)
        chain = store.find(await store.prepare(b"route#1#x#1", conf_of(1)))
        assert chain is not None
        chain.calls += 1
        await store.prepare(b"route#2#x#1", conf_of(2))
        await settle()
        assert life.events == ["up", "up"]
        chain.call_ended()
        await settle()
        assert (life.events, store._retiring) == (["up", "up", "down"], {})
        await store.close()

    asyncio.run(main())


def test_very_many_edits_leave_bounded_traces(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each edit of a route is a new configuration. The old ones are dropped when their time is over."""
    monkeypatch.setattr(module, "MAX_CHAINS", 50)
    bridge = cors()

    async def main() -> None:
        store = ConfigurationStore(bridge.plugins, expire=100.0, clock=clock)
        counts = []
        for number in range(EDITS):
            clock.now += 1.1
            await store.prepare(KEY, [(b"cors", b'{"max_age": %d}' % number)])
            with pytest.raises(ConfigurationError):
                await store.prepare(KEY, [(b"cors", b'{"max_ag": %d}' % number)])
            if number in (EDITS // 3, EDITS - 1):
                await settle()
                gc.collect()
                counts.append(
                    sum(isinstance(each, Chain | ConfigurationError | asyncio.Task) for each in gc.get_objects())
                )
        assert len(store._prepared) <= 50
        assert len(store._failures) <= 60
        assert (store._building, store._retiring) == ({}, {})
        assert counts[1] <= counts[0] + 10
        await store.close()

    logging.disable(logging.ERROR)
    try:
        asyncio.run(main())
    finally:
        logging.disable(logging.NOTSET)


# closing


def test_close_shuts_everything_down_side_by_side(clock: Clock) -> None:
    """One time limit for all: mounted applications, chains, one chain in use, and one that is being built."""
    assert building.SHUTDOWN_SECONDS == 0.2
    life = Life()
    bridge, _ = counting(life)
    bridge.mount("mounted", life.app())
    begun = asyncio.Event()

    @bridge.plugin("slow")
    async def slow() -> ASGIApp:
        begun.set()
        await asyncio.Event().wait()
        return upstream

    stopping = 0
    stopping_at_each_end = []

    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal stopping
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        stopping += 1
        try:
            await asyncio.Event().wait()
        finally:
            stopping_at_each_end.append(stopping)

    bridge.plugin("stuck")(lambda: hangs)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        store = ConfigurationStore(bridge.plugins, expire=1.0, clock=clock)
        await store.start()
        busy = store.find(await store.prepare(b"route#1#x#1", conf_of(1)))
        assert busy is not None
        busy.calls += 1
        await store.prepare(b"route#2#x#1", [(b"stuck", b"")] * 10)
        clock.now += 2
        await store.prepare(b"route#3#x#1", conf_of(3))
        building = loop.create_task(store.prepare(b"route#4#x#1", [(b"slow", b""), (b"made", b"")]))
        await begun.wait()
        await store.close()
        with pytest.raises(asyncio.CancelledError):
            await building
        assert (store._prepared, store._mounted.started) == ({}, {})

    asyncio.run(main())

    assert life.events.count("up") == life.events.count("down") == 4
    assert stopping_at_each_end == [10] * 10


def test_closing_an_empty_store() -> None:
    asyncio.run(ConfigurationStore(Bridge().plugins).close())


def test_a_chain_from_the_store_runs_calls(clock: Clock) -> None:
    bridge = cors()
    bridge.mount("stop", answering(403))

    async def main() -> FakeCall:
        store = ConfigurationStore(bridge.plugins, clock=clock)
        await store.start()
        chain = store.find(await store.prepare(KEY, [(b"cors", b""), (b"stop", b"")]))
        assert chain is not None
        call = FakeCall()
        await call.through(chain)
        await store.close()
        return call

    assert asyncio.run(main()).status() == 403
