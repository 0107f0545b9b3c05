"""``limit-count`` counts requests of each client in fixed and in sliding windows, here and in a real Redis."""

import asyncio
import random
from collections import Counter as Tally
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from asgi_bridge_apps import bridge, ready_made
from asgi_bridge_apps._shared import windows
from asgi_bridge_apps._shared.windows import SharedCounter, Taken, Window
from asgi_bridge_apps.limit_count import limit_count
from starlette.testclient import TestClient

from asgi_bridge import Bridge, ConfigurationError
from asgi_bridge.plugins.numbers_by_name import NumbersByName
from asgi_bridge.testing import PluginClient

from .redis_server import RedisServer, needs_redis, redis_server
from .routes import gateway


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def timed(clock: Clock, **defaults: Any) -> Bridge:
    made = Bridge()
    made.plugin("limit-count", defaults=defaults)(partial(limit_count, clock=clock, shared_clock=clock))
    return made


def told(answer: Any) -> tuple[int, str, str, str, str | None]:
    """What an answer tells its client: status, limit, remaining, reset, and when to try again."""
    names = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
    return answer.status_code, *(answer.headers[name] for name in names), answer.headers.get("retry-after")


def test_a_fixed_window_begins_with_the_first_request_and_ends_as_a_whole() -> None:
    clock = Clock()
    client = PluginClient(timed(clock), "limit-count", {"count": 2, "time_window": 60})

    found = []
    for seconds in (0, 10.5, 10, 39, 0.5, 59, 0.5):
        clock.now += seconds
        found.append(told(client.get("/")))

    assert found == [
        (200, "2", "1", "60", None),
        (200, "2", "0", "50", None),
        (429, "2", "0", "40", "40"),
        (429, "2", "0", "1", "1"),
        (200, "2", "1", "60", None),
        (200, "2", "0", "1", None),
        (429, "2", "0", "1", "1"),
    ]


def test_a_sliding_window_ends_at_each_moment() -> None:
    clock = Clock()
    clock.now = 600.0  # at the beginning of a window of a minute
    client = PluginClient(timed(clock), "limit-count", {"count": 4, "time_window": 60, "window": "sliding"})

    found = []
    for seconds in (30, 0, 0, 0, 0, 30, 15, 0, 15, 120, 0):
        clock.now += seconds
        found.append(told(client.get("/")))

    assert found == [
        *[(200, "4", str(left), "30", None) for left in (3, 2, 1, 0)],
        (429, "4", "0", "30", "45"),  # after a quarter of the next window three of the four still count
        (429, "4", "0", "60", "15"),
        (200, "4", "0", "45", None),
        (429, "4", "0", "45", "15"),
        (200, "4", "0", "30", None),
        (200, "4", "3", "30", None),
        (200, "4", "2", "30", None),
    ]


def test_a_fixed_window_lets_twice_the_count_through_at_its_end_and_a_sliding_one_does_not() -> None:
    def passed(window: Any) -> int:
        clock = Clock()
        clock.now = 600.0
        client = PluginClient(timed(clock), "limit-count", {"count": 10, "time_window": 60, "window": window})
        statuses = [client.get("/").status_code]
        clock.now += 59
        statuses += [client.get("/").status_code for _ in range(20)]
        clock.now += 1
        statuses += [client.get("/").status_code for _ in range(20)]
        return statuses.count(200) - 1

    assert (passed("fixed"), passed("sliding")) == (19, 9)


@pytest.mark.parametrize("kind", ["fixed", "sliding"])
def test_in_no_time_as_long_as_a_window_more_than_twice_the_count_pass(kind: Any) -> None:
    chance, window, pair, now = random.Random(7), Window(20, 10.0, kind), [0.0, 0.0], 1000.0
    times = []
    for _ in range(5000):
        now += chance.choice((0, 0.01, 0.3, 1, 5))
        taken = window.take(pair, now)
        assert taken.passed == (taken.wait == 0) and taken.remaining in range(20) and 0 <= taken.reset <= 10
        if taken.passed:
            times.append(now)
        else:  # a refused client that waits as long as it is told passes
            assert window.take(list(pair), now + taken.wait + 1e-6).passed
            assert not window.take(list(pair), now + taken.wait * 0.9).passed
    most = max(sum(begin <= time < begin + 10 for time in times) for begin in times)
    assert most <= (39 if kind == "fixed" else 30)


