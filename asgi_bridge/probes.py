"""Probes: requests, and responses of an upstream, that show what one plugin does.

The plugin runs as in the runner, as the one plugin of a chain, around an upstream that notes what it was called with.
First come different requests, then one request with different responses, then the same request again and again: a
plugin may act on the request, on the response, or on what it has seen before.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any

from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from .adapter.answer import lost_in_request_phase
from .errors import ConfigurationError, PluginError
from .plugins import Chain, PlainCall, Plugin, build_chain
from .plugins.kinds import judge
from .plugins.lifespan import Lifespan

__all__ = ["PROBES", "Findings", "Probe", "examine_plugin", "spied"]

PROBE_SECONDS = 10.0
"""Seconds that a probe has to be answered."""
SHUTDOWN_SECONDS = 5.0
"""Seconds that a lifespan has to shut down."""
REPEATS = 120
"""How often the same request is sent, to find limits."""
REPEAT_SECONDS = 2.0
"""Seconds after which no further repeat is sent."""
SLOW_SECONDS = 0.03
"""Seconds that the slow upstream takes: more than a clock's rounding."""
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
"""Requests that differ; the upstream answers each with a page."""


@dataclass(frozen=True)
class Response:
    """What the upstream answers.

    Attributes:
        name: what is special about it.
        length: whether it tells its content-length.
        headers: beside those that all responses have.
        seconds: how long it takes.
    """

    name: str = ""
    status: int = 200
    body: bytes = _HTML
    content_type: bytes = b"text/html; charset=utf-8"
    length: bool = True
    headers: tuple[tuple[bytes, bytes], ...] = ()
    seconds: float = 0.0


_PAGE = Response()
_RESPONSES = (
    Response("a slow one", seconds=SLOW_SECONDS),
    Response("JSON", body=b'{"probe": [1, 2, 3]}', content_type=b"application/json"),
    Response("a stream", body=b"<p>streamed</p>" * 100, length=False),
    Response("a cookie", headers=((b"set-cookie", b"upstream=1; Path=/"),)),
    Response("an etag", headers=((b"etag", b'"upstream"'), (b"cache-control", b"max-age=60"))),
    Response("204", 204, b"", length=False),
    Response("302", 302, b"moved", headers=((b"location", b"https://probe.test/elsewhere"),)),
    Response("401", 401, b"who are you?", headers=((b"www-authenticate", b'Basic realm="upstream"'),)),
    Response("403", 403, b"no"),
    Response("404", 404, b"nothing here"),
    Response("429", 429, b"slow down", headers=((b"retry-after", b"5"),)),
    Response("500", 500, b"it broke"),
    Response("503", 503, b"not now"),
)
"""What the upstream answers, besides the page, to the first probe."""

_KEYS = ((b"idempotency-key", b"8e03978e-40d5-43dd-bc93-6894a57f9324"), (b"x-idempotency-key", b"8e03978e"))


@dataclass
class Findings:
    """What a plugin did; each set holds names of probes, header names, or parts of a request.

    Attributes:
        answers: probes that it answered without the upstream, with the status.
        limit: which of many equal requests it was the first to answer by itself, and with which status.
        replays: it answered with a response that the upstream gave to an earlier request.
        request: parts of the request that it changed: ``method``, ``path``, ``query``, ``body``, ``header NAME``, …
        unmappable: of these, what the protocol cannot express.
        headers: response headers that it set or changed.
        lost: of these, those that only the response phase can set.
        varying: of these, those that differ from response to response although the request is the same.
        status, body: it changed the upstream's status, or body.
        recodes: wherever it changed the body, it set a content-encoding.
        reacts: responses of the upstream with which it did something else than with a page.
        wraps_send, wraps_receive: it looks at the response, or at the request body.
        lifespan: it has a lifespan of its own.
        errors: probes on which it raised.
        passed: it let a probe pass.
        nothing: it is nothing but what it wraps.
    """

    answers: dict[str, int] = field(default_factory=dict)
    limit: tuple[int, int] | None = None
    replays: bool = False
    request: set[str] = field(default_factory=set)
    unmappable: set[str] = field(default_factory=set)
    headers: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    varying: set[str] = field(default_factory=set)
    status: bool = False
    body: bool = False
    recodes: bool = True
    reacts: set[str] = field(default_factory=set)
    wraps_send: bool = False
    wraps_receive: bool = False
    lifespan: bool = False
    errors: dict[str, str] = field(default_factory=dict)
    passed: bool = field(default=False, compare=False)
    nothing: bool = field(default=False, compare=False)


