"""Django's session, CSRF and auth middleware decide at the gateway who reaches the upstream."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from gate import bridge
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from asgi_bridge.testing import Gateway

ROUTES = Path(__file__).with_name("apisix.yaml")
LOGIN = "/accounts/login/"


class Upstream:
    """Answers every request, and records it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, list[str], bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope, receive)
            names = [value for name, value in request.headers.items() if name in ("x-user", "x_user")]
            self.seen.append((request.method, request.url.path, names, await request.body()))
            await PlainTextResponse("from the upstream")(scope, receive, send)


@pytest.fixture
def site() -> Upstream:
    return Upstream()


@pytest.fixture
def client(site: Upstream) -> Iterator[TestClient]:
    with TestClient(Gateway(bridge, ROUTES, upstream=site), follow_redirects=False) as client:
        yield client


def sign_in(client: TestClient, name: str, password: str, target: str = "") -> str:
    """Fill in Django's login form, and return where it redirects to, or the page that it shows instead."""
    page = client.get(LOGIN, params={"next": target}).text
    (token,) = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    form = {"username": name, "password": password, "next": target, "csrfmiddlewaretoken": token}
    answer = client.post(LOGIN, data=form)
    return answer.headers["location"] if answer.status_code == 302 else answer.text


def test_strangers_are_sent_to_the_login(client: TestClient, site: Upstream) -> None:
    answer = client.get("/reports?year=2026")

    assert (answer.status_code, answer.headers["location"]) == (302, f"{LOGIN}?next=/reports%3Fyear%3D2026")
    assert site.seen == []


def test_a_signed_in_user_reaches_the_upstream(client: TestClient, site: Upstream) -> None:
    assert sign_in(client, "bob", "bob-password", "/reports") == "/reports"
    answer = client.post("/reports", content=b"year=2026", headers=[("X-User", "root"), ("x_user", "root")])

    assert (answer.status_code, answer.text) == (200, "from the upstream")
    # set by SecurityMiddleware and SessionMiddleware
    assert (answer.headers["x-content-type-options"], answer.headers["vary"]) == ("nosniff", "Cookie")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert site.seen == [("POST", "/reports", ["bob"], b"year=2026")]


def test_a_wrong_password_or_a_missing_csrf_token_signs_nobody_in(client: TestClient, site: Upstream) -> None:
    assert "correct username and password" in sign_in(client, "ada", "guessed")
    assert "correct username and password" in sign_in(client, "eve", "guessed")
    assert client.post(LOGIN, data={"username": "ada", "password": "ada-password"}).status_code == 403
    assert client.get("/reports").status_code == 302
    assert site.seen == []


def test_a_forged_session_is_refused(client: TestClient, site: Upstream) -> None:
    sign_in(client, "bob", "bob-password")
    session = client.cookies["sessionid"]
    client.cookies.clear()

    changed = ("A" if session[0] != "A" else "B") + session[1:]
    assert client.get("/reports", headers={"cookie": f"sessionid={changed}"}).status_code == 302
    assert client.get("/reports", headers={"cookie": f"sessionid={session}"}).status_code == 200
    assert len(site.seen) == 1


@pytest.mark.parametrize(("name", "status"), [("ada", 200), ("bob", 403)])
def test_one_part_of_the_site_is_for_staff(client: TestClient, site: Upstream, name: str, status: int) -> None:
    sign_in(client, name, f"{name}-password")

    assert [client.get(path).status_code for path in ("/staff", "/staff/", "/staff/pay", "/staffing")] == [
        status, status, status, 200,
    ]  # fmt: skip
    assert {path for _, path, _, _ in site.seen} == (
        {"/staff", "/staff/", "/staff/pay", "/staffing"} if status == 200 else {"/staffing"}
    )


def test_signing_out_ends_the_session(client: TestClient, site: Upstream) -> None:
    sign_in(client, "bob", "bob-password")
    answer = client.post("/accounts/logout/", headers={"x-csrftoken": client.cookies["csrftoken"]})

    assert (answer.status_code, answer.headers["location"]) == (302, LOGIN)
    assert client.get("/reports").status_code == 302
    assert site.seen == []
