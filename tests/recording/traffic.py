"""Plugins of all kinds, and mixed calls for them, over a connection to a real runner."""

import random
from collections.abc import Callable, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, apisix, upstream
from asgi_bridge.wire import (
    ExtraInfoReq,
    ExtraInfoResp,
    HTTPReqCallReq,
    HTTPReqCallResp,
    HTTPRespCallReq,
    HTTPRespCallResp,
    PrepareConfReq,
    PrepareConfResp,
    ReqBody,
    RespBody,
    TextEntry,
    Var,
)
from asgi_bridge.wire import Message as WireMessage

from ..doubles.connection import Connection

__all__ = ["LISTS", "TOKEN", "ask_gateway", "make_bridge", "prepare", "send_mixed"]

TOKEN = b"s3cr3t-of-alice"
"""What the plugin `guard` lets pass."""

LISTS: dict[str, tuple[str, ...]] = {
    "tag": ("tag",),
    "guard": ("guard", "tag"),
    "form": ("form",),
    "page": ("page",),
    "stamp": ("stamp", "tag"),
    "count": ("count",),
    "fault": ("fault",),
    "vars": ("vars",),
}
"""Lists of plugins, by name."""


def _tag(path: str) -> str:
    return path.rpartition("/")[2]


def make_bridge(tag: Callable[[str], str] = _tag) -> Bridge:
    """Return a bridge with all plugins.

    Args:
        tag: what the plugin `tag` makes of a path. This is the line that a test changes.
    """
    bridge = Bridge()

    def tagging(app: ASGIApp) -> ASGIApp:
        async def tagged(scope: Scope, receive: Receive, send: Send) -> None:
            MutableHeaders(scope=scope)["x-tag"] = tag(scope["path"])
            await app(scope, receive, send)

        return tagged

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        credentials = Headers(scope=scope).get("authorization", "")
        if credentials != f"Bearer {TOKEN.decode()}":
            await respond(send, 401, b"who are you?")
            return
        MutableHeaders(scope=scope)["x-passed"] = credentials
        await upstream(scope, receive, send)

    async def form(scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"].replace(b"a=1", b"a=2")

        async def changed() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        await upstream(scope, changed, send)

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": message["body"].upper()}
            await send(message)

        await upstream(scope, receive, sending)

    def stamp(app: ASGIApp) -> ASGIApp:
        async def stamped(scope: Scope, receive: Receive, send: Send) -> None:
            asked = _tag(scope["path"])

            async def sending(message: Message) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message)["x-stamp"] = f"{asked} {message['status']}"
                await send(message)

            await app(scope, receive, sending)

        return stamped

    def count(app: ASGIApp) -> ASGIApp:
        calls = 0

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal calls
            calls += 1
            MutableHeaders(scope=scope)["x-count"] = str(calls)
            await app(scope, receive, send)

        return counted

    async def fault(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].endswith("3"):
            raise KeyError("three")
        await respond(send, 404, b"not here")

    async def variables(scope: Scope, receive: Receive, send: Send) -> None:
        user = await apisix(scope).var("remote_user")
        MutableHeaders(scope=scope)["x-user"] = (user or b"nobody").decode()
        await upstream(scope, receive, send)

    bridge.add_middleware("tag", tagging)
    bridge.mount("guard", guard)
    bridge.mount("form", form)
    bridge.mount("page", page, phase="response")
    bridge.add_middleware("stamp", stamp, phase="both")
    bridge.add_middleware("count", count)
    bridge.mount("fault", fault)
    bridge.mount("vars", variables)
    return bridge


