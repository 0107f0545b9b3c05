"""``limit-req`` with Redis: one bucket for several gateways, in a real redis-server.

These tests are skipped only where there is no ``redis-server``. ``.ci/run`` installs Debian's package of that name.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from asgi_bridge_apps import ready_made
from asgi_bridge_apps._shared import shared_bucket
from asgi_bridge_apps._shared.shared_bucket import SharedBuckets
from asgi_bridge_apps.limit_req import LeakyBucket, limit_req
from starlette.testclient import TestClient

from asgi_bridge import Bridge, ConfigurationError, PluginError
from asgi_bridge.gateway import GatewayApp, echo
from asgi_bridge.testing import PluginClient

from ..doubles.clients import client_of, routes_of
from ..doubles.runner_process import runner_process
from .redis_server import RedisServer, needs_redis, redis_server
from .routes import gateway

pytestmark = needs_redis


@pytest.fixture(scope="module")
def module_redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def keys_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis keeps a key for an hour after its bucket is empty.

    Tests with a clock of their own need it: Redis expires keys by its own clock, and a slow machine would see an empty
    bucket too early.
    """
    monkeypatch.setattr(shared_bucket, "KEPT_MILLISECONDS", 3_600_000)


@pytest.fixture
def redis(module_redis: RedisServer) -> RedisServer:
    """The Redis of this module, emptied before each test."""

    async def empty() -> None:
        from redis.asyncio import Redis

        async with Redis.from_url(module_redis.url) as client:
            await client.flushall()

    asyncio.run(empty())
    return module_redis


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def bridge(self, redis: RedisServer) -> Bridge:
        timed = Bridge()
        timed.plugin("limit-req", defaults={"redis": redis.url})(
            partial(limit_req, sleep=self.sleep, shared_clock=self)
        )
        return timed


def mounted(redis: RedisServer, **options: Any) -> Bridge:
    """Return a bridge whose operator gives `redis` by default, because no route may name a unix socket."""
    made = Bridge()
    made.plugin("limit-req", defaults={"redis": redis.url}, **options)(limit_req)
    return made


@pytest.mark.usefixtures("keys_stay")
def test_two_gateways_let_exactly_the_allowed_number_through_in_total(redis: RedisServer) -> None:
    clock = Clock()
    conf = {"rate": 10, "burst": 9}
    with ExitStack() as stack:
        # two bridges, with their own chains and connections: they share only Redis
        clients = [stack.enter_context(PluginClient(clock.bridge(redis), "limit-req", conf)) for _ in range(2)]
        threads = stack.enter_context(ThreadPoolExecutor(20))

        def hundred() -> Counter[int]:
            return Counter(threads.map(lambda number: clients[number % 2].get("/").status_code, range(100)))

        # one request passes at once and nine wait; later, as many as have leaked
        assert hundred() == {200: 10, 503: 90}
        assert sorted(clock.slept) == [number / 10 for number in range(1, 10)]
        clock.now += 0.5
        assert hundred() == {200: 5, 503: 95}
        clock.now += 1000
        assert hundred() == {200: 10, 503: 90}


SOURCE = """
import functools, pathlib
from asgi_bridge import Bridge
from asgi_bridge_apps._shared import shared_bucket
from asgi_bridge_apps.limit_req import limit_req

shared_bucket.KEPT_MILLISECONDS = 3_600_000  # as in the fixture keys_stay

async def sleep(seconds): ...

def clock():
    return float(pathlib.Path({clock!r}).read_text())

bridge = Bridge()
limited = functools.partial(limit_req, sleep=sleep, shared_clock=clock)
bridge.plugin("limit-req", defaults={{"redis": {redis!r}}})(limited)
"""


def test_two_runners_let_exactly_the_allowed_number_through_in_total(redis: RedisServer, tmp_path: Path) -> None:
    """Two processes, each with a gateway. In one second at rate 10 the bucket leaks the burst of 9 and one more."""
    clock = tmp_path / "clock"

    def at(seconds: float) -> None:
        clock.write_text(str(1_700_000_000 + seconds))

    at(0)
    conf = {"rate": 10, "burst": 9}
    plugins = {"ext-plugin-pre-req": {"conf": [{"name": "limit-req", "value": json.dumps(conf)}]}}

    async def run() -> list[Counter[int]]:
        counts = []
        gateways = [
            GatewayApp(routes_of({"id": "1", "uri": "/*", "plugins": plugins}), socket, upstream=cast("Any", echo))
            for socket in sockets
        ]
        async with client_of(gateways[0]) as first, client_of(gateways[1]) as second:
            for seconds in (0.0, 1.0, 1.0, 1.5):
                at(seconds)
                answers = await asyncio.gather(*[(first, second)[number % 2].get("/") for number in range(100)])
                counts.append(Counter(answer.status_code for answer in answers))
        return counts

    sockets = []
    with ExitStack() as stack:
        for name in "ab":
            (tmp_path / name).mkdir()
            runner = stack.enter_context(
                runner_process(tmp_path / name, SOURCE.format(clock=str(clock), redis=redis.url))
            )
            sockets.append(runner.path)
        counts = asyncio.run(run())

    assert [count[200] for count in counts] == [10, 10, 0, 5]
    assert all(count[200] + count[503] == 100 for count in counts)


