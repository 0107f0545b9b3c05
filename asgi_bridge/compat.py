"""``asgi-bridge compat``: tries one middleware on probe requests, and says what it does and where to mount it.

The middleware runs as plain ASGI, around an upstream that notes what it was called with. What it cannot know: a
middleware that changes nothing here may still measure; so one that looks at the response is taken for an observer.
"""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .adapter.answer import lost_in_request_phase
from .errors import ConfigurationError
from .plugins import Bridge, Plugin
from .plugins.importing import import_string

__all__ = ["Findings", "advise", "examine", "report"]

PROBE_SECONDS = 10.0
_HTML = b"<html><body>" + b"<p>probe</p>" * 200 + b"</body></html>"
_COMMON = [(b"host", b"probe.test"), (b"user-agent", b"probe"), (b"accept", b"*/*")]


@dataclass(frozen=True)
class Probe:
    """A request to try."""

    name: str
    method: str = "GET"
    path: str = "/probe"
    query: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""


PROBES = (
    Probe("GET"),
    Probe("GET with query", query=b"a=1&b=two"),
    Probe("HEAD", "HEAD"),
    Probe("POST of a form", "POST", headers=((b"content-type", b"application/x-www-form-urlencoded"),), body=b"a=1"),
    Probe("POST of JSON", "POST", headers=((b"content-type", b"application/json"),), body=b'{"a": 1}'),
    Probe("DELETE", "DELETE"),
    Probe("compression accepted", headers=((b"accept-encoding", b"gzip, br, zstd, deflate"),)),
    Probe("from another origin", headers=((b"origin", b"https://other.test"),)),
    Probe(
        "CORS preflight",
        "OPTIONS",
        headers=((b"origin", b"https://other.test"), (b"access-control-request-method", b"POST")),
    ),
    Probe("with a cookie", headers=((b"cookie", b"session=abc; theme=dark"),)),
    Probe("with credentials", headers=((b"authorization", b"Basic dXNlcjpwYXNz"),)),
    Probe("behind a proxy", headers=((b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-proto", b"https"))),
    Probe("conditional", headers=((b"if-none-match", b'"probe"'),)),
    Probe("with a request id", headers=((b"x-request-id", b"1f6b2d5e-4a2c-4a53-9d0a-111111111111"),)),
    Probe("msgpack accepted", headers=((b"accept", b"application/vnd.msgpack"),)),
)


@dataclass
class Findings:
    """What a middleware did; each set holds names of probes, header names, or parts of a request.

    Attributes:
        answers: probes that it answered without the upstream, with the status.
        request: parts of the request that it changed: ``method``, ``path``, ``query``, ``body``, ``header NAME``.
        unmappable: of these, what the protocol cannot express.
        headers: response headers that it set or changed.
        lost: of these, those that only the response phase can set.
        status, body: it changed the upstream's status, or body.
        wraps_send, wraps_receive: it looks at the response, or at the request body.
        lifespan: it has a lifespan of its own.
        errors: probes on which it raised.
    """

    answers: dict[str, int] = field(default_factory=dict)
    request: set[str] = field(default_factory=set)
    unmappable: set[str] = field(default_factory=set)
    headers: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    status: bool = False
    body: bool = False
    wraps_send: bool = False
    wraps_receive: bool = False
    lifespan: bool = False
    errors: dict[str, str] = field(default_factory=dict)


def examine(plugin: Plugin, conf: str) -> Findings:
    """Runs all probes through `plugin`.

    Args:
        plugin: a middleware, a factory of one, or an application.
        conf: its configuration, JSON.

    Raises:
        ConfigurationError: it cannot be built.
    """
    return asyncio.run(_examine(plugin, conf))


async def _examine(plugin: Plugin, conf: str) -> Findings:
    findings = Findings()
    upstream = _Upstream()
    app: Any = plugin.make(plugin.configuration.check(conf), upstream)
    if asyncio.iscoroutine(app):
        app = await app
    await _lifespan(app, upstream, findings)
    for probe in PROBES:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await _probe(app, upstream, probe, findings)
        except TimeoutError:
            findings.errors[probe.name] = f"no answer within {PROBE_SECONDS:g} s"
        except Exception as exc:
            findings.errors[probe.name] = f"{type(exc).__name__}: {exc}"
    return findings


class _Upstream:
    """The application inside: notes how it is called, answers a page."""

    def __init__(self) -> None:
        self.scope: Scope | None = None
        self.body = b""
        self.receive: Receive | None = None
        self.send: Send | None = None
        self.lifespan = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            self.lifespan = True
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.scope, self.receive, self.send = dict(scope), receive, send
        self.scope["headers"] = list(scope["headers"])
        self.body = b""
        more = True
        while more:
            message = await receive()
            self.body += message.get("body", b"")
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": list(_RESPONSE)})
        await send({"type": "http.response.body", "body": _HTML})


_RESPONSE = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-length", b"%d" % len(_HTML)),
    (b"x-upstream", b"probe"),
]


async def _lifespan(app: ASGIApp, upstream: _Upstream, findings: Findings) -> None:
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    inbox.put_nowait({"type": "lifespan.startup"})
    inbox.put_nowait({"type": "lifespan.shutdown"})
    answered = False

    async def send(message: Message) -> None:
        nonlocal answered
        answered = True

    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, inbox.get, send)
    except Exception:
        return  # it does not support lifespan, which is fine
    findings.lifespan = answered and not upstream.lifespan


async def _probe(app: ASGIApp, upstream: _Upstream, probe: Probe, findings: Findings) -> None:
    headers = [*_COMMON, *probe.headers]
    if probe.body:
        headers.append((b"content-length", b"%d" % len(probe.body)))
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": probe.method,
        "scheme": "http",
        "path": probe.path,
        "raw_path": probe.path.encode(),
        "query_string": probe.query,
        "root_path": "",
        "headers": list(headers),
        "client": ("203.0.113.7", 40000),
        "server": ("probe.test", 80),
        "extensions": {},
        "state": {},
    }
    messages: list[Message] = []
    taken = False
    ended = asyncio.Event()

    async def receive() -> Message:
        nonlocal taken
        if taken:
            await ended.wait()
            return {"type": "http.disconnect"}
        await asyncio.sleep(0)
        taken = True
        return {"type": "http.request", "body": probe.body, "more_body": False}

    async def send(message: Message) -> None:
        messages.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            ended.set()

    upstream.scope = None
    await app(scope, receive, send)
    status, response_headers, body = _response(messages)
    if upstream.scope is None:
        findings.answers[probe.name] = status
        return
    findings.wraps_send = findings.wraps_send or upstream.send is not send
    findings.wraps_receive = findings.wraps_receive or upstream.receive is not receive
    _compare_request(probe, headers, upstream, findings)
    findings.status = findings.status or status != 200
    findings.body = findings.body or body != _HTML
    before, after = set(_RESPONSE), set(response_headers)
    for name, _ in after ^ before:
        findings.headers.add(name.decode("latin-1"))
        if lost_in_request_phase(name) or (name not in dict(response_headers)) or name in dict(_RESPONSE):
            findings.lost.add(name.decode("latin-1"))