async def respond(send: Send, status: int, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


def ask_gateway(
    connection: Connection,
    message: WireMessage,
    variables: Mapping[bytes, bytes | None] | None = None,
    body: bytes | None = None,
    response_body: bytes | None = None,
) -> WireMessage | None:
    """Send a call, answer what the runner asks, and return its answer."""
    connection.send(message)
    while isinstance(received := connection.receive(), ExtraInfoReq):
        info = received.info
        if isinstance(info, Var):
            answer = (variables or {}).get(info.name or b"")
        else:
            answer = {ReqBody: body, RespBody: response_body}.get(type(info))
        connection.send(ExtraInfoResp(answer))
    return received


def prepare(
    connection: Connection, names: tuple[str, ...], route: str, phase: str = "pre-req", conf: str = "{}"
) -> int:
    """Prepare a list of plugins, and return its token."""
    entries: list[TextEntry] = [(name.encode(), conf.encode()) for name in names]
    answer = connection.say(PrepareConfReq(entries, f"route#{route}#ext-plugin-{phase}#1".encode()))
    assert isinstance(answer, PrepareConfResp), answer
    return answer.conf_token


def send_mixed(connections: list[Connection], number: int, seed: int) -> dict[str, int]:
    """Send `number` calls, and return how many there were for each list, and how many answers were of each kind.

    The path of call ``n`` ends with ``/n``. A request with plugins of both phases makes two calls.
    """
    choose = random.Random(seed)
    names = list(LISTS)
    tokens = {
        name: prepare(connections[0], LISTS[name], name, "post-resp" if name == "page" else "pre-req") for name in names
    }
    stamped = prepare(connections[0], ("stamp",), "stamp", "post-resp")
    counts = dict.fromkeys([*names, "error", "good credentials"], 0)
    calls = 0
    while calls < number:
        connection = choose.choice(connections)
        name = choose.choice(names)
        counts[name] += 1
        path = b"/%s/%d" % (name.encode(), calls)
        variables: dict[bytes, bytes | None] = {
            b"scheme": b"http", b"http_host": b"a.test", b"server_addr": b"10.0.0.1", b"server_port": b"80",
            b"server_protocol": b"HTTP/1.1", b"real_request_uri": path, b"remote_port": b"4711",
            b"request_id": b"%032x" % choose.getrandbits(128), b"request_method": b"POST", b"uri": path,
            b"remote_addr": b"192.0.2.1", b"remote_user": choose.choice([None, b"alice", b"b\xf6b"]),
        }  # fmt: skip
        good = choose.random() < 0.5
        body = choose.choice([b"a=1&b=2", b"b=2", bytes(range(256)), b""])
        headers: list[TextEntry] = [
            (b"host", b"a.test"),
            (b"x-forwarded-proto", b"http"),
            (b"x-forwarded-host", b"a.test"),
            (b"x-forwarded-port", b"80"),
            (b"content-length", b"%d" % len(body)),
            (b"cookie", b"sid=%d; theme=dark" % choose.getrandbits(64)),
            (b"authorization", b"Bearer " + (TOKEN if good else b"wrong")),
        ]
        args: list[TextEntry] = [(b"q", b"x y"), (b"flag", None), (b"access_token", b"t-%d" % calls)]
        response = HTTPRespCallReq(
            calls, 200, [(b"content-type", b"text/plain"), (b"content-length", b"5")], tokens["page"]
        )
        if name == "page":
            answer = ask_gateway(connection, response, variables, None, b"hello")
        else:
            request = HTTPReqCallReq(calls, b"\xc0\0\2\1", "POST", path, args, headers, tokens[name])
            answer = ask_gateway(connection, request, variables, body)
        calls += 1
        counts["good credentials"] += good and name == "guard"
        if not isinstance(answer, HTTPReqCallResp | HTTPRespCallResp):
            counts["error"] += 1
        elif name == "stamp" and choose.random() < 0.95:  # of the others no response call comes
            response.conf_token = stamped
            answer = ask_gateway(choose.choice(connections), response, variables, None, b"hello")
            assert isinstance(answer, HTTPRespCallResp), answer
            assert (b"x-stamp", b"%d 200" % (calls - 1)) in (answer.headers or [])
            calls += 1
    assert counts["error"] > 0 or number < 100, counts
    return counts
