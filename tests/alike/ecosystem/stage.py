"""Runs a row: sends its requests to the plain middleware, and to a gateway that has it as a plugin."""

import contextlib
import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx2
from starlette.testclient import TestClient

from asgi_bridge import Bridge
from asgi_bridge.plugins.importing import import_string, is_import_string
from asgi_bridge.testing import Gateway

from ..compare import Answer, Request, Result, Seen, alike, get, sent
from ..limits import LIMITS, comparable, needed
from .upstream import Upstream

__all__ = [
    "COLLECTED",
    "COMMON",
    "Row",
    "Side",
    "Volatile",
    "alone",
    "differences",
    "gateway",
    "plain",
    "unmet",
]

CLIENT = ("203.0.113.7", 40000)
COLLECTED = {"request": ["pre-req"], "response": ["post-resp"], "both": ["pre-req", "post-resp"]}

_NOT_COMPARED = "x-apisix-upstream-status"
"""Header that the gateway adds to an upstream's 5xx."""


@dataclass(frozen=True)
class Volatile:
    """A value that differs each time, in a header or a body of the answer or of what the upstream got.

    Attributes:
        header: name of the header, or ``"body"``.
        pattern: regular expression; what it matches is replaced.
    """

    header: str
    pattern: str


@dataclass(frozen=True)
class Row:
    """A package, how it is mounted, and what it is tried with.

    Attributes:
        name: the plugin's name.
        package: the distribution.
        tables: ``[tool.asgi_bridge.plugins]``: the plugin's table first, then the tables of `inside`.
        phase: the phase to mount the plugin in.
        conf: the plugin's configuration on the route.
        inside: names and configurations of plugins that the route lists behind it; they tell the upstream what they
            see.
        requests: requests for this row alone.
        common: requests in place of those that every row is tried with. None: those.
        wsgi: the plain side is WSGI.
        plain: puts the plain side around an upstream, where the tables do not say how.
        volatile: values that differ each time.
        limits: names of the limits that all its requests meet.
        reset: empties what the package keeps in the process; called before each side.
        recorded: returns what the package has recorded, as far as it has to be alike.
        alone: limits that it meets in the request phase alone. None: there it does something else.
        remark: remark for the page.
    """

    name: str
    package: str
    tables: Mapping[str, Mapping[str, Any]]
    phase: Literal["request", "response", "both"]
    requests: Sequence[Request] = ()
    common: Sequence[Request] | None = None
    conf: Mapping[str, Any] = field(default_factory=dict)
    inside: Sequence[tuple[str, Mapping[str, Any]]] = ()
    wsgi: bool = False
    plain: Callable[[Any], Any] | None = None
    volatile: Sequence[Volatile] = ()
    limits: Sequence[str] = ()
    reset: Callable[[], None] | None = None
    recorded: Callable[[], list[Any]] | None = None
    alone: Sequence[str] | None = None
    remark: str = ""

    @property
    def target(self) -> str:
        """The import path of the plugin."""
        table = self.tables[self.name]
        return str(next(table[key] for key in _SOURCES if key in table))

    @property
    def all_requests(self) -> list[Request]:
        """All requests that the row is tried with."""
        return [*(COMMON if self.common is None else self.common), *self.requests]

    @property
    def all_limits(self) -> list[str]:
        """Names of the limits that the row meets."""
        return list(dict.fromkeys([*self.limits, *(one.limit for one in self.all_requests if one.limit)]))

    def direct(self, upstream: Upstream) -> Any:
        """Put the plain side around `upstream`."""
        inner: Any = upstream.wsgi if self.wsgi else upstream.asgi
        if self.plain is not None:
            return self.plain(inner)
        for name, conf in reversed([(self.name, self.conf), *self.inside]):
            table = self.tables[name]
            middleware = import_string(table["wsgi_middleware" if self.wsgi else "middleware"])
            defaults = {key: _resolved(value) for key, value in table.get("defaults", {}).items()}
            inner = middleware(inner, **{**defaults, **conf})
        return inner


_SOURCES = ("middleware", "app", "factory", "wsgi_middleware", "wsgi")


