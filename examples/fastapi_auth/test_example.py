"""FastAPI's dependencies, scopes and validation decide at the gateway what reaches the upstream."""

import logging
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
ADA = {"authorization": "Bearer ada-secret"}
BOB = {"authorization": "Bearer bob-secret"}
ORDER = {"sku": "ABC-1234", "quantity": 2}


class Upstream:
    """Answers every request, and records it."""

    def __init__(self) -> None:
        self.seen: list[tuple[Request, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope, receive)
            self.seen.append((request, await request.body()))
            await PlainTextResponse("from the upstream", 201)(scope, receive, send)


@pytest.fixture
def shop() -> Upstream:
    return Upstream()


@pytest.fixture
def client(shop: Upstream) -> Iterator[TestClient]:
    with TestClient(Gateway(bridge, ROUTES, upstream=shop)) as client:
        yield client


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer guessed"}, {"x-api-key": "guessed"}])
def test_without_valid_credentials_it_is_401(client: TestClient, shop: Upstream, headers: dict[str, str]) -> None:
    answer = client.post("/orders", json=ORDER, headers=headers)

    assert (answer.status_code, answer.json()) == (401, {"detail": "Who are you?"})
    assert answer.headers["www-authenticate"] == "Bearer"
    assert shop.seen == []


def test_without_the_scope_it_is_403(client: TestClient, shop: Upstream) -> None:
    answer = client.post("/orders", json=ORDER, headers=BOB)

    assert (answer.status_code, answer.json()) == (403, {"detail": "bob lacks orders:write"})
    assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="orders:write"'
    assert shop.seen == []


@pytest.mark.parametrize(
    ("changed", "field"),
    [({"quantity": 0}, "quantity"), ({"sku": "../etc"}, "sku"), ({"discount": 99}, "discount")],
)
def test_an_order_that_does_not_validate_is_422(
    client: TestClient, shop: Upstream, changed: dict[str, object], field: str
) -> None:
    answer = client.post("/orders", json=ORDER | changed, headers=ADA)

    assert (answer.status_code, [each["loc"] for each in answer.json()["detail"]]) == (422, [["body", field]])
    assert shop.seen == []


def test_a_valid_order_goes_to_the_upstream_with_the_user(
    client: TestClient, shop: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "orders.audit")
    forged = [("X-User", "root"), ("x_user", "root"), *ADA.items(), ("x-trace", "7")]

    answer = client.post("/orders", json=ORDER, headers=forged)

    assert (answer.status_code, answer.text) == (201, "from the upstream")
    ((request, body),) = shop.seen
    assert (request.method, request.url.path, body) == ("POST", "/orders", b'{"sku":"ABC-1234","quantity":2}')
    assert request.headers.getlist("x-user") == ["ada"]
    assert {"x_user", "authorization"}.isdisjoint(request.headers)
    assert request.headers["x-trace"] == "7"
    # the background task
    audited = [record.getMessage() for record in caplog.records if record.name == "orders.audit"]
    assert audited == ["ada orders 2 of ABC-1234"]


def test_an_api_key_works_too(client: TestClient, shop: Upstream) -> None:
    client.get("/orders/7?full=1", headers={"x-api-key": "bob-secret"})

    ((request, _),) = shop.seen
    assert (request.url.path, request.url.query, request.headers["x-user"]) == ("/orders/7", "full=1", "bob")
    assert "x-api-key" not in request.headers


def test_the_rest_of_the_application_answers_at_the_gateway(client: TestClient, shop: Upstream) -> None:
    assert client.get("/orders/seven", headers=BOB).status_code == 422
    assert client.delete("/orders/7", headers=ADA).status_code == 405
    assert client.get("/orders/7/items", headers=ADA).json() == {"detail": "Not Found"}
    assert "Order" in client.get("/orders/openapi.json").json()["components"]["schemas"]
    assert shop.seen == []
