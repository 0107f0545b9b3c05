"""Which request headers a plugin gets in the response phase, and which its code names."""

from typing import Any

import pytest
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, upstream
from asgi_bridge.plugins.needs import named_headers
from asgi_bridge.plugins.options import REQUEST_HEADERS
from asgi_bridge.wsgi import WSGIApp, WSGIMiddleware

OF_WSGI = ("host", "accept-encoding", "authorization", "cookie", "content-length")


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [environ.get("HTTP_IF_NONE_MATCH", "").encode()]


class Own:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    @property
    def wanted(self) -> str:
        return "Save-Data"

    @staticmethod
    def language(scope: Scope) -> str | None:
        return Request(scope).headers.get("accept-language")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Any) -> None:
            if dict(scope["headers"]).get(b"range") in (b"if-range", b"x"):
                message["headers"] = [(b"content-type", b"text/plain"), (b"host", b"")]
            await send(message)

        await self.app(scope, receive, sending)


class Heir(Own):
    pass


def test_what_is_known_the_rest_gets_the_default_and_the_mount_decides() -> None:
    bridge = Bridge()
    bridge.mount("app", upstream)
    bridge.mount("wsgi", WSGIApp(wsgi))
    bridge.add_middleware("own", Own)
    bridge.add_middleware("gzip", GZipMiddleware)
    bridge.add_middleware("cors", CORSMiddleware, request_headers=["x-a"])
    bridge.add_middleware("wsgi-middleware", WSGIMiddleware(lambda app: app))
    bridge.configure({"plugins": {"file": {"middleware": "starlette.middleware.cors:CORSMiddleware"}}})
    assert {name: plugin.options.request_headers for name, plugin in bridge.plugins.items()} == {
        "app": REQUEST_HEADERS,
        "wsgi": OF_WSGI,
        "own": REQUEST_HEADERS,
        "gzip": ("accept-encoding",),
        "cors": ("x-a",),
        "wsgi-middleware": OF_WSGI,
        "file": ("origin", "cookie"),
    }


@pytest.mark.parametrize(
    ("found", "headers"),
    [
        (Own, ["accept-language", "if-range", "save-data"]),
        (Heir, ["accept-language", "if-range", "save-data"]),
        (Own(upstream), ["accept-language", "if-range", "save-data"]),
        (Own(upstream).__call__, ["if-range"]),
        (wsgi, ["if-none-match"]),
        (GZipMiddleware, ["accept-encoding"]),
        (len, []),
    ],
)
def test_the_headers_that_code_names(found: Any, headers: list[str]) -> None:
    assert named_headers(found) == headers
