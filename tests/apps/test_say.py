"""``say`` answers with a text, as the example of the Go runner does."""

import pytest
from asgi_bridge_apps import bridge

from asgi_bridge import ConfigurationError
from asgi_bridge.testing import PluginClient


def test_answers_with_the_body_and_names_the_runner() -> None:
    answer = PluginClient(bridge, "say", {"body": "hello"}).get("/")

    assert (answer.status_code, answer.text) == (200, "hello")
    assert answer.headers["x-resp-a6-runner"] == "Python"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("conf", [{}, {"body": ""}, ""])
def test_without_a_body_the_request_passes_and_the_response_is_the_upstreams(conf: object) -> None:
    answer = PluginClient(bridge, "say", conf).post("/a?b=1", content=b"c")

    assert {key: answer.json()[key] for key in ("method", "target", "body")} == {
        "method": "POST",
        "target": "/a?b=1",
        "body": "c",
    }
    assert "x-resp-a6-runner" not in answer.headers


def test_head_has_headers_and_no_body() -> None:
    answer = PluginClient(bridge, "say", {"body": "hello"}).head("/")

    assert (answer.content, answer.headers["content-length"]) == (b"", "5")


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"bdy": "hello"}, "field 'bdy': Extra inputs are not permitted"),
        ({"body": 1}, "field 'body': Input should be a valid string"),
        ({"body": None}, "field 'body': Input should be a valid string"),
        ([], "Input should be an object"),
        ("{", "the configuration is not JSON"),
    ],
)
def test_refuses_a_bad_configuration(conf: object, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^plugin say: {reason}"):
        PluginClient(bridge, "say", conf).get("/")
