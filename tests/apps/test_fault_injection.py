"""``fault-injection`` answers some requests with a fault, as the example of the Go runner does."""

from functools import partial

import pytest
from asgi_bridge_apps import bridge
from asgi_bridge_apps.fault_injection import fault_injection

from asgi_bridge import Bridge, ConfigurationError
from asgi_bridge.testing import PluginClient


def rolling(*rolls: float) -> Bridge:
    rolled = Bridge()
    rolled.plugin("fault-injection")(partial(fault_injection, roll=partial(next, iter(rolls))))
    return rolled


def test_every_request_gets_the_fault_unless_a_percentage_says_otherwise() -> None:
    client = PluginClient(bridge, "fault-injection", {"http_status": 502, "body": "broken"})

    answers = [client.get("/") for _ in range(20)]

    assert {(answer.status_code, answer.text) for answer in answers} == {(502, "broken")}


def test_zero_percent_lets_every_request_pass() -> None:
    client = PluginClient(bridge, "fault-injection", {"http_status": 502, "percentage": 0})

    assert {client.get("/").status_code for _ in range(20)} == {200}


@pytest.mark.parametrize(
    ("percentage", "roll", "status"),
    [
        (0, 0.0, 200),
        (1, 0.0, 503),
        (1, 0.0099, 503),
        (1, 0.01, 200),
        (30, 0.29, 503),
        (30, 0.3, 200),
        (100, 0.9999, 503),
    ],
)
def test_the_percentage_is_the_share_of_faults(percentage: int, roll: float, status: int) -> None:
    conf = {"http_status": 503, "percentage": percentage}

    assert PluginClient(rolling(roll), "fault-injection", conf).get("/").status_code == status


def test_each_request_is_decided_by_itself() -> None:
    client = PluginClient(rolling(0.4, 0.6, 0.4), "fault-injection", {"http_status": 500, "percentage": 50})

    assert [client.get("/").status_code for _ in range(3)] == [500, 200, 500]


@pytest.mark.parametrize("status", [200, 204, 304, 599])
def test_a_fault_may_have_no_body(status: int) -> None:
    answer = PluginClient(bridge, "fault-injection", {"http_status": status}).get("/")

    assert (answer.status_code, answer.content) == (status, b"")


def test_head_gets_the_status_and_no_body() -> None:
    answer = PluginClient(bridge, "fault-injection", {"http_status": 503, "body": "broken"}).head("/")

    assert (answer.status_code, answer.content) == (503, b"")


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({}, "field 'http_status': Field required"),
        ({"http_status": 199}, "field 'http_status': Input should be greater than or equal to 200"),
        ({"http_status": 1000}, "field 'http_status': Input should be less than or equal to 999"),
        ({"http_status": 444}, "field 'http_status': Value error, APISIX cannot pass this status on"),
        ({"http_status": "503"}, "field 'http_status': Input should be a valid integer"),
        ({"http_status": 503, "percentage": 101}, "field 'percentage': Input should be less than or equal to 100"),
        ({"http_status": 503, "percentage": -1}, "field 'percentage': Input should be greater than or equal to 0"),
        ({"http_status": 503, "percentage": 0.5}, "field 'percentage': Input should be a valid integer"),
        ({"http_status": 503, "percent": 5}, "field 'percent': Extra inputs are not permitted"),
    ],
)
def test_refuses_a_bad_configuration(conf: object, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^plugin fault-injection: {reason}"):
        PluginClient(bridge, "fault-injection", conf).get("/")