def spied(middleware: Callable[..., Any], note: Callable[[], None]) -> Callable[..., Any]:
    """A WSGI middleware that calls `note` whenever it looks at a response.

    It does so if it hands on another ``start_response`` than it was given, or returns another iterable than it got.
    """

    @wraps(middleware)
    def watched(*arguments: Any, **options: Any) -> Any:
        upstream, *rest = arguments
        given: Any = None
        got: Any = None

        def inner(environ: Any, start_response: Any) -> Any:
            nonlocal got
            if start_response is not given:
                note()
            got = upstream(environ, start_response)
            return got

        made = middleware(inner, *rest, **options)
        if not judge(made).may_be_wsgi:
            return made

        def outer(environ: Any, start_response: Any) -> Any:
            nonlocal given, got
            given, got = start_response, None
            result = made(environ, start_response)
            if got is not None and result is not got:
                note()
            return result

        return outer

    return watched


async def examine_plugin(plugin: Plugin, conf: str) -> Findings:
    """Runs all probes.

    Args:
        plugin: what to try.
        conf: its configuration, JSON.

    Raises:
        ConfigurationError: it cannot be built.
    """
    findings = Findings()
    async with _started(plugin, conf, findings) as chain:
        trial = _Trial(chain, findings)
        for probe in PROBES:
            try:
                trial.note_probe(probe, await trial.send(probe))
            except Exception as exc:
                findings.errors[probe.name] = str(exc) if isinstance(exc, _Late) else f"{type(exc).__name__}: {exc}"
        await _vary(trial)
        await _repeat(trial)
    return findings


@asynccontextmanager
async def _started(plugin: Plugin, conf: str, findings: Findings) -> AsyncIterator[Chain]:
    mounted: dict[int, Lifespan | ConfigurationError] = {}
    lifespan: Lifespan | None = None
    if plugin.application is not None:
        lifespan = Lifespan(plugin.application, plugin.name)
        try:
            await lifespan.start(PROBE_SECONDS)
        except PluginError as exc:
            raise ConfigurationError(f"plugin {plugin.name}: {exc}") from None
        mounted[id(plugin.application)] = lifespan
        findings.lifespan = lifespan.own
    try:
        chain = await build_chain({plugin.name: plugin}, None, [(plugin.name.encode(), conf.encode())], mounted)
        try:
            if chain.layers[0].lifespan is not None:
                findings.lifespan = chain.layers[0].lifespan.own
            yield chain
        finally:
            await chain.close(SHUTDOWN_SECONDS)
    finally:
        if lifespan is not None:
            await lifespan.stop(SHUTDOWN_SECONDS)


class _Late(Exception):
    def __init__(self) -> None:
        super().__init__(f"no answer within {PROBE_SECONDS:g} s")


class _Upstream:
    """The application inside: notes how it is called, and answers as a server does."""

    def __init__(self, response: Response, number: int) -> None:
        self.scope: Scope | None = None
        self.body = b""
        self.status = response.status
        self.content = response.body
        typed = [(b"content-type", response.content_type)] if response.body else []
        length = [(b"content-length", b"%d" % len(response.body))] if response.length else []
        self.headers = [*typed, *length, (b"vary", b"accept-language"), (b"x-upstream", b"%d" % number)]
        self.headers += response.headers
        self._seconds = response.seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = dict(scope)
        self.scope["headers"] = [(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]]
        more = True
        while more:
            message = await receive()
            self.body += message.get("body", b"")
            more = message.get("more_body", False)
        await asyncio.sleep(self._seconds)
        if scope["method"] == "HEAD":  # a server sends the headers alone
            self.content = b""
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": self.content})


@dataclass
class _Outcome:
    """What came of one probe."""

    upstream: _Upstream
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def changed(self) -> set[str]:
        """Names of the response headers that are not the upstream's."""
        return {name.decode("latin-1") for name, _ in set(self.headers) ^ set(self.upstream.headers)}

    def added(self, name: str) -> list[bytes]:
        """The values of a header that the plugin set."""
        own = [entry for entry in self.headers if entry not in self.upstream.headers]
        return [value for each, value in own if each == name.encode("latin-1")]


