"""``asgi-bridge compat``: tries one plugin on probe requests, and says what it does and where to mount it.

It runs as in the runner, as the one plugin of a chain, around an upstream that notes what it was called with. What that
cannot tell: a middleware that changes nothing here may still measure; so one that looks at the response is taken for an
observer.
"""

import asyncio
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from .adapter.answer import lost_in_request_phase
from .errors import ConfigurationError, PluginError
from .plugins import Bridge, Chain, PlainCall, Plugin, build_chain
from .plugins.importing import import_string, plugin_name
from .plugins.lifespan import Lifespan

__all__ = ["PROBES", "Findings", "Subject", "advise", "examine", "load", "report"]

PROBE_SECONDS = 10.0
SHUTDOWN_SECONDS = 5.0
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


@dataclass(frozen=True)
class Subject:
    """What is tried.

    Attributes:
        target: its ``module:attr``.
        plugin: it, under a name made of that.
        source: the key that names it in ``[tool.asgi_bridge.plugins.NAME]``.
    """

    target: str
    plugin: Plugin
    source: str


def load(target: str) -> Subject:
    """What ``module:attr`` names, by what it is. Raises ConfigurationError."""
    found = import_string(target)
    if isinstance(found, Bridge):
        raise ConfigurationError(f"{target} is a Bridge; name one middleware, factory or application")
    name = plugin_name(target)
    if _is_wsgi(found):
        return _wsgi(target, name, found)
    bridge = Bridge()
    bridge.add(name, found)
    kind = bridge.plugins[name].kind
    return Subject(target, bridge.plugins[name], "app" if kind == "application" else kind)


def _wsgi(target: str, name: str, found: Any) -> Subject:
    from .wsgi import WSGIApp, WSGIMiddleware

    bridge = Bridge()
    if _is_wsgi_application(found):
        bridge.mount(name, WSGIApp(found))
        return Subject(target, bridge.plugins[name], "wsgi")
    bridge.add_middleware(name, WSGIMiddleware(found))
    return Subject(target, bridge.plugins[name], "wsgi_middleware")


def _is_wsgi_application(found: Any) -> bool:
    """A plain callable of (environ, start_response)."""
    if inspect.isclass(found) or not callable(found):
        return False
    function = found if inspect.isroutine(found) else type(found).__call__
    if inspect.iscoroutinefunction(function):
        return False
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return False
    wanted = [each for each in parameters if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD]
    return len(wanted) == 2 and wanted[0].name not in ("app", "application")


def _is_wsgi(found: Any) -> bool:
    """A WSGI application, or a middleware, seen before it has wrapped anything: a class whose instances are one."""
    if not inspect.isclass(found):
        return _is_wsgi_application(found)
    call = found.__dict__.get("__call__") or getattr(found, "__call__", None)  # noqa: B004 the function is what counts
    if not inspect.isfunction(call) or inspect.iscoroutinefunction(call):
        return False
    return [each.name for each in inspect.signature(call).parameters.values()][1:] == ["environ", "start_response"]


def examine(subject: Subject, conf: str) -> tuple[Subject, Findings]:
    """Runs all probes.

    Args:
        subject: what to try.
        conf: its configuration, JSON.

    Returns:
        The findings; and what was tried, which is another where only the result of a function showed that it is WSGI.

    Raises:
        ConfigurationError: it cannot be built.
    """
    made: list[Any] = []
    plugin = subject.plugin
    make = plugin.make

    def noting(*arguments: Any) -> Any:
        made.append(make(*arguments))
        return made[-1]

    plugin.make = noting
    findings = asyncio.run(_examine(plugin, conf))
    if subject.source in ("middleware", "factory") and made and _is_wsgi_application(made[-1]):
        subject = _wsgi(subject.target, plugin.name, import_string(subject.target))
        findings = asyncio.run(_examine(subject.plugin, conf))
    if subject.source.startswith("wsgi"):
        findings.wraps_send = findings.wraps_receive = False  # the adapter does, whatever it adapts
    return subject, findings