def test_by_the_clock_of_redis_no_more_pass_than_its_time_allows(redis: RedisServer) -> None:
    conf = {"rate": 1e-3}
    with ExitStack() as stack:
        clients = [stack.enter_context(PluginClient(mounted(redis), "limit-req", conf)) for _ in range(2)]
        statuses = Counter(clients[number % 2].get("/").status_code for number in range(100))

    assert statuses == {200: 1, 503: 99}


@pytest.mark.usefixtures("keys_stay")
def test_a_shared_bucket_behaves_like_one_in_a_process(redis: RedisServer) -> None:
    async def run(rate: float, holds: float, steps: list[float]) -> tuple[list[float | None], list[float | None]]:
        clock = Clock()
        own, shared = LeakyBucket(rate, holds, clock), SharedBuckets(redis.url, rate, holds, clock)
        pairs = []
        for seconds in steps:
            clock.now += seconds
            pairs.append((own.pour(), await shared.pour(f"{rate} {holds}")))
        await shared.close()
        return [one for one, _ in pairs], [other for _, other in pairs]

    for rate, holds in ((10, 0), (4, 2), (7, 3), (1 / 3, 2), (0.1, 2.5), (1e6, 100)):
        own, shared = asyncio.run(run(rate, holds, [0, 0, 0, 0, 0.1, 0.25, 0, 1, 0, 0, 100, 0, 0, 0, 0.03125]))
        assert own == shared


@pytest.mark.usefixtures("keys_stay")
def test_a_clock_that_goes_back_counts_as_one_that_stands_still(redis: RedisServer) -> None:
    async def run() -> list[float | None]:
        clock = Clock()
        bucket = SharedBuckets(redis.url, 1, 1, clock)
        found = [await bucket.pour("a") for _ in range(2)]
        clock.now -= 3600
        found += [await bucket.pour("a") for _ in range(2)]
        clock.now += 1
        found.append(await bucket.pour("a"))
        await bucket.close()
        return found

    assert asyncio.run(run()) == [0.0, 1.0, None, None, 1.0]


def test_a_bucket_that_is_empty_leaves_nothing_in_redis(redis: RedisServer) -> None:
    async def run() -> list[tuple[Any, int]]:
        from redis.asyncio import Redis

        buckets = SharedBuckets(redis.url, 0.01, 5)
        slow = SharedBuckets(redis.url, 1e-300, 0)
        for _ in range(3):
            await buckets.pour("a")
        await slow.pour("b")
        await buckets.close()
        await slow.close()
        async with Redis.from_url(redis.url) as client:
            return [(key, await client.pttl(key)) for key in sorted(await client.keys())]

    (name, left), (_, long) = asyncio.run(run())
    assert (name, 0 < left <= 301_000) == (b"asgi_bridge:limit-req:a", True)
    assert long > 1e12


def test_routes_have_buckets_of_their_own_unless_they_name_one(redis: RedisServer) -> None:
    def statuses(more: dict[str, str], *routes: str) -> list[int]:
        found = []
        for route in routes:
            conf = {"rate": 1e-3, **more}
            with PluginClient(mounted(redis), "limit-req", conf, route_id=route) as client:
                found.append(client.get("/").status_code)
        return found

    assert statuses({}, "1", "2", "1") == [200, 200, 503]
    assert statuses({"redis_key": "shop"}, "1", "2") == [200, 503]


