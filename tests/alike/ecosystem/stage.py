"""Runs a row: its requests to the plain middleware around the upstream, and to a gateway that has it as a plugin."""

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
from tests.alike.ecosystem.upstream import Seen, Upstream

__all__ = [
    "COLLECTED",
    "COMMON",
    "LIMITS",
    "Answer",
    "Limit",
    "Request",
    "Row",
    "Side",
    "Volatile",
    "alone",
    "differences",
    "gateway",
    "get",
    "plain",
    "sent",
    "unmet",
]

CLIENT = ("203.0.113.7", 40000)
COLLECTED = {"request": ["pre-req"], "response": ["post-resp"], "both": ["pre-req", "post-resp"]}

_APART = frozenset((
    "server", "date",
    # the gateway's own, beside an upstream's 5xx
    "x-apisix-upstream-status",
    # of the connection
    "connection", "keep-alive", "transfer-encoding", "content-length",
))  # fmt: skip


@dataclass(frozen=True)
class Request:
    """One request of a client, which keeps cookies.

    Attributes:
        target: path and query, or a URL. In it, in headers and in the body ``{cookie:NAME}`` is the client's cookie of
            that name.
        limit: the name of a limit of the protocol that this request meets.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    limit: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.target} {dict(self.headers) or ''}"


def get(target: str, limit: str = "", **headers: str) -> Request:
    """A GET, header names with ``_`` for ``-``."""
    return sent("GET", target, limit=limit, **headers)


def sent(method: str, target: str, body: bytes = b"", limit: str = "", **headers: str) -> Request:
    """Any request, header names with ``_`` for ``-``."""
    return Request(
        method, target, tuple((name.replace("_", "-"), value) for name, value in headers.items()), body, limit
    )


@dataclass(frozen=True)
class Answer:
    """What the client got, of what has to be alike.

    Attributes:
        headers: by name, repeats in order.
        length: the content-length, on HEAD only: elsewhere it is how the body is framed.
        body: decoded, since a compressed stream has more than one spelling.
    """

    status: int
    headers: Mapping[str, Sequence[str]]
    length: str | None
    body: bytes


@dataclass(frozen=True)
class Volatile:
    """A value that is another one each time, in a header (of the answer, or of what the upstream got) or in a body.

    Attributes:
        header: its name, or ``"body"``.
        pattern: what the value looks like; it is replaced where it matches.
    """

    header: str
    pattern: str


@dataclass(frozen=True)
class Limit:
    """Something that the protocol, or APISIX itself, does not let through.

    Attributes:
        gives: what becomes of the plain side's answer to a request.
        line: where docs/mapping.md says so.
        said: the same for the page.
        page: the answer is the gateway's own page, of which only the status counts.
        unseen: the upstream does not get the request.
        passes: what becomes of what the plain side's upstream gets.
    """

    gives: Callable[[Request, Answer], Answer]
    line: str
    said: str
    page: bool = False
    unseen: bool = False
    passes: Callable[[Seen], Seen] | None = None


def _refused(request: Request, answer: Answer) -> Answer:
    return Answer(503, {}, None, b"")


def _unescaped(request: Request, answer: Answer) -> Answer:
    return Answer(502, {}, None, b"") if "%" in request.target.partition("?")[0] else answer


def _blank(request: Request, answer: Answer) -> Answer:
    bodyless = request.method == "HEAD" or answer.status in (204, 304)
    return answer if bodyless or answer.body or answer.status < 300 else dataclasses.replace(answer, body=b" ")


def _beside(request: Request, answer: Answer) -> Answer:
    turned = {
        name: values[::-1] if len(values) == 2 and name != "set-cookie" else values
        for name, values in answer.headers.items()
    }
    return answer if turned == answer.headers else dataclasses.replace(answer, headers=turned)


def _untyped(request: Request, answer: Answer) -> Answer:
    if answer.status != 204 or "content-type" not in answer.headers:
        return answer
    kept = {name: values for name, values in answer.headers.items() if name != "content-type"}
    return dataclasses.replace(answer, headers=kept)


LIMITS: dict[str, Limit] = {
    "fault": Limit(
        _refused,
        "| exception, broken ASGI message, no answer, timeout, before the answer | SERVICE_UNAVAILABLE | 503 |",
        "an exception is 503, with the gateway's page",
        page=True,
    ),
    "path": Limit(
        _unescaped,
        "in `ext-plugin-post-resp` alone, a path that needs escaping (`%20`) is answered with 502",
        "listed in ext-plugin-post-resp alone, a path with escapes is 502",
        page=True,
        unseen=True,
    ),
    "emptied": Limit(
        _refused,
        "| body, by another `receive` | `body` | an emptied one and one over 16 MiB are refused |",
        "a request body that is read and not handed on is refused",
        page=True,
        unseen=True,
    ),
    "forwarded": Limit(
        lambda request, answer: answer,
        "APISIX overwrites a client's own `x-forwarded-*` from 3.14 on only, and keeps a trusted client's",
        "x-forwarded-proto is what the gateway says of its own client, unless it trusts that client",
        passes=lambda seen: dataclasses.replace(
            seen, headers=tuple((name, value.replace('"https"', '"http"')) for name, value in seen.headers)
        ),
    ),
    "beside": Limit(
        _beside,
        "`resp_headers`, added beside the upstream's of the same name",
        "in the request phase a header is added before the upstream's of the same name, not after it",
    ),
    "input": Limit(
        _refused,
        "Once the request was passed on, `wsgi.input` is empty.",
        "a request body that was passed on unread cannot be read afterwards",
        page=True,
    ),
    "no-content": Limit(
        _untyped,
        "| `content-type` of a 204 | nothing: nginx drops it |",
        "nginx drops the content-type of a 204",
    ),
    "blank": Limit(
        _blank,
        "| empty body, status 300 or more | a body of one blank |",
        "an empty body of a status of 300 or more is one blank",
    ),
}
"""By name. The gateway's own page is compared by its status alone."""