def _resolved(value: Any) -> Any:
    return import_string(value) if is_import_string(value) and value.startswith("tests.alike.ecosystem") else value


COMMON = [
    get("/text"),
    get("/json?a=1&b=%20x"),
    get("/page?size=1", accept="text/html"),
    sent("HEAD", "/text?size=700"),
    sent("POST", "/echo", b'{"a": 1}', content_type="application/json"),
    sent("POST", "/echo?q=1", b"a=1&b=2", content_type="application/x-www-form-urlencoded"),
    sent("PUT", "/echo/a%20b", b"put", content_type="text/plain"),
    sent("DELETE", "/echo?a=1&a=2"),
    sent("OPTIONS", "/echo"),
    get("/cookies"),
    get("/own"),
    get("/redirect"),
    get("/status/204"),
    get("/status/404"),
    get("/stream"),
]
"""Requests that every row is tried with."""


@dataclass(frozen=True)
class Side:
    """What came of a row's requests on one side.

    Attributes:
        results: one for each request.
        recorded: what the package recorded.
        volatile: the volatile values that occurred.
    """

    results: list[Result]
    recorded: list[Any]
    volatile: frozenset[Volatile]


def plain(row: Row) -> Side:
    """Send the row's requests to the plain application."""
    upstream = Upstream()
    if row.reset is not None:
        row.reset()
    app = row.direct(upstream)
    with contextlib.ExitStack() as stack:
        if row.wsgi:
            transport = httpx2.WSGITransport(_serving(app), remote_addr=CLIENT[0])
            client: Any = stack.enter_context(httpx2.Client(transport=transport, base_url="http://a.test"))
        else:
            client = stack.enter_context(_client(_listening(app)))
        return _side(row, client, upstream)


def gateway(row: Row) -> Side:
    """Send the row's requests to a gateway and its runner."""
    upstream = Upstream()
    if row.reset is not None:
        row.reset()
    bridge = Bridge()
    bridge.configure({"plugins": row.tables})
    listed = {
        "conf": [
            {"name": name, "value": json.dumps(dict(conf))} for name, conf in [(row.name, row.conf), *row.inside]
        ]
    }  # fmt: skip
    route = {
        "id": row.name,
        "uri": "/*",
        "plugins": {f"ext-plugin-{phase}": listed for phase in COLLECTED[row.phase]},
    }
    with _client(Gateway(bridge, [route], upstream=upstream.asgi)) as client:
        return _side(row, client, upstream)


def alone(row: Row) -> Row:
    """Return `row`, mounted in the request phase."""
    tables = {name: {**table, "phase": "request"} for name, table in row.tables.items()}
    return dataclasses.replace(row, tables=tables, phase="request", limits=(*row.limits, *(row.alone or ())))


def _serving(app: Any) -> Any:
    """Call `app` as servers of WSGI do: an exception is answered with 500."""

    def serving(environ: Any, start_response: Any) -> Any:
        environ |= {"SERVER_NAME": "127.0.0.1", "REMOTE_PORT": str(CLIENT[1])}
        started: list[Any] = []
        written: list[bytes] = []

        def starting(status: str, headers: Any, exc_info: Any = None) -> Any:
            started[:] = [status, headers]
            return written.append

        try:
            iterable = app(environ, starting)
            try:
                body = [*written, *iterable]
            finally:
                getattr(iterable, "close", lambda: None)()
        except Exception:
            started[:], body = ["500 Internal Server Error", []], []
        start_response(*started)
        return body

    return serving


