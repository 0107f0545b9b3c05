"""``limit-req`` is a leaky bucket: requests above the rate wait, and those above the burst are refused."""

from functools import partial

import pytest
from asgi_bridge_apps import bridge
from asgi_bridge_apps.limit_req import LONGEST_DELAY, LeakyBucket, LimitReqConf, limit_req

from asgi_bridge import Bridge, ConfigurationError
from asgi_bridge.testing import PluginClient


class Clock:
    """Clock that a test moves. It records sleeps, and does not move with them."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def bridge(self) -> Bridge:
        timed = Bridge()
        timed.plugin("limit-req")(partial(limit_req, clock=self, sleep=self.sleep))
        return timed


def test_up_to_the_burst_requests_are_delayed_and_the_rest_is_refused() -> None:
    clock = Clock()
    client = PluginClient(clock.bridge(), "limit-req", {"rate": 4, "burst": 2})

    assert [client.get("/").status_code for _ in range(5)] == [200, 200, 200, 503, 503]
    assert clock.slept == [0.25, 0.5]


def test_without_a_burst_nothing_waits() -> None:
    clock = Clock()
    client = PluginClient(clock.bridge(), "limit-req", {"rate": 2})

    statuses = []
    for seconds in (0, 0.25, 0.25, 0.5, 0.49, 0.01):
        clock.now += seconds
        statuses.append(client.get("/").status_code)

    assert statuses == [200, 503, 200, 200, 503, 200]
    assert clock.slept == []


def test_a_refused_request_does_not_fill_the_bucket() -> None:
    clock = Clock()
    client = PluginClient(clock.bridge(), "limit-req", {"rate": 1, "burst": 1})

    assert [client.get("/").status_code for _ in range(12)] == [200, 200, *[503] * 10]
    clock.now += 1
    assert [client.get("/").status_code for _ in range(2)] == [200, 503]


def test_an_empty_bucket_saves_nothing_up() -> None:
    clock = Clock()
    bucket = LeakyBucket(10, 1, clock)

    assert [bucket.pour() for _ in range(3)] == [0.0, 0.1, None]
    clock.now += 3600
    assert [bucket.pour() for _ in range(3)] == [0.0, 0.1, None]


def test_a_clock_that_stands_still_or_goes_back_lets_nothing_more_through() -> None:
    clock = Clock()
    bucket = LeakyBucket(10, 0, clock)

    assert bucket.pour() == 0.0
    clock.now -= 1
    assert bucket.pour() is None


@pytest.mark.parametrize("rate", [3, 7, 0.1, 1 / 3, 1e6])
def test_a_burst_at_one_moment_is_counted_exactly(rate: float) -> None:
    bucket = LeakyBucket(rate, 2, Clock())

    assert [bucket.pour() is None for _ in range(4)] == [False, False, False, True]


def test_nobody_waits_longer_than_a_call_may() -> None:
    bucket = LeakyBucket(1, LimitReqConf(rate=1, burst=1000).holds, Clock())

    delays = [bucket.pour() for _ in range(int(LONGEST_DELAY) + 2)]

    assert delays == [*map(float, range(int(LONGEST_DELAY) + 1)), None]


def test_routes_do_not_share_a_bucket() -> None:
    clock = Clock()
    timed = clock.bridge()
    first = PluginClient(timed, "limit-req", {"rate": 1}, route_id="1")
    second = PluginClient(timed, "limit-req", {"rate": 1}, route_id="2")

    assert [first.get("/").status_code, second.get("/").status_code, first.get("/").status_code] == [200, 200, 503]


def test_the_mounted_plugin_uses_the_real_clock() -> None:
    client = PluginClient(bridge, "limit-req", {"rate": 1e-6})

    assert [client.head("/").status_code for _ in range(2)] == [200, 503]


def test_the_lifespan_does_not_count_as_a_request() -> None:
    with PluginClient(bridge, "limit-req", {"rate": 1e-6}) as client:
        assert [client.get("/").status_code for _ in range(2)] == [200, 503]


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({}, "field 'rate': Field required"),
        ({"rate": 0}, "field 'rate': Input should be greater than 0"),
        ({"rate": "5"}, "field 'rate': Input should be a valid number"),
        ('{"rate": 1e999}', ".*(finite number|too large)"),
        ({"rate": 5, "burst": -1}, "field 'burst': Input should be greater than or equal to 0"),
        ({"rate": 5, "burst": 1.5}, "field 'burst': Input should be a valid integer"),
        ({"rate": 5, "key": "remote_addr"}, "field 'key': Extra inputs are not permitted"),
    ],
)
def test_refuses_a_bad_configuration(conf: object, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^plugin limit-req: {reason}"):
        PluginClient(bridge, "limit-req", conf).get("/")