@pytest.mark.parametrize(
    ("conf", "requests", "statuses"),
    [
        ({}, [("1.1.1.1", {}), ("1.1.1.2", {}), ("1.1.1.1", {})], [200, 200, 429]),
        ({"key_type": "constant"}, [("1.1.1.1", {}), ("1.1.1.2", {})], [200, 429]),
        (
            {"key": "http_x_team"},
            [("1.1.1.1", {"x-team": "a"}), ("1.1.1.1", {"x-team": "b"}), ("1.1.1.2", {"X-TEAM": "a"})],
            [200, 200, 429],
        ),
        # without a value the address counts, and nobody can pretend to be an address
        (
            {"key": "http_x_team"},
            [("1.1.1.1", {}), ("1.1.1.2", {"x-team": "1.1.1.1"}), ("1.1.1.1", {})],
            [200, 200, 429],
        ),
        ({"key": "http_x_team"}, [("1.1.1.1", {}), ("1.1.1.2", {}), ("1.1.1.2", {"x-team": ""})], [200, 200, 429]),
        (
            {"key": "$http_a ${http_b}", "key_type": "var_combination"},
            [("1.1.1.1", {"a": "x", "b": "y"}), ("1.1.1.2", {"a": "xy"}), ("1.1.1.3", {"a": "x", "b": "y"})],
            [200, 200, 429],
        ),
        (
            {"key": "$http_a$http_b", "key_type": "var_combination"},
            [("1.1.1.1", {"a": "xy", "b": ""}), ("1.1.1.1", {"a": "x", "b": "y"}), ("1.1.1.1", {"b": "xy"})],
            [200, 200, 200],
        ),
        ({"key": "consumer_name"}, [("1.1.1.1", {}), ("1.1.1.2", {}), ("1.1.1.1", {})], [200, 200, 429]),
    ],
)  # fmt: skip
def test_the_key_says_who_is_counted_together(conf: Any, requests: Any, statuses: list[int]) -> None:
    found = []
    with TestClient(gateway(bridge, "limit-count", {"count": 1, "time_window": 3600, **conf})) as client:
        transport: Any = client._transport
        for address, headers in requests:
            transport.client = (address, 1)
            found.append(client.get("/", headers=headers).status_code)

    assert found == statuses


def test_consumers_of_key_auth_are_counted_by_the_header_that_it_sets() -> None:
    keys = {"ada": ["ada-key-0123456789"], "bob": ["bob-key-0123456789"]}
    plugins = {
        "key-auth": {"keys": keys, "consumer_header": "x-consumer"},
        "limit-count": {"count": 1, "time_window": 3600, "key": "http_x_consumer"},
    }
    client = PluginClient(bridge, list(plugins.items()))

    found: list[int] = []
    for name in ("ada", "bob", "ada"):
        headers = {"apikey": keys[name][0], "x-consumer": str(len(found))}
        found.append(client.get("/", headers=headers).status_code)

    assert found == [200, 200, 429]


def test_a_variable_of_the_gateway_may_be_the_key() -> None:
    conf = {"count": 1, "time_window": 3600, "key": "consumer_name"}
    client = PluginClient(bridge, "limit-count", conf, variables={"consumer_name": "ada"})
    application: Any = client.app

    found = []
    for name in ("ada", b"bob", "ada", None, None):
        application._variables["consumer_name"] = name
        found.append(client.get("/").status_code)

    assert found == [200, 200, 429, 200, 429]


def test_a_route_may_choose_the_refusal_and_hide_the_headers() -> None:
    conf = {"count": 1, "time_window": 3600, "rejected_code": 503, "rejected_msg": "slow down"}
    with TestClient(gateway(bridge, "limit-count", {**conf, "show_limit_quota_header": False})) as client:
        passed, refused = client.get("/"), client.get("/")

    assert (passed.status_code, refused.status_code, refused.text) == (200, 503, "slow down")
    for answer in (passed, refused):
        assert [name for name in answer.headers if name.startswith(("x-ratelimit", "retry"))] == []


