"""The inspector's HTTP application: the page, what it shows as JSON, changes as server-sent events, and sending again.

All that it tells comes from requests, so from anybody: the page sets it as text only. Other sites in the same browser
must neither read nor send anything here. So a request has to name this machine, and has to come from the page itself.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..dev_runner.body import BODY_LIMIT
from ..gateway import Routes
from .again import MAX_SENT, Refused, send_again
from .copying import Project, as_curl, as_test
from .record import Record
from .store import KEPT, KEPT_BYTES, Records
from .view import detail_of, summary_of

__all__ = ["Stage", "inspector_app"]

BATCH_SECONDS = 0.25
"""Seconds that changes are collected before the page is told of them."""
HEARTBEAT_SECONDS = 10.0
"""Seconds without a change after which the page is told that all is well."""
MAX_TOLD = 200
"""Maximum number of requests that the page is told of in one piece. In a flood it gets the last ones."""

_FILES = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "main.js": "text/javascript; charset=utf-8",
    "list.js": "text/javascript; charset=utf-8",
    "detail.js": "text/javascript; charset=utf-8",
    "bodies.js": "text/javascript; charset=utf-8",
    "edit.js": "text/javascript; charset=utf-8",
    "elements.js": "text/javascript; charset=utf-8",
}
_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
}
_OWN_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class Stage:
    """What the inspector shows, and sends to.

    Attributes:
        records: The requests.
        gateway: The gateway, with a record of each request.
        address: Address and port of the gateway.
        url: Of the gateway.
        routes: Returns the routes as they are now.
        project: Returns where the plugins and the routes come from.
        told: Whether the runner tells what its plugins do.
    """

    records: Records
    gateway: ASGIApp
    address: tuple[str, int]
    url: str
    routes: Callable[[], Routes]
    project: Callable[[], Project]
    told: bool


def inspector_app(stage: Stage) -> ASGIApp:
    """Make the inspector's application.

    Args:
        stage: What it shows.
    """
    records = stage.records

    async def file(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in _FILES:
            return PlainTextResponse("there is no such file\n", 404)
        return Response(_content(name), headers={"content-type": _FILES[name]})

    async def state(request: Request) -> Response:
        return JSONResponse(_state(stage))

    async def detail(request: Request) -> Response:
        record = _record(records, request)
        return _gone() if record is None else JSONResponse(detail_of(record))

    async def curl(request: Request) -> Response:
        return _copied(_record(records, request), lambda record: as_curl(record, stage.url))

    async def test(request: Request) -> Response:
        return _copied(_record(records, request), lambda record: as_test(record, stage.project()))

    async def send(request: Request) -> Response:
        record = _record(records, request)
        if record is None:
            return _gone()
        try:
            edited = json.loads(await _content_of(request) or b"{}")
            if not isinstance(edited, Mapping):
                raise Refused("the page sends a JSON object")
            number = await send_again(stage.gateway, record, edited, stage.address)
        except (Refused, ValueError) as exc:
            return PlainTextResponse(f"{exc}\n", 400)
        return JSONResponse({"id": number})

    async def clear(request: Request) -> Response:
        records.clear()
        return JSONResponse({})

    async def pause(request: Request) -> Response:
        records.pause(await _content_of(request) == b"true")
        return JSONResponse({})

    async def events(request: Request) -> Response:
        subscription = records.subscribe()
        if subscription is None:
            return PlainTextResponse("too many pages are open\n", 503)

        async def told() -> AsyncIterator[bytes]:
            try:
                yield b": hello\n\n"
                while not subscription.over:
                    changed = await subscription.changes(HEARTBEAT_SECONDS)
                    found = []
                    for number in changed[-MAX_TOLD:]:
                        record = records.get(number)
                        if record is not None and record.is_young:
                            subscription.note(number)  # most are over when the next changes are told
                        elif record is not None:
                            found.append(record)
                    summaries = [summary_of(record) for record in found]
                    data = {"total": records.total, "paused": records.paused, "requests": summaries}
                    yield b"data: " + json.dumps(data).encode() + b"\n\n"
                    await asyncio.sleep(BATCH_SECONDS)
            finally:
                records.unsubscribe(subscription)

        return StreamingResponse(told(), media_type="text/event-stream")

    return _Guarded(
        Starlette(
            routes=[
                Route("/", file, methods=["GET"]),
                Route("/page/{name}", file, methods=["GET"]),
                Route("/state", state, methods=["GET"]),
                Route("/events", events, methods=["GET"]),
                Route("/clear", clear, methods=["POST"]),
                Route("/pause", pause, methods=["POST"]),
                Route("/requests/{number:int}", detail, methods=["GET"]),
                Route("/requests/{number:int}/curl", curl, methods=["GET"]),
                Route("/requests/{number:int}/test", test, methods=["GET"]),
                Route("/requests/{number:int}/send", send, methods=["POST"]),
            ]
        )
    )


def _record(records: Records, request: Request) -> Record | None:
    return records.get(request.path_params["number"])


def _gone() -> Response:
    return PlainTextResponse(f"this request is not kept any more: only the last {KEPT} are\n", 404)


def _copied(record: Record | None, write: Callable[[Record], str]) -> Response:
    if record is None:
        return _gone()
    try:
        return PlainTextResponse(write(record))
    except ValueError as exc:
        return PlainTextResponse(f"{exc}\n", 409)


async def _content_of(request: Request) -> bytes:
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > MAX_SENT:
            raise Refused(f"it has more than {MAX_SENT:,} bytes")
    return content


def _state(stage: Stage) -> dict[str, Any]:
    return {
        "version": metadata.version("asgi_bridge"),
        "gateway": stage.url,
        "kept": KEPT,
        "kept_bytes": KEPT_BYTES,
        "body_limit": BODY_LIMIT,
        "told": stage.told,
        "total": stage.records.total,
        "paused": stage.records.paused,
        "routes": [
            {
                "id": route.id,
                "uris": list(route.uris),
                "methods": sorted(route.methods),
                "lists": {name.removeprefix("ext-plugin-"): ext.names for name, ext in route.plugins.ext.items()},
            }
            for route in stage.routes().routes
        ],
        "requests": [summary_of(record) for record in stage.records],
    }


class _Guarded:
    """Refuses what does not come from the page, and adds _HEADERS to each response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refusal = _refusal(scope["method"], scope["path"], Headers(scope=scope))
        app: ASGIApp = self._app if refusal is None else PlainTextResponse(f"{refusal}\n", 403)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        await app(scope, receive, sending)


def _refusal(method: str, path: str, headers: Headers) -> str | None:
    """Return why a request is refused; None: it is not.

    A name of another site may lead to this address (DNS rebinding), so the Host header has to name this machine. A page
    of another site may send requests here, so a browser has to say that a request comes from the page itself.
    """
    hosts = headers.getlist("host")
    if len(hosts) != 1 or _name_of(f"//{hosts[0]}") not in _OWN_NAMES:
        return "the Host header must be 127.0.0.1 or localhost"
    site = headers.get("sec-fetch-site", "none")
    navigates = path == "/" and headers.get("sec-fetch-mode") == "navigate"
    if site not in ("same-origin", "none") and not navigates:
        return "only the inspector's own page may ask"
    origin = headers.get("origin")
    if origin is not None and origin != f"http://{hosts[0]}":
        return "only the inspector's own page may ask"
    if method != "GET":
        if origin is None:
            return "a POST needs the Origin header that browsers send"
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return "a POST has JSON"
    return None


def _name_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _content(name: str) -> bytes:
    return resources.files(__package__).joinpath("page", name).read_bytes()
