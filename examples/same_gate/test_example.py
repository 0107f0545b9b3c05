"""The same gate in four frameworks does the same, and is short in each."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from asgi_bridge import Bridge
from asgi_bridge.testing import Gateway, PluginClient

FOLDER = Path(__file__).parent
FRAMEWORKS = ["starlette", "fastapi", "flask", "django"]
MAX_LINES = 15


class Upstream:
    """Answers every request, and records it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes, list[str], bool]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope, receive)
            users = [value for name, value in request.headers.items() if name in ("x-user", "x_user")]
            target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            body = await request.body()
            self.seen.append((request.method, target, body, users, "x-api-key" in request.headers))
            await PlainTextResponse("from the upstream", 201)(scope, receive, send)


@pytest.fixture
def shop() -> Upstream:
    return Upstream()


@pytest.fixture(params=FRAMEWORKS)
def bridge(request: pytest.FixtureRequest) -> Bridge:
    found: Bridge = importlib.import_module(f"{request.param}_gate").bridge
    return found


@pytest.fixture(params=["plain", "gateway"])
def client(request: pytest.FixtureRequest, bridge: Bridge, shop: Upstream) -> Iterator[TestClient]:
    with (
        PluginClient(bridge, "gate", upstream=shop)
        if request.param == "plain"
        else TestClient(Gateway(bridge, FOLDER / "apisix.yaml", upstream=shop))
    ) as client:
        yield client


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "guessed"}, {"x-api-key": ""}, {"x-user": "root"}])
@pytest.mark.parametrize("target", ["/", "/orders/7?full=1", "/docs", "/openapi.json", "/static/x.css"])
def test_without_a_valid_key_it_is_401(
    client: TestClient, shop: Upstream, headers: dict[str, str], target: str
) -> None:
    answer = client.get(target, headers=headers)

    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "ApiKey")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {"title": "Unauthorized", "status": 401, "detail": "Send a valid X-API-Key."}
    assert shop.seen == []


def test_with_a_key_the_upstream_gets_the_user(client: TestClient, shop: Upstream) -> None:
    forged = [("X-User", "root"), ("x_user", "root"), ("x-api-key", "ada-secret")]
    answer = client.post("/orders?page=2", content="ä", headers=forged)

    assert (answer.status_code, answer.text) == (201, "from the upstream")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    for target in ("/", "/docs", "/static/x.css"):
        client.get(target, headers={"x-api-key": "bob-secret"})
    assert shop.seen == [
        ("POST", "/orders?page=2", "ä".encode(), ["ada"], False),
        ("GET", "/", b"", ["bob"], False),
        ("GET", "/docs", b"", ["bob"], False),
        ("GET", "/static/x.css", b"", ["bob"], False),
    ]


def lines_of(source: str) -> int:
    """Count the lines of a module, without imports, blank lines, comments, its docstring and Django's settings."""
    lines = source.splitlines()
    counted = 0
    for number, statement in enumerate(ast.parse(source).body):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            continue
        if isinstance(statement, ast.Expr) and (number == 0 or ast.unparse(statement).startswith("settings.")):
            continue
        first = min([statement.lineno, *(each.lineno for each in getattr(statement, "decorator_list", ()))])
        counted += sum(bool(line.partition("#")[0].strip()) for line in lines[first - 1 : statement.end_lineno])
    return counted


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_it_is_short(framework: str) -> None:
    assert lines_of((FOLDER / f"{framework}_gate.py").read_text()) <= MAX_LINES


def test_what_counts_as_a_line() -> None:
    source = """'Doc.'

import a

settings.configure(
    b=1
)


# why
@decorated
def f():

    return 1


b = 1
"""
    assert lines_of(source) == 4