def test_through_the_gateway_the_client_sees_where_it_stands() -> None:
    with TestClient(gateway(bridge, "limit-count", {"count": 1, "time_window": 3600})) as client:
        found = [told(client.get("/")) for _ in range(2)]

    assert found[0] == (200, "1", "0", "3600", None)
    assert (found[1][:3], found[1][4]) == ((429, "1", "0"), found[1][3])


def test_more_clients_than_fit_push_out_those_that_were_away_for_longest() -> None:
    numbers = NumbersByName(limit=3)
    for name in (b"a", b"b", b"c", b"a", b"d", b"e"):
        with numbers.of(name) as pair:
            pair[0] += 1
    with numbers.of(b"f"):
        pass  # what stays zero takes no place

    def of(name: bytes) -> float:
        with numbers.of(name) as pair:
            return pair[0]

    assert len(numbers) == 3
    assert [of(name) for name in (b"a", b"d", b"e", b"b", b"c", b"f")] == [2, 1, 1, 0, 0, 0]


# --- with Redis -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def keys_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis keeps a key for an hour: it expires keys by its own clock, and these tests have theirs."""
    monkeypatch.setattr(windows, "KEPT_MILLISECONDS", 3_600_000)


@needs_redis
@pytest.mark.usefixtures("keys_stay")
@pytest.mark.parametrize("kind", ["fixed", "sliding"])
def test_a_shared_window_behaves_like_one_in_a_process(redis: RedisServer, kind: Any) -> None:
    async def run(window: Window, chance: random.Random) -> tuple[list[Taken], list[Taken]]:
        clock, pair = Clock(), [0.0, 0.0]
        shared = SharedCounter(redis.url, window, clock)
        pairs = []
        for _ in range(120):
            clock.now += chance.choice((0, 0, 0.001, 0.25, 1, 7.5, 30))
            name = f"{kind} {window.count} {window.seconds}"
            pairs.append((window.take(pair, clock.now), await shared.take(name)))
        await shared.close()
        return [one for one, _ in pairs], [other for _, other in pairs]

    for number, (count, seconds) in enumerate([(1, 1.0), (3, 10.0), (7, 0.5), (10, 60.0), (2, 7.0)]):
        own, shared = asyncio.run(run(Window(count, seconds, kind), random.Random(number)))
        assert [(one.passed, one.remaining) for one in own] == [(one.passed, one.remaining) for one in shared]
        assert [one.reset for one in own] == pytest.approx([one.reset for one in shared], abs=1e-3)
        assert [one.wait for one in own] == pytest.approx([one.wait for one in shared], abs=1e-3)


@needs_redis
@pytest.mark.usefixtures("keys_stay")
@pytest.mark.parametrize("kind", ["fixed", "sliding"])
def test_two_gateways_let_exactly_the_count_through_in_total(redis: RedisServer, kind: Any) -> None:
    clock = Clock()
    clock.now = 1_700_000_100.0
    conf = {"count": 30, "time_window": 60, "window": kind, "redis_key": f"two {kind}"}
    with ExitStack() as stack:
        clients = [
            stack.enter_context(PluginClient(timed(clock, redis=redis.url), "limit-count", conf)) for _ in range(2)
        ]
        threads = stack.enter_context(ThreadPoolExecutor(20))

        def hundred() -> Tally[int]:
            return Tally(threads.map(lambda number: clients[number % 2].get("/").status_code, range(100)))

        assert hundred() == {200: 30, 429: 70}
        clock.now += 3600
        assert hundred() == {200: 30, 429: 70}


