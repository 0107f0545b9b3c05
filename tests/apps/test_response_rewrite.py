"""``response-rewrite`` changes status, headers and body of the upstream's response."""

import json
from typing import Any

import pytest
from asgi_bridge_apps import bridge
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from asgi_bridge import ConfigurationError
from asgi_bridge.testing import Gateway, PluginClient

BODY = "hello world, hello gateway"


async def plain(request: Request) -> Response:
    return PlainTextResponse(BODY, headers={"etag": '"1"', "x-upstream": "1"})


async def streamed(request: Request) -> Response:
    return StreamingResponse(iter([b"hello wor", b"ld, hello ", b"gateway"]), media_type="text/plain")


async def encoded(request: Request) -> Response:
    return PlainTextResponse(BODY, headers={"content-encoding": "br"})


async def nothing(request: Request) -> Response:
    return Response(status_code=204)


upstream = Starlette(
    routes=[Route("/", plain), Route("/stream", streamed), Route("/br", encoded), Route("/204", nothing)]
)


def through(conf: Any) -> list[TestClient]:
    """As plain ASGI, and through the gateway."""
    listed = {"conf": [{"name": "response-rewrite", "value": json.dumps(conf)}]}
    route = {"uri": "/*", "plugins": {"ext-plugin-post-resp": listed}}
    return [PluginClient(bridge, "response-rewrite", conf, upstream=upstream),
            TestClient(Gateway(bridge, [route], upstream=upstream))]  # fmt: skip


@pytest.mark.parametrize("target", ["/", "/stream"])
@pytest.mark.parametrize(
    ("conf", "body"),
    [
        ({}, BODY),
        ({"body": "other"}, "other"),
        ({"filters": [{"regex": "hel+o", "replace": "bye"}]}, "bye world, hello gateway"),
        ({"filters": [{"regex": "hel+o", "scope": "once", "replace": "bye"}]}, "bye world, hello gateway"),
        ({"filters": [{"regex": "hel+o", "scope": "global", "replace": "bye"}]}, "bye world, bye gateway"),
        # the text of the first match is what is replaced, by a text that is taken literally
        ({"filters": [{"regex": r"\w+ld", "scope": "global", "replace": r"\0"}]}, r"hello \0, hello gateway"),
        ({"filters": [{"regex": "world, "}, {"regex": "hello hello", "replace": "hi"}]}, "hi gateway"),
        ({"filters": [{"regex": "nowhere", "replace": "x"}], "body": "does not count"}, BODY),
        ({"filters": [{"regex": "x*", "scope": "global", "replace": "x"}]}, BODY),
    ],
)
def test_the_body(target: str, conf: Any, body: str) -> None:
    for client in through(conf):
        found = client.get(target)
        assert (found.status_code, found.text) == (200, body)
        if body != BODY:
            assert "etag" not in found.headers


def test_status_and_headers() -> None:
    for client in through({"status": 418, "headers": {"X-Upstream": "2", "X-New": "1"}}):
        found = client.get("/")
        assert (found.status_code, found.text) == (418, BODY)
        names = ("x-upstream", "x-new", "etag", "x-resp-a6-runner")
        assert [found.headers.get_list(name) for name in names] == [["2"], ["1"], ['"1"'], ["Python"]]


def test_the_go_examples_header_can_be_set() -> None:
    for client in through({"headers": {"X-Resp-A6-Runner": "Go"}}):
        assert client.get("/").headers.get_list("x-resp-a6-runner") == ["Go"]


def test_an_encoded_body_is_not_searched_but_may_be_replaced() -> None:
    for client in through({"filters": [{"regex": "hello"}]}):
        with client.stream("GET", "/br") as found:
            assert b"".join(found.iter_raw()).decode() == BODY
            assert found.headers["content-encoding"] == "br"
    for client in through({"body": "plain"}):
        found = client.get("/br")
        assert found.text == "plain"
        assert "content-encoding" not in found.headers


def test_a_response_without_a_body_gets_none() -> None:
    for client in through({"body": "other", "headers": {"x-new": "1"}}):
        found = client.get("/204")
        assert (found.status_code, found.content, found.headers["x-new"]) == (204, b"", "1")


@pytest.mark.parametrize(("conf", "length"), [({"body": "other"}, "5"), ({"filters": [{"regex": "hello"}]}, None)])
def test_head(conf: Any, length: str | None) -> None:
    for client in through(conf):
        found = client.head("/")
        assert (found.status_code, found.content, found.headers.get("content-length")) == (200, b"", length)


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"filters": [{"regex": "("}]}, "no regular expression"),
        ({"filters": [{"regex": ""}]}, "String should have at least 1 character"),
        ({"filters": [{"regex": "a", "scope": "twice"}]}, "Input should be 'once' or 'global'"),
        ({"filters": {"regex": "a"}}, "Input should be a valid array"),
        ({"status": 99}, "greater than or equal to 200"),
        ({"headers": {"content-length": "1"}}, "belongs to one connection"),
        ({"status_code": 200}, "Extra inputs are not permitted"),
    ],
)
def test_refuses_what_is_no_configuration(conf: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"plugin response-rewrite: .*{reason}"):
        PluginClient(bridge, "response-rewrite", conf).get("/")