@dataclass(frozen=True)
class Row:
    """A package, how it is mounted, and what it is tried with.

    Attributes:
        name: the plugin's name.
        package: the distribution.
        tables: ``[tool.asgi_bridge.plugins]``: the plugin's table first, then those of what is listed inside it.
        phase: the phase to mount it in.
        conf: what the route configures.
        inside: names and configurations of plugins inside it, which tell the upstream what they see.
        requests: what it is tried with beside what every row is tried with.
        common: instead of what every row is tried with.
        wsgi: the plain side is WSGI.
        plain: makes the plain side of an upstream, where the tables do not say how.
        volatile: values that are others each time.
        limits: names of limits that are in all its answers.
        reset: called before each side, for packages with a state of the process.
        recorded: what the package recorded since, of what has to be alike.
        alone: in the request phase alone it does the same, but for the limits of these names; None: it does not.
        remark: for the page.
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
        """The import path."""
        table = self.tables[self.name]
        return str(next(table[key] for key in _SOURCES if key in table))

    @property
    def all_requests(self) -> list[Request]:
        """What it is tried with."""
        return [*(COMMON if self.common is None else self.common), *self.requests]

    @property
    def all_limits(self) -> list[str]:
        """Names of the limits that it meets."""
        return list(dict.fromkeys([*self.limits, *(one.limit for one in self.all_requests if one.limit)]))

    def direct(self, upstream: Upstream) -> Any:
        """The plain application."""
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
"""What every row is tried with."""


@dataclass(frozen=True)
class Side:
    """What came of a row's requests on one side: to the client, to the upstream, what the package recorded; and the
    volatile values that there were."""

    answers: list[Answer]
    seen: list[list[Seen]]
    recorded: list[Any]
    volatile: frozenset[Volatile]


def plain(row: Row) -> Side:
    """The row's requests to the plain application."""
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
    """The row's requests to a gateway with its runner."""
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
    """`row`, mounted in the request phase."""
    tables = {name: {**table, "phase": "request"} for name, table in row.tables.items()}
    return dataclasses.replace(row, tables=tables, phase="request", limits=(*row.limits, *(row.alone or ())))