@needs_redis
@pytest.mark.usefixtures("keys_stay")
@pytest.mark.parametrize("kind", ["fixed", "sliding"])
def test_a_clock_that_goes_back_lets_nothing_more_through(redis: RedisServer, kind: Any) -> None:
    async def run() -> list[bool]:
        clock = Clock()
        counter = SharedCounter(redis.url, Window(2, 60.0, kind), clock)
        found = []
        for seconds in (0, 0, -3600, 0, 3600 + 180):
            clock.now += seconds
            found.append((await counter.take("back")).passed)
        await counter.close()
        return found

    assert asyncio.run(run()) == [True, True, False, False, True]


@needs_redis
def test_redis_holds_neither_the_value_of_the_key_nor_a_count_for_longer_than_it_matters(redis: RedisServer) -> None:
    from redis.asyncio import Redis

    conf = {"time_window": 5, "count": 9, "key": "http_x_key"}
    for kind in ("fixed", "sliding"):
        with PluginClient(
            timed(Clock(), redis=redis.url), "limit-count", {**conf, "window": kind}, route_id="r"
        ) as one:
            one.get("/", headers={"x-key": "a secret"})

    async def look() -> list[tuple[str, int]]:
        async with Redis.from_url(redis.url, decode_responses=True) as client:
            return [(key, await client.pttl(key)) async for key in client.scan_iter("*:r:*")]

    found = sorted(asyncio.run(look()))
    assert [key.rpartition(":")[0] for key, _ in found] == [
        "asgi_bridge:limit-count:fixed:r", "asgi_bridge:limit-count:sliding:r"
    ]  # fmt: skip
    assert "secret" not in str(found)
    assert all(0 < left <= 11_000 for _, left in found)


@needs_redis
@pytest.mark.parametrize(("on_error", "statuses"), [("closed", [200, 429, 503]), ("open", [200, 429, 200])])
def test_without_redis_the_mount_decides(on_error: Any, statuses: list[int], caplog: pytest.LogCaptureFixture) -> None:
    with redis_server(password="hidden") as server:
        made = Bridge()
        made.plugin("limit-count", defaults={"redis": server.url}, on_error=on_error)(limit_count)
        conf = {"count": 1, "time_window": 3600}
        with TestClient(gateway(made, "limit-count", conf), raise_server_exceptions=False) as gate:
            found = [gate.get("/").status_code for _ in range(2)]
            server.stop()
            found.append(gate.get("/").status_code)

    assert found == statuses
    assert caplog.text.count("plugin limit-count: ") == 1
    assert "no answer from Redis: ConnectionError" in caplog.text and "hidden" not in caplog.text


RIGHT = {"count": 1, "time_window": 1}


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({}, "field 'count': Field required; field 'time_window': Field required"),
        ({"count": 0, "time_window": 1}, "field 'count': Input should be greater than or equal to 1"),
        ({"count": 1.5, "time_window": 1}, "field 'count': Input should be a valid integer"),
        ({"count": 1, "time_window": 0}, "field 'time_window': Input should be greater than or equal to 0.001"),
        ({"count": 10_000_001, "time_window": 1}, "field 'count': Input should be less than or equal to 10000000"),
        ({**RIGHT, "window": "leaky"}, "field 'window': Input should be 'fixed' or 'sliding'"),
        ({**RIGHT, "key": "$remote_addr"}, "Value error, key names a variable, without $"),
        ({**RIGHT, "key": "team", "key_type": "var_combination"}, "Value error, key names a variable, without $"),
        ({**RIGHT, "key": "$a" * 17, "key_type": "var_combination"}, "Value error, key has at most 16 variables"),
        ({**RIGHT, "rejected_code": 200}, "field 'rejected_code': Value error, a refusal has a status of 400"),
        ({**RIGHT, "rejected_code": 499}, "field 'rejected_code': Value error, APISIX cannot pass this status on"),
        ({**RIGHT, "redis": "redis://b"}, "field 'redis': a route may not name this"),
        ({**RIGHT, "policy": "local"}, "field 'policy': Extra inputs are not permitted"),
    ],
)
def test_refuses_a_bad_configuration(conf: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        PluginClient(ready_made(allow=["redis://a"]), "limit-count", conf).get("/")
    assert str(caught.value).startswith(f"plugin limit-count: {reason}")
