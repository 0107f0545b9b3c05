"""``etag`` makes its tag of the body that the upstream really sent."""

import hashlib
import json
from typing import Any

import pytest
from asgi_bridge_apps import bridge
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from asgi_bridge.testing import Gateway, PluginClient

TAG = f'"{hashlib.blake2b(b"hello", digest_size=16).hexdigest()}"'


async def plain(request: Request) -> Response:
    headers = {"x-upstream": "1", "cache-control": "max-age=5", "set-cookie": "a=1"}
    return PlainTextResponse("hello", request.path_params["status"], headers)


async def streamed(request: Request) -> Response:
    return StreamingResponse(iter([b"hel", b"lo"]))


async def tagged(request: Request) -> Response:
    return PlainTextResponse("hello", headers={"etag": '"own"'})


async def secret(request: Request) -> Response:
    return PlainTextResponse("hello", headers={"cache-control": "private, No-Store"})


upstream = Starlette(routes=[
    Route("/{status:int}", plain, methods=["GET", "HEAD", "POST"]), Route("/stream", streamed),
    Route("/tagged", tagged), Route("/secret", secret),
])  # fmt: skip


def through(**conf: Any) -> list[TestClient]:
    """Clients of the plugin as plain ASGI, and through the gateway in the response phase and in both phases."""
    listed = {"conf": [{"name": "etag", "value": json.dumps(conf)}]}
    response = [{"uri": "/*", "plugins": {"ext-plugin-post-resp": listed}}]
    both = [{"uri": "/*", "plugins": {"ext-plugin-pre-req": listed, "ext-plugin-post-resp": listed}}]
    gateways = [TestClient(Gateway(bridge, routes, upstream=upstream)) for routes in (response, both)]
    return [PluginClient(bridge, "etag", conf, upstream=upstream), *gateways]


@pytest.mark.parametrize("target", ["/200", "/stream"])
@pytest.mark.parametrize(("weak", "tag"), [(False, TAG), (True, f"W/{TAG}")])
def test_the_tag_depends_on_the_body(target: str, weak: bool, tag: str) -> None:
    for client in through(weak=weak):
        found = client.get(target, headers={"if-none-match": '"another"'})
        assert (found.status_code, found.text, found.headers["etag"]) == (200, "hello", tag)


@pytest.mark.parametrize("wanted", [TAG, f"W/{TAG}", f'"another", {TAG}', "*"])
@pytest.mark.parametrize("weak", [False, True])
def test_a_client_that_has_the_body_gets_304(wanted: str, weak: bool) -> None:
    for client in through(weak=weak):
        found = client.get("/200", headers={"if-none-match": wanted})
        assert (found.status_code, found.content) == (304, b"")
        names = ("etag", "cache-control", "set-cookie", "x-upstream", "content-type")
        assert [found.headers.get(name) for name in names] == [
            f"W/{TAG}" if weak else TAG, "max-age=5", "a=1", None, None,
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "target", "tag"),
    [
        ("GET", "/404", None), ("GET", "/203", None), ("POST", "/200", None), ("HEAD", "/200", None),
        ("GET", "/tagged", '"own"'), ("GET", "/secret", None),
    ],
)  # fmt: skip
def test_responses_that_get_no_tag(method: str, target: str, tag: str | None) -> None:
    for client in through():
        found = client.request(method, target)
        assert found.headers.get("etag") == tag
        assert found.text == ("" if method == "HEAD" else "hello")


def test_with_gzip_listed_before_it() -> None:
    names = [("gzip", {"minimum_size": 1}), ("etag", {"weak": True})]
    listed = {"conf": [{"name": name, "value": json.dumps(conf)} for name, conf in names]}
    gateway = Gateway(bridge, [{"uri": "/*", "plugins": {"ext-plugin-post-resp": listed}}], upstream=upstream)
    found = TestClient(gateway).get("/200")
    assert (found.text, found.headers["content-encoding"], found.headers["etag"]) == ("hello", "gzip", f"W/{TAG}")
