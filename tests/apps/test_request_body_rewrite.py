"""``request-body-rewrite`` replaces the request body, as the example of the Go runner does."""

import pytest
from asgi_bridge_apps import bridge
from starlette.types import Receive, Scope, Send

from asgi_bridge import ConfigurationError
from asgi_bridge.testing import PluginClient


@pytest.mark.parametrize("method", ["POST", "PUT", "GET", "DELETE"])
def test_the_upstream_gets_the_new_body_and_its_length(method: str) -> None:
    client = PluginClient(bridge, "request-body-rewrite", {"new_body": "größer"})

    seen = client.request(method, "/", content=b"old").json()

    assert seen["body"] == "größer"
    assert [value for name, value in seen["headers"] if name == "content-length"] == ["8"]


def test_headers_that_describe_the_old_body_are_removed_and_others_stay() -> None:
    headers = [("content-encoding", "gzip"), ("transfer-encoding", "chunked"), ("x-a", "1"), ("x-a", "2")]
    client = PluginClient(bridge, "request-body-rewrite", {"new_body": "new"})

    seen = client.post("/", content=iter([b"a", b"b"]), headers=headers).json()

    framing = [pair for pair in seen["headers"] if pair[0] in ("content-length", "content-encoding", "x-a")]
    assert framing == [["x-a", "1"], ["x-a", "2"], ["content-length", "3"]]
    assert "transfer-encoding" not in dict(seen["headers"])


@pytest.mark.parametrize("conf", [{}, {"new_body": ""}])
def test_without_a_new_body_the_old_one_stays(conf: object) -> None:
    assert PluginClient(bridge, "request-body-rewrite", conf).post("/", content=b"old").json()["body"] == "old"


def test_head_passes_with_the_new_body() -> None:
    answer = PluginClient(bridge, "request-body-rewrite", {"new_body": "new"}).head("/")

    assert (answer.status_code, answer.content) == (200, b"")


def test_after_the_new_body_comes_the_disconnect_and_not_the_old_body() -> None:
    received = []

    async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
        received.append(await receive())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        received.append(await receive())

    PluginClient(bridge, "request-body-rewrite", {"new_body": "new"}, upstream=upstream).post("/", content=b"old")

    assert received == [{"type": "http.request", "body": b"new", "more_body": False}, {"type": "http.disconnect"}]


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"new_body": {"a": 1}}, "field 'new_body': Input should be a valid string"),
        ({"body": "x"}, "field 'body': Extra inputs are not permitted"),
    ],
)
def test_refuses_a_bad_configuration(conf: object, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^plugin request-body-rewrite: {reason}"):
        PluginClient(bridge, "request-body-rewrite", conf).get("/")
