"""`asgi_bridge.django.pass_on`: in sync and async views, under Django's ASGI and WSGI handlers."""

import asyncio
import gc
import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse
from django.urls import re_path
from django.utils.decorators import sync_and_async_middleware
from django.views import View
from django.views.decorators.cache import never_cache
from starlette.types import Receive, Scope, Send

from asgi_bridge import Bridge, PluginError
from asgi_bridge.django import pass_on
from asgi_bridge.wsgi import WSGIApp

from .stage import Stage, Upstream, gateway, plain

CHANGES: dict[str, Any] = {}
"""What the views change."""


@never_cache  # type: ignore[untyped-decorator]
def sync_view(request: HttpRequest) -> HttpResponse:
    request.session["seen"] = request.session.get("seen", 0) + 1
    response = pass_on(request, **CHANGES)
    response["x-view"] = "sync"
    response.set_cookie("own", "1")
    return response


async def async_view(request: HttpRequest) -> HttpResponse:
    request.session["seen"] = request.session.get("seen", 0) + 1
    response = await pass_on(request, **CHANGES)
    response["x-view"] = "async"
    response.set_cookie("own", "1")
    return response


coroutines: list[Any] = []
"""What pass_on returned where nobody awaits it."""


async def not_awaited(request: HttpRequest) -> HttpResponse:
    coroutines.append(pass_on(request))
    return coroutines[-1]


class Views(View):  # type: ignore[misc]
    async def get(self, request: HttpRequest) -> HttpResponse:
        return await pass_on(request)

    post = get


