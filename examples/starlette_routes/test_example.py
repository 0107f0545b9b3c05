"""Some paths are answered at the gateway; everything else reaches the upstream unchanged."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from asgi_bridge.testing import Gateway

from .gate import bridge

ROUTES = Path(__file__).with_name("apisix.yaml")


class Upstream:
    """Answers every request, and records it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope, receive)
            target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            self.seen.append((request.method, target, await request.body()))
            await PlainTextResponse("from the upstream")(scope, receive, send)


@pytest.fixture
def shop() -> Upstream:
    return Upstream()


@pytest.fixture
def client(shop: Upstream) -> Iterator[TestClient]:
    gateway = Gateway(bridge, ROUTES, upstream=shop)
    with TestClient(gateway, base_url="http://shop.test", follow_redirects=False) as client:
        yield client


def test_the_gateway_answers_its_own_routes(client: TestClient, shop: Upstream) -> None:
    health, robots = client.get("/health"), client.get("/robots.txt")

    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert (robots.headers["content-type"], robots.text) == (
        "text/plain; charset=utf-8",
        "User-agent: *\nDisallow: /cart\n",
    )
    assert (client.head("/health").status_code, client.head("/health").headers["content-length"]) == (200, "15")
    assert client.post("/health").status_code == 405
    assert shop.seen == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_old_address_is_redirected(client: TestClient, shop: Upstream, method: str) -> None:
    answer = client.request(method, "/blog/hello?page=2")

    assert (answer.status_code, answer.headers["location"]) == (308, "http://shop.test/articles/hello?page=2")
    assert shop.seen == []


def test_everything_else_goes_to_the_upstream_as_it_is(client: TestClient, shop: Upstream) -> None:
    assert client.get("/articles/hello?page=2").text == "from the upstream"
    assert client.post("/cart", content=b"sku=7").text == "from the upstream"
    assert client.get("/health/").text == "from the upstream"
    assert shop.seen == [
        ("GET", "/articles/hello?page=2", b""),
        ("POST", "/cart", b"sku=7"),
        ("GET", "/health/", b""),
    ]


def test_the_maintenance_switch_keeps_requests_from_the_upstream(client: TestClient, shop: Upstream) -> None:
    beta = {"host": "beta.shop.test"}
    answer = client.post("/cart", content=b"sku=7", headers=beta)

    assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (503, "Back soon.\n", "60")
    assert client.get("/health", headers=beta).status_code == 200
    assert shop.seen == []