async def _examine(plugin: Plugin, conf: str) -> Findings:
    findings = Findings()
    bridge = Bridge()
    bridge.plugins[plugin.name] = plugin
    mounted: dict[int, Lifespan | ConfigurationError] = {}
    if plugin.application is not None:
        lifespan = Lifespan(plugin.application, plugin.name)
        try:
            await lifespan.start(PROBE_SECONDS)
        except PluginError as exc:
            raise ConfigurationError(f"plugin {plugin.name}: {exc}") from None
        mounted[id(plugin.application)] = lifespan
        findings.lifespan = lifespan.own
    chain = await build_chain(bridge, None, [(plugin.name.encode(), conf.encode())], mounted)
    if chain.layers[0].lifespan is not None:
        findings.lifespan = chain.layers[0].lifespan.own
    for probe in PROBES:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await _probe(chain, probe, findings)
        except TimeoutError:
            findings.errors[probe.name] = f"no answer within {PROBE_SECONDS:g} s"
        except Exception as exc:
            findings.errors[probe.name] = f"{type(exc).__name__}: {exc}"
    await chain.close(SHUTDOWN_SECONDS)
    for each in mounted.values():
        assert isinstance(each, Lifespan)
        await each.stop(SHUTDOWN_SECONDS)
    return findings


class _Upstream:
    """The application inside: notes how it is called, answers a page."""

    def __init__(self) -> None:
        self.scope: Scope | None = None
        self.body = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = dict(scope)
        self.scope["headers"] = list(scope["headers"])
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
    (b"vary", b"accept-language"),
    (b"x-upstream", b"probe"),
]


async def _probe(chain: Chain, probe: Probe, findings: Findings) -> None:
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
        "app": Starlette(),
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

    upstream = _Upstream()
    call = PlainCall("request", chain, upstream, {}, {})
    await chain.enter(call, scope, receive, send)
    status, response_headers, body = _response(messages)
    if upstream.scope is None:
        findings.answers[probe.name] = status
        return
    findings.wraps_send = findings.wraps_send or call.wrapped_send
    findings.wraps_receive = findings.wraps_receive or call.changed_body
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
    if findings.headers:
        return "request", "it adds headers beside the upstream's (both, if their values depend on the response)"
    if findings.request or findings.answers:
        return "request", "it acts before the upstream"
    return "request", "it watches requests"


def report(subject: Subject, conf: Any, findings: Findings) -> Iterator[str]:
    """The findings for a person, and the lines to paste.

    Args:
        subject: what was tried.
        conf: its configuration, parsed.
        findings: what came of it.
    """
    plugin, source = subject.plugin, subject.source
    yield f"{subject.target}, {_KINDS[source]}, on {len(PROBES)} probe requests:"
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
    watches_body = findings.wraps_receive and "body" not in findings.request
    if watches_body:
        yield "  watches the request body: request_body=False spares fetching it"
    if findings.lifespan:
        yield "  has a lifespan: it is run once for each " + (
            "process" if source in ("app", "wsgi") else "configuration"
        )
    for probe, error in findings.errors.items():
        yield f"  raised on {probe}: {error}"
    yield ""
    if len(findings.errors) == len(PROBES):
        yield "It raised on every request, so nothing can be said of it."
        return
    phase, reason = advise(findings)
    yield f'Mount it with phase="{phase}": {reason}.'
    yield ""
    yield f"  # [tool.asgi_bridge.plugins.{plugin.name}] in pyproject.toml"
    yield f'  {source} = "{subject.target}"'
    yield f'  phase = "{phase}"'
    if watches_body:
        yield "  request_body = false"
    yield ""
    yield "  # the route"
    entry = json.dumps([{"name": plugin.name, "value": json.dumps(conf)}])
    places = {"request": ["pre-req"], "response": ["post-resp"], "both": ["pre-req", "post-resp"]}[phase]
    yield "  plugins:"
    for place in places:
        yield f"    ext-plugin-{place}:"
        yield f"      conf: {entry}"


_KINDS = {
    "app": "an application",
    "factory": "a factory",
    "middleware": "a middleware",
    "wsgi": "a WSGI application",
    "wsgi_middleware": "a WSGI middleware",
}
