"""The checks of an unchanged Flask application decide at the gateway what reaches the upstream."""

import tomllib
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from asgi_bridge import Bridge
from asgi_bridge.testing import Gateway

FOLDER = Path(__file__).parent
OFFICE, ELSEWHERE, BALANCER = ("192.0.2.1", 50000), ("203.0.113.9", 50000), ("198.51.100.1", 50000)


class Upstream:
    """Answers every request, and records it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope, receive)
            self.seen.append((request.method, request.url.path, await request.body()))
            await PlainTextResponse("from the upstream")(scope, receive, send)


@pytest.fixture
def shop() -> Upstream:
    return Upstream()


@pytest.fixture(scope="module")
def bridge() -> Bridge:
    """Return the bridge that `asgi-bridge run` makes of the pyproject.toml in this folder."""
    bridge = Bridge()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        bridge.configure(tomllib.loads((FOLDER / "pyproject.toml").read_text())["tool"]["asgi_bridge"])
    return bridge


@pytest.fixture
def gateway(bridge: Bridge, shop: Upstream) -> Gateway:
    return Gateway(bridge, FOLDER / "apisix.yaml", upstream=shop)


def signed_in(client: TestClient) -> TestClient:
    answer = client.post("/login", data={"user": "ada", "password": "swordfish"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (302, "/cart")
    return client


def test_strangers_are_sent_to_the_login_at_the_gateway(gateway: Gateway, shop: Upstream) -> None:
    with TestClient(gateway) as client:
        answer = client.get("/cart", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (302, "/login?next=/cart")
        assert "<form" in client.get("/login").text
        assert client.post("/login", data={"user": "ada", "password": "guessed"}).status_code == 401
    assert shop.seen == []


def test_a_signed_in_user_reaches_the_upstream(gateway: Gateway, shop: Upstream) -> None:
    with TestClient(gateway) as client:
        signed_in(client)
        answer = client.post("/cart", content=b"sku=7")

    assert (answer.status_code, answer.text) == (200, "from the upstream")
    # the after_request hook
    assert answer.headers["x-frame-options"] == "DENY"
    assert shop.seen == [("POST", "/cart", b"sku=7")]


def test_the_shops_own_url_map_decides(gateway: Gateway, shop: Upstream) -> None:
    with TestClient(gateway) as client:
        signed_in(client)
        assert client.get("/carts").status_code == 404
        assert client.delete("/cart").status_code == 405
        assert client.get("/admin/stock/seven").status_code == 404
    assert shop.seen == []


@pytest.mark.parametrize(("address", "status"), [(OFFICE, 200), (ELSEWHERE, 403)])
def test_the_office_is_recognized_by_its_address(gateway: Gateway, address: tuple[str, int], status: int) -> None:
    with TestClient(gateway, client=address) as client:
        signed_in(client)
        # without a load balancer, the client itself may have sent this header
        answer = client.get("/admin/stock/7", headers={"x-forwarded-for": "192.0.2.9"})
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("forwarded_for", "status"),
    [("192.0.2.9", 200), ("203.0.113.9", 403), ("192.0.2.9, 203.0.113.9", 403), (None, 403)],
)
def test_behind_a_load_balancer_its_header_is_trusted(
    gateway: Gateway, shop: Upstream, forwarded_for: str | None, status: int
) -> None:
    with TestClient(gateway, base_url="http://balanced.shop.test", client=BALANCER) as client:
        signed_in(client)
        headers = {} if forwarded_for is None else {"x-forwarded-for": forwarded_for}
        assert client.get("/admin/stock/7", headers=headers).status_code == status
    assert shop.seen == ([("GET", "/admin/stock/7", b"")] if status == 200 else [])