def _serving(app: Any) -> Any:
    """`app` as servers call it: an exception is a 500."""

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
    """`app` as servers call it: with their own address, where TestClient has the URL's name, and with the lifespan of
    an application that has none."""

    async def listening(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(app, scope, receive, send)
        else:
            scope["server"] = ("127.0.0.1", scope["server"][1])
            await app(scope, receive, send)

    return listening


async def _lifespan(app: Any, scope: Any, receive: Any, send: Any) -> None:
    told = False

    async def telling(message: Any) -> None:
        nonlocal told
        told = True
        await send(message)

    try:
        await app(scope, receive, telling)
    except Exception:
        if told:
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
    answers, seen = [], []
    for request in row.all_requests:
        answers.append(_ask(client, request, calm))
        seen.append([
            dataclasses.replace(
                one,
                headers=tuple((name, calm(name, value)) for name, value in one.headers),
                body=calm.body(one.body),
            )
            for one in upstream.seen
        ])  # fmt: skip
        upstream.seen.clear()
    return Side(answers, seen, row.recorded() if row.recorded is not None else [], frozenset(calm.met))


class _Calm:
    """Replaces volatile values, and knows which there were."""

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


def _ask(client: Any, request: Request, calm: _Calm) -> Answer:
    def filled(text: str) -> str:
        return re.sub(r"\{cookie:(\w+)\}", lambda match: client.cookies.get(match[1], "none"), text)

    headers = [(name, filled(value)) for name, value in request.headers]
    content = filled(request.body.decode("latin-1")).encode("latin-1") or None
    response = client.request(
        request.method, filled(request.target), headers=headers, content=content, follow_redirects=False
    )
    got: dict[str, list[str]] = {}
    for name, value in response.headers.multi_items():
        # blanks around it are no part of a value (RFC 9110, 5.5); a client of a server does not see them
        got.setdefault(name.lower(), []).append(value.strip(" \t"))
    length = got.get("content-length", [None])[0] if request.method == "HEAD" else None
    kept = {name: values for name, values in got.items() if name not in _APART}
    # a server does not send what WSGI applications give for it
    body = b"" if request.method == "HEAD" else response.content
    kept = {name: [calm(name, value) for value in values] for name, values in kept.items()}
    return Answer(response.status_code, kept, length, calm.body(body))


def differences(row: Row, here: Side, there: Side) -> Iterator[str]:
    """What is not alike, but for the limits."""
    for number, request in enumerate(row.all_requests):
        wanted, through = here.answers[number], there.answers[number]
        seen, seen_through = here.seen[number], there.seen[number]
        for name in (*row.limits, *([request.limit] if request.limit else [])):
            limit = LIMITS[name]
            before, wanted = wanted, limit.gives(request, wanted)
            if wanted is not before and limit.page:
                through = Answer(through.status, {}, None, b"")
                seen = [] if limit.unseen else seen
            if limit.passes is not None:
                seen = [limit.passes(one) for one in seen]
        if wanted != through:
            yield f"{request}\n    plain   {wanted}\n    gateway {through}"
        if seen != seen_through:
            yield f"{request}, upstream\n    plain   {seen}\n    gateway {seen_through}"
    for one, other in itertools.zip_longest(here.recorded, there.recorded):
        if one != other:
            yield f"recorded\n    plain   {one}\n    gateway {other}"


def unmet(row: Row, here: Side) -> list[str]:
    """Limits that the row names without need, and values that it calls volatile which are not there."""
    needed = set()
    for request, answer, seen in zip(row.all_requests, here.answers, here.seen, strict=True):
        for name in (*row.limits, request.limit):
            limit = LIMITS.get(name)
            if limit is not None and (
                limit.gives(request, answer) is not answer
                or (limit.passes is not None and [limit.passes(one) for one in seen] != seen)
            ):
                needed.add(name)
    idle = [f"limit {name} without need" for name in row.all_limits if name not in needed]
    return idle + [f"{volatile} does not occur" for volatile in row.volatile if volatile not in here.volatile]