def _response(messages: list[Message]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    status, headers, body = 0, [], b""
    for message in messages:
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
        elif message["type"] == "http.response.body":
            body += bytes(message.get("body", b""))
    if not status:
        raise RuntimeError("no response")
    return status, headers, body


def _compare_request(probe: Probe, headers: list[tuple[bytes, bytes]], upstream: _Upstream, findings: Findings) -> None:
    scope = upstream.scope
    assert scope is not None
    if scope["method"] != probe.method:
        findings.request.add("method")
        findings.unmappable.add("method")
    if scope["path"] != probe.path:
        findings.request.add("path")
    if scope["query_string"] != probe.query:
        findings.request.add("query")
    if upstream.body != probe.body:
        findings.request.add("body")
        if not upstream.body:
            findings.unmappable.add("an empty body")
    for name, _ in set(headers) ^ {(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]}:
        findings.request.add(f"header {name.decode('latin-1')}")


def advise(findings: Findings) -> tuple[str, str]:
    """The phase to mount it in, and why."""
    needs_response = findings.body or findings.status or findings.lost
    if needs_response and (findings.request or findings.answers):
        return "both", "it acts on the request and changes the real response"
    if needs_response:
        return "response", "it changes the real response"
    if findings.wraps_send and not findings.headers:
        return (
            "both",
            "it may watch the response, seen in the both form only (else request will do)",
        )
    if findings.request or findings.answers or findings.headers:
        return "request", "it acts before the upstream, or adds headers that may be added beside the upstream's"
    return "request", "it watches requests"


def report(name: str, target: str, kind: str, conf: Mapping[str, Any], findings: Findings) -> Iterator[str]:
    """The findings for a person, and the lines to paste."""
    yield f"{target}, a {kind}, on {len(PROBES)} probe requests:"
    for status in sorted(set(findings.answers.values())):
        probes = [probe for probe, answered in findings.answers.items() if answered == status]
        yield f"  answers {status} by itself: {'all' if len(probes) == len(PROBES) else ', '.join(probes)}"
    if findings.request:
        yield f"  changes the request: {', '.join(sorted(findings.request))}"
    if findings.unmappable:
        yield f"  which the protocol cannot express: {', '.join(sorted(findings.unmappable))}"
    if findings.headers:
        yield f"  response headers: {', '.join(sorted(findings.headers))}"
    if findings.status:
        yield "  changes the status of the response"
    if findings.body:
        yield "  changes the body of the response"
    if findings.wraps_send and not (findings.headers or findings.status or findings.body):
        yield "  hands on a send of its own: it may watch the response"
    if findings.wraps_receive and "body" not in findings.request:
        yield "  watches the request body: request_body=False spares fetching it"
    if findings.lifespan:
        yield "  has a lifespan: it is run once for each configuration"
    for probe, error in findings.errors.items():
        yield f"  raised on {probe}: {error}"
    phase, reason = advise(findings)
    yield ""
    yield f'Mount it with phase="{phase}": {reason}.'
    yield ""
    if kind == "middleware":
        yield f"  # [tool.asgi_bridge.plugins.{name}] in pyproject.toml"
        yield f'  middleware = "{target}"'
        yield f'  phase = "{phase}"'
        if findings.wraps_receive and "body" not in findings.request:
            yield "  request_body = false"
        yield ""
    yield "  # the route"
    entry = json.dumps([{"name": name, "value": json.dumps(dict(conf))}])
    places = {"request": ["pre-req"], "response": ["post-resp"], "both": ["pre-req", "post-resp"]}[phase]
    yield "  plugins:"
    for place in places:
        yield f"    ext-plugin-{place}:"
        yield f"      conf: {entry}"


def load(target: str) -> Plugin:
    """The plugin that ``module:attr`` names, by what it is. Raises ConfigurationError."""
    bridge = Bridge()
    found = import_string(target)
    attribute = target.rpartition(":")[2].rpartition(".")[2]
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", "-", attribute.removesuffix("Middleware") or attribute).lower()
    if isinstance(found, Bridge):
        raise ConfigurationError(f"{target} is a Bridge; name one middleware or application")
    bridge.add(name, found)
    return bridge.plugins[name]
