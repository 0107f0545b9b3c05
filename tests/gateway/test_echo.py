import asyncio
from typing import Any

import pytest
from starlette.testclient import TestClient

from asgi_bridge.gateway import echo


def test_echo_answers_with_what_it_got() -> None:
    client = TestClient(echo)
    answer = client.post("/a%20b?q=1", content="hé", headers={"X-A": "1"}).json()
    assert {key: answer[key] for key in ("method", "target", "path", "query", "body")} == {
        "method": "POST", "target": "/a%20b?q=1", "path": "/a b", "query": "q=1", "body": "hé",
    }  # fmt: skip
    assert ["x-a", "1"] in answer["headers"]


def test_echo_shows_binary_bodies_as_base64() -> None:
    client = TestClient(echo)
    answer = client.post("/x", content=b"\xff\x00").json()
    assert (answer["body"], answer["target"]) == ({"base64": "/wA="}, "/x")


def test_echo_only_speaks_http() -> None:
    with pytest.raises(RuntimeError, match="echo only speaks http, not websocket"):
        asyncio.run(echo({"type": "websocket"}, None, None))  # type: ignore[arg-type]


def test_echo_ends_when_the_client_goes_away() -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    asyncio.run(echo({"type": "http"}, receive, None))  # type: ignore[arg-type]