@sync_and_async_middleware  # type: ignore[untyped-decorator]
def middleware(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Lets requests for /middleware go on itself."""
    if asyncio.iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponse:
            return await (pass_on(request) if request.path == "/middleware" else get_response(request))

        return asynchronous

    def synchronous(request: HttpRequest) -> HttpResponse:
        return pass_on(request) if request.path == "/middleware" else get_response(request)

    return synchronous


urlpatterns = [
    re_path(r"^sync", sync_view), re_path(r"^async", async_view), re_path(r"^not-awaited", not_awaited),
    re_path(r"^class", Views.as_view()),
]  # fmt: skip

if not settings.configured:  # once for all tests of a process
    settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF="tests.wsgi.test_plugins", SECRET_KEY="x", USE_TZ=True)
    django.setup()


@pytest.fixture(autouse=True)
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The settings of this module. Other tests of the process have theirs."""
    monkeypatch.setattr(settings, "ROOT_URLCONF", __name__)
    monkeypatch.setattr(settings, "SESSION_ENGINE", "django.contrib.sessions.backends.signed_cookies")
    middleware = ["security.SecurityMiddleware", "common.CommonMiddleware"]
    own = ["django.contrib.sessions.middleware.SessionMiddleware", f"{__name__}.middleware"]
    monkeypatch.setattr(settings, "MIDDLEWARE", [*(f"django.middleware.{name}" for name in middleware), *own])
    yield
    CHANGES.clear()


def bridge_of(handler: str, **options: Any) -> Bridge:
    bridge = Bridge()
    bridge.mount("site", ASGIHandler() if handler == "asgi" else WSGIApp(WSGIHandler()), **options)
    return bridge


stages = pytest.mark.parametrize("stage", [plain, gateway])
handlers = pytest.mark.parametrize("handler", ["asgi", "wsgi"])
views = pytest.mark.parametrize("view", ["sync", "async"])


@stages
@handlers
@views
def test_cookies_and_session_of_django_are_kept(stage: Stage, handler: str, view: str) -> None:
    shop = Upstream()
    CHANGES.update(response_headers={"x-a": "1"})
    with stage(bridge_of(handler), ["site"], shop) as client:
        answer = client.post(f"/{view}/x?a=1&b", content="ä" * 5000)

    assert shop.seen == [("POST", f"/{view}/x?a=1&b", ("ä" * 5000).encode())]
    assert (answer.status_code, answer.text) == (201, "from the upstream")
    assert {name: answer.headers.get(name) for name in ("content-type", "x-view", "x-a", "x-of")} == {
        "content-type": "text/plain; charset=utf-8", "x-view": view, "x-a": "1", "x-of": "upstream",
    }  # fmt: skip
    assert answer.headers["x-content-type-options"] == "nosniff"  # of SecurityMiddleware
    cookies = sorted(line.partition(":")[0][:40] for line in answer.headers.get_list("set-cookie"))
    assert [*cookies[:3], cookies[3][:10]] == [
        "of=upstream; Path=/; Partitioned", "of=upstream; Path=/a", "own=1; Path=/", "sessionid=",
    ]  # fmt: skip


@stages
@handlers
@views
def test_all_changes_reach_the_upstream(stage: Stage, handler: str, view: str) -> None:
    shop = Upstream()
    CHANGES.update(headers={"x-user": "ada", "cookie": None}, path="/v2/ä", query={"page": "2"}, body="new")
    sent = [("x_user", "root"), ("x-user", "eve"), ("cookie", "a=b"), ("x-trace", "7")]
    with stage(bridge_of(handler), ["site"], shop) as client:
        assert client.post(f"/{view}?page=1", headers=sent, content=b"old one").status_code == 201
    assert shop.seen == [("POST", "/v2/ä?page=2", b"new")]
    assert {name: shop.headers.get(name) for name in ("x-user", "x_user", "cookie", "x-trace", "content-length")} == {
        "x-user": ["ada"], "x_user": None, "cookie": None, "x-trace": ["7"], "content-length": ["3"],
    }  # fmt: skip


@handlers
@views
def test_in_both_phases_django_sees_the_real_response(handler: str, view: str) -> None:
    shop = Upstream()
    CHANGES.update(response_headers={"x-of": "gate"})
    with gateway(bridge_of(handler, phase="both"), ["site"], shop, "both") as client:
        answer = client.post(f"/{view}", content=b"a")
    assert (answer.status_code, answer.text, answer.headers["x-of"]) == (201, "from the upstream", "gate")
    assert answer.headers["vary"] == "accept, Cookie"
    assert [line.partition("=")[0] for line in answer.headers.get_list("set-cookie")] == [
        "of",
        "of",
        "own",
        "sessionid",
    ]
    assert shop.seen == [("POST", f"/{view}", b"a")]


@stages
@handlers
@pytest.mark.parametrize("path", ["/class", "/middleware"])
def test_views_that_are_classes_and_middleware(stage: Stage, handler: str, path: str) -> None:
    shop = Upstream()
    with stage(bridge_of(handler), ["site"], shop) as client:
        assert [client.get(path).text, client.post(path, content=b"a").text] == ["from the upstream"] * 2
    assert shop.seen == [("GET", path, b""), ("POST", path, b"a")]


@stages
@handlers
def test_without_await_nothing_passes_and_django_says_why(
    stage: Stage, handler: str, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Upstream()
    with stage(bridge_of(handler), ["site"], shop) as client:
        assert client.get("/not-awaited").status_code == 500
    coroutines.pop().close()
    assert "You may need to add an 'await' into your view" in caplog.text
    assert shop.seen == []


@stages
@views
def test_a_wrong_change_lets_nothing_pass(stage: Stage, view: str, caplog: pytest.LogCaptureFixture) -> None:
    shop = Upstream()
    CHANGES.update(headers={"x-a": 1})
    with stage(bridge_of("asgi"), ["site"], shop) as client:
        assert client.get(f"/{view}").status_code == 500
    assert "headers['x-a'] is 1; names and values are text, None removes a name" in caplog.text
    assert shop.seen == []


@views
# Django leaves the file of the body open when it is cancelled
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_when_the_time_is_over_no_thread_stays(view: str, caplog: pytest.LogCaptureFixture) -> None:
    threads: list[threading.Thread] = []
    ended: list[str] = []
    bridge = bridge_of("asgi", timeout=0.3)

    @bridge.plugin("hanging")
    def _(conf: dict[str, str]) -> Any:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return
            threads.extend(threading.enumerate())
            try:
                await asyncio.Event().wait()
            except BaseException as exc:
                ended.append(type(exc).__name__)
                raise

        return app

    caplog.set_level(logging.CRITICAL)
    with (
        gateway(bridge, ["site", "hanging"], Upstream()) as client,
        pytest.raises(PluginError, match=r"no answer in time \(option timeout: 0.3 s\)$"),
    ):
        client.get(f"/{view}")
    for thread in threads:
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join(10)
            assert not thread.is_alive()
    assert ended == ["CancelledError"]
    gc.collect()


def test_a_response_can_be_kept_in_djangos_cache() -> None:
    from asgi_bridge.django import _Line

    kept = pickle.loads(pickle.dumps(_Line("a=b; Path=/; Partitioned")))
    assert kept.output(header="") == " a=b; Path=/; Partitioned"


def test_outside_of_a_plugin_it_says_so() -> None:
    request = HttpRequest()
    request.scope = {"type": "http"}
    with pytest.raises(PluginError, match="work in a plugin's call only"):
        pass_on(request)