class _Trial:
    """A chain on trial."""

    def __init__(self, chain: Chain, findings: Findings) -> None:
        self.findings = findings
        self.outcomes: dict[str, _Outcome] = {}
        self._chain = chain
        self._number = 0

    async def send(self, probe: Probe, response: Response = _PAGE) -> _Outcome:
        """Sends a probe. Raises whatever the plugin raises."""
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

        self._number += 1
        upstream = _Upstream(response, self._number)
        call = PlainCall("request", self._chain, upstream, {}, {})
        try:
            async with asyncio.timeout(PROBE_SECONDS) as limit:
                await self._chain.enter(call, scope, receive, send)
        except TimeoutError:
            if limit.expired():
                raise _Late from None
            raise
        outcome = _Outcome(upstream, *_response(messages))
        if upstream.scope is not None:
            self.findings.passed = True
            self.findings.wraps_send = self.findings.wraps_send or call.wrapped_send
            self.findings.wraps_receive = self.findings.wraps_receive or call.changed_body
            self._compare_request(probe, headers, upstream)
            self._compare_response(probe, outcome)
        return outcome

    def note_probe(self, probe: Probe, outcome: _Outcome) -> None:
        """Keeps what came of one of PROBES."""
        self.outcomes[probe.name] = outcome
        if outcome.upstream.scope is None:
            if self.is_replay(outcome):
                self.findings.replays = True
            else:
                self.findings.answers[probe.name] = outcome.status

    def is_replay(self, outcome: _Outcome) -> bool:
        """Whether it is the upstream's response to an earlier request."""
        return any(name == b"x-upstream" for name, _ in outcome.headers)

    def passed(self, name: str) -> _Outcome | None:
        """What came of a probe that reached the upstream."""
        outcome = self.outcomes.get(name)
        return None if outcome is None or outcome.upstream.scope is None else outcome

    def _compare_request(self, probe: Probe, headers: list[tuple[bytes, bytes]], upstream: _Upstream) -> None:
        findings, scope = self.findings, upstream.scope
        assert scope is not None
        for part, value in {
            "method": probe.method, "path": probe.path, "query": probe.query, "client": ("203.0.113.7", 40000),
            "scheme": "http", "server": ("probe.test", 80),
        }.items():  # fmt: skip
            found = scope["query_string" if part == "query" else part]
            if (tuple(found) if isinstance(found, list) else found) != value:
                findings.request.add(part)
                if part in ("method", "client", "scheme", "server"):
                    findings.unmappable.add(part)
        if upstream.body != probe.body:
            findings.request.add("body")
            if not upstream.body:
                findings.unmappable.add("an empty body")
        for name, _ in set(headers) ^ set(scope["headers"]):
            findings.request.add(f"header {name.decode('latin-1')}")

    def _compare_response(self, probe: Probe, outcome: _Outcome) -> None:
        findings, upstream = self.findings, outcome.upstream
        findings.status = findings.status or outcome.status != upstream.status
        if probe.method != "HEAD" and outcome.body != upstream.content:  # no client gets a body with HEAD
            findings.body = True
            findings.recodes = findings.recodes and "content-encoding" in outcome.changed
        for name in outcome.changed:
            raw = name.encode("latin-1")
            findings.headers.add(name)
            if lost_in_request_phase(raw) or not outcome.added(name) or raw in dict(upstream.headers):
                findings.lost.add(name)


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


async def _vary(trial: _Trial) -> None:
    """The first probe once more, with every other response of the upstream."""
    probe, page = PROBES[0], trial.passed(PROBES[0].name)
    if page is None:
        return
    findings = trial.findings
    outcomes = [page]
    for response in _RESPONSES:
        try:
            outcome = await trial.send(probe, response)
        except Exception:  # it can live with a page, but not with this
            findings.reacts.add(response.name)
            continue
        if outcome.upstream.scope is None:
            if trial.is_replay(outcome):
                findings.replays = True
            elif findings.limit is None:
                findings.limit = (len(outcomes) + 1, outcome.status)
            break
        outcomes.append(outcome)
        kept_status = outcome.status == response.status or page.status != _PAGE.status
        kept_body = outcome.body == response.body or page.body != _PAGE.body
        if outcome.changed != page.changed or not (kept_status and kept_body):
            findings.reacts.add(response.name)
    if len(outcomes) < 3:  # it let too few pass: those of other requests are better than none
        outcomes = [each for each in trial.outcomes.values() if each.upstream.scope is not None]
    known = {value for outcome in outcomes for _, value in outcome.upstream.scope["headers"]}  # type: ignore[index]
    for name in page.changed:
        values = [tuple(outcome.added(name)) for outcome in outcomes]
        if len(set(values)) > 1 and not all(value in known for each in values for value in each):
            findings.varying.add(name)


async def _repeat(trial: _Trial) -> None:
    """Equal requests: to something that keeps responses by their idempotency key, and to a limit."""
    findings = trial.findings
    for probe in _with_keys(trial):
        for _ in range(2):
            try:
                outcome = await trial.send(probe)
            except Exception:  # it may take no such key
                break
            if outcome.upstream.scope is None:
                findings.replays = findings.replays or trial.is_replay(outcome)
                break
    if trial.passed(PROBES[0].name) is None or findings.limit is not None or findings.replays:
        return
    loop = asyncio.get_running_loop()
    until = loop.time() + REPEAT_SECONDS
    for number in range(1, REPEATS + 1):
        if loop.time() > until:
            return
        try:
            outcome = await trial.send(PROBES[0])
        except Exception as exc:
            findings.errors.setdefault(f"repeat {number}", f"{type(exc).__name__}: {exc}")
            return
        if outcome.upstream.scope is None:
            if trial.is_replay(outcome):
                findings.replays = True
            else:
                findings.limit = (number, outcome.status)
            return


def _with_keys(trial: _Trial) -> Iterator[Probe]:
    for probe in PROBES:
        if probe.method == "POST" and trial.passed(probe.name) is not None:
            for key in _KEYS:
                yield replace(probe, headers=(*probe.headers, key))