def test_a_route_that_is_not_known_has_to_name_its_bucket(redis: RedisServer) -> None:
    from asgi_bridge.plugins import MountedLifespans, build_chain

    async def run(more: dict[str, str]) -> Any:
        conf = json.dumps({"rate": 1, **more}).encode()
        chain = await build_chain(mounted(redis).plugins, None, [(b"limit-req", conf)], MountedLifespans())
        try:
            assert chain.route_id is None
            client = PluginClient(mounted(redis), "limit-req")
            application: Any = client.app
            application._chain = chain
            answers: list[Any] = []

            async def send(message: Any) -> None:
                answers.append(message)

            async def receive() -> Any:
                return {"type": "http.request", "body": b"", "more_body": False}

            scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"",
                     "headers": [], "extensions": {}}  # fmt: skip
            await application(scope, receive, send)
            return answers[0]["status"]
        finally:
            await chain.close(1)

    with pytest.raises(PluginError, match="set redis_key"):
        asyncio.run(run({}))
    assert asyncio.run(run({"redis_key": "a"})) == 200


def test_through_the_gateway(redis: RedisServer) -> None:
    conf = {"rate": 1e-3}

    with TestClient(gateway(mounted(redis), "limit-req", conf)) as gate:
        answers = [gate.get("/") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 503]
    assert answers[1].text == "Too many requests\n"


@pytest.mark.parametrize(("on_error", "statuses"), [("closed", [200, 503, 503, 200]), ("open", [200, 503, 200, 200])])
def test_without_redis_the_mount_decides_and_the_log_has_one_line(
    on_error: Any, statuses: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with redis_server(password="hidden") as server:
        made = mounted(server, on_error=on_error)
        with TestClient(gateway(made, "limit-req", {"rate": 1e-3}), raise_server_exceptions=False) as gate:
            found = [gate.get("/").status_code for _ in range(2)]
            assert caplog.text.count("no answer from Redis") == 0
            server.stop()
            found.append(gate.get("/").status_code)
            assert caplog.text.count("no answer from Redis: ConnectionError") == 1
            server.start()
            found.append(gate.get("/").status_code)

    assert found == statuses
    assert "plugin limit-req: " in caplog.text and "hidden" not in caplog.text


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"redis": "localhost:6379"}, "field 'redis': a route gives a URL that begins with redis:// or rediss://"),
        ({"redis": "redis://:hidden@a:port/0"}, "field 'redis': a route gives a URL that begins with redis://"),
        ({"redis": "unix:///run/redis.sock?password=hidden"}, "field 'redis': a route gives a URL that begins"),
        ({"redis": "redis://:hidden@a/0?socket_timeout=1000"}, "field 'redis': a route gives this URL without ?"),
        ({"redis": "redis://:hidden@b/0"}, "field 'redis': a route may not name this"),
        ({"redis": "redis://:hid%0aden@a/0"}, "field 'redis': a route gives a URL without control characters"),
        ({"redis": 1}, "field 'redis': Input should be a valid string"),
        ({"redis_key": ""}, "field 'redis_key': String should have at least 1 character"),
    ],
)
def test_refuses_a_bad_configuration_and_repeats_no_secret(conf: Any, reason: str) -> None:
    made = ready_made(allow=["redis://a"])
    with pytest.raises(ConfigurationError, match=f"^plugin limit-req: {reason}") as caught:
        PluginClient(made, "limit-req", {"rate": 1, **conf}).get("/")
    assert "hidden" not in str(caught.value) and "hid%" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:6379", "redis://:hidden@a:port/0", "redis://[hidden", "tcp://hidden"])
def test_a_malformed_url_of_the_operator_is_refused_and_not_repeated(url: str) -> None:
    made = Bridge()
    made.plugin("limit-req", defaults={"redis": url})(limit_req)

    with pytest.raises(ConfigurationError) as caught:
        PluginClient(made, "limit-req", {"rate": 1}).get("/")
    assert str(caught.value) == "plugin limit-req: field 'redis': redis-py does not accept this URL"


def test_a_route_may_name_a_redis_that_the_operator_allows() -> None:
    with redis_server(password="hidden", tcp=True) as server:
        made = ready_made(allow=[f"redis://127.0.0.1:{server.port}/2"])
        conf = {"rate": 1e-3, "redis": f"redis://:hidden@127.0.0.1:{server.port}/2"}
        with TestClient(gateway(made, "limit-req", conf)) as gate:
            assert [gate.get("/").status_code for _ in range(2)] == [200, 503]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "redis.asyncio", None)

    with pytest.raises(ConfigurationError, match=r'redis needs redis.*: pip install "asgi_bridge\[apps\]"'):
        PluginClient(ready_made(allow=["redis://a"]), "limit-req", {"rate": 1, "redis": "redis://a"}).get("/")
