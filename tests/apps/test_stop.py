"""``stop`` answers with what the route configures, and by default as the example of the official Python runner."""

import pytest
from asgi_bridge_apps import bridge

from asgi_bridge import ConfigurationError
from asgi_bridge.testing import PluginClient


def test_without_a_configuration_it_answers_as_the_example_does() -> None:
    answer = PluginClient(bridge, "stop", {}).get("/")

    assert (answer.status_code, answer.text) == (201, "Hello, Python Runner of APISIX")
    assert answer.headers["x-resp-a6-runner"] == "Python"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_answers_with_what_is_configured() -> None:
    conf = {"body": '{"a": 1}', "status": 403, "headers": {"Content-Type": "application/json", "X-A": "1"}}

    answer = PluginClient(bridge, "stop", conf).get("/")

    assert (answer.status_code, answer.json()) == (403, {"a": 1})
    assert answer.headers.multi_items() == [
        ("content-length", "8"),
        ("content-type", "application/json"),
        ("x-a", "1"),
    ]


def test_a_header_may_be_repeated() -> None:
    conf = {"headers": {"Set-Cookie": ["a=1; Path=/", "b=2"], "X-None": []}}

    headers = PluginClient(bridge, "stop", conf).get("/").headers

    assert headers.get_list("set-cookie") == ["a=1; Path=/", "b=2"]
    assert "x-none" not in headers


def test_head_and_an_empty_body() -> None:
    assert PluginClient(bridge, "stop", {"body": "abc"}).head("/").content == b""
    answer = PluginClient(bridge, "stop", {"body": "", "status": 404}).get("/")
    assert (answer.status_code, answer.content) == (404, b"")


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"status": 100}, "field 'status': Input should be greater than or equal to 200"),
        ({"status": 499}, "field 'status': Value error, APISIX cannot pass this status on"),
        ({"status": True}, "field 'status': Input should be a valid integer"),
        ({"headers": {"a b": "1"}}, "field 'headers.a b.*': String should match pattern"),
        ({"headers": {"": "1"}}, "field 'headers..*': String should match pattern"),
        ({"headers": {"x-a": "1\r\nx-b: 2"}}, "field 'headers.x-a.*': String should match pattern"),
        ({"headers": {"x-a": ["1", "\n"]}}, "field 'headers.x-a.*': String should match pattern"),
        ({"headers": {"x-a": "日"}}, "field 'headers.x-a.*': String should match pattern"),
        ({"headers": {"x-a": 1}}, "field 'headers.x-a.*': Input should be a valid string"),
        (
            {"headers": {"Content-Length": "1"}},
            "field 'headers.*': Value error, content-length belongs to one",
        ),
        ({"header": {}}, "field 'header': Extra inputs are not permitted"),
    ],
)
def test_refuses_a_bad_configuration(conf: object, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^plugin stop: .*{reason}"):
        PluginClient(bridge, "stop", conf).get("/")