def _listening(app: Any) -> Any:
    """Call `app` as servers of ASGI do.

    They give their own address, where TestClient gives the name in the URL. They accept that `app` has no lifespan.
    """

    async def listening(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(app, scope, receive, send)
        else:
            scope["server"] = ("127.0.0.1", scope["server"][1])
            await app(scope, receive, send)

    return listening


async def _lifespan(app: Any, scope: Any, receive: Any, send: Any) -> None:
    answered = False

    async def answering(message: Any) -> None:
        nonlocal answered
        answered = True
        await send(message)

    try:
        await app(scope, receive, answering)
    except Exception:
        if answered:
            raise
        await send({"type": "lifespan.startup.complete"})
        while (await receive())["type"] != "lifespan.shutdown":
            pass
        await send({"type": "lifespan.shutdown.complete"})


def _client(app: Any) -> TestClient:
    return TestClient(app, "http://a.test", raise_server_exceptions=False, client=CLIENT)


def _side(row: Row, client: Any, upstream: Upstream) -> Side:
    client.headers = {"user-agent": "a client", "accept": "*/*", "accept-encoding": "identity"}
    calm = _Calm(row.volatile)
    results = []
    for request in row.all_requests:
        answer = _ask(client, request, calm)
        results.append(Result(answer, tuple(calm.seen(alike(one)) for one in upstream.seen)))
        upstream.seen.clear()
    return Side(results, row.recorded() if row.recorded is not None else [], frozenset(calm.met))


class _Calm:
    """Replaces volatile values, and notes which of them occurred."""

    def __init__(self, volatile: Sequence[Volatile]) -> None:
        self._volatile = volatile
        self.met: set[Volatile] = set()

    def __call__(self, name: str, value: str) -> str:
        for volatile in self._volatile:
            if volatile.header == name:
                value, count = re.subn(volatile.pattern, "<volatile>", value)
                if count:
                    self.met.add(volatile)
        return value

    def body(self, body: bytes) -> bytes:
        return self("body", body.decode("latin-1")).encode("latin-1")

    def seen(self, seen: Seen) -> Seen:
        headers = tuple((name, self(name, value)) for name, value in seen.headers)
        return dataclasses.replace(seen, headers=headers, body=self.body(seen.body))


def _ask(client: Any, request: Request, calm: _Calm) -> Answer:
    def filled(text: str) -> str:
        return re.sub(r"\{cookie:(\w+)\}", lambda match: client.cookies.get(match[1], "none"), text)

    headers = [(name, filled(value)) for name, value in request.headers]
    content = filled(request.body.decode("latin-1")).encode("latin-1") or None
    response = client.request(
        request.method, filled(request.target), headers=headers, content=content, follow_redirects=False
    )
    # a server does not send what WSGI applications give for a HEAD
    body = b"" if request.method == "HEAD" else response.content
    headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() != _NOT_COMPARED]
    answer = Answer.of(request, response.status_code, headers, body)
    calm_headers = {name: [calm(name, value) for value in values] for name, values in answer.headers.items()}
    return dataclasses.replace(answer, headers=calm_headers, body=calm.body(answer.body))


def differences(row: Row, here: Side, there: Side) -> Iterator[str]:
    """Yield what is not alike, but for the limits.

    Args:
        row: the row.
        here: what came of its requests without a gateway.
        there: what came of them through gateway and runner.
    """
    for request, without, through in zip(row.all_requests, here.results, there.results, strict=True):
        names = (*row.limits, *([request.limit] if request.limit else []))
        wanted, found = comparable(request, without, through, [LIMITS[name] for name in names])
        if wanted.answer != found.answer:
            yield f"{request}\n    plain   {wanted.answer}\n    gateway {found.answer}"
        if wanted.seen != found.seen:
            yield f"{request}, upstream\n    plain   {wanted.seen}\n    gateway {found.seen}"
    for one, other in itertools.zip_longest(here.recorded, there.recorded):
        if one != other:
            yield f"recorded\n    plain   {one}\n    gateway {other}"


def unmet(row: Row, here: Side) -> list[str]:
    """Return the limits that the row names without need, and the volatile values that do not occur.

    Args:
        row: the row.
        here: what came of its requests without a gateway.
    """
    met = {
        name
        for request, result in zip(row.all_requests, here.results, strict=True)
        for name in (*row.limits, request.limit)
        if name in LIMITS and needed(LIMITS[name], request, result)
    }
    idle = [f"limit {name} without need" for name in row.all_limits if name not in met]
    return idle + [f"{volatile} does not occur" for volatile in row.volatile if volatile not in here.volatile]
