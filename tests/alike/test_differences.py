"""The upstream gets the same request from a middleware in plain ASGI and from the same one at the gateway.

Requests and changes are random. Where both may differ, a limit of the protocol says so: each has its name in LIMITS.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_bridge import Bridge, PluginError
from asgi_bridge.gateway.nginx.uri import normalise_path
from asgi_bridge.testing import Gateway, PluginClient

from ..fuzzing import examples
from .compare import GATEWAYS_OWN, Request, Seen, arguments, by_name, write_arguments

EXAMPLES = examples(200)

Headers = list[tuple[bytes, bytes]]

LIMITS = {
    "the gateway's own": "headers between client and gateway, or between gateway and upstream, are the gateway's",
    "normal path": "the gateway decodes the path, merges its slashes and resolves its dots, before any plugin sees it",
    "raw path": "a change of raw_path alone is dropped, with a warning",
    "scope": "scheme, client, server and other keys have no field in the protocol",
    "order": "headers and arguments of different names come in the gateway's order",
    "joined": "a changed header that repeats is joined, cookies by '; ', all others by ', '",
    "empty header": "a header that is changed to nothing is deleted",
    "flag": "a new argument without '=' goes upstream as 'name='",
    "nameless": "an argument without a name is dropped",
    "spelling": "arguments are decoded and encoded again: '+' is '%20'",
    "refused: method": "there is no field for it",
    "refused: no path": "a path begins with a slash and is UTF-8",
    "refused: host": "a request has one host, which is not empty; nginx answers 500 to a slash or two dots in it",
    "refused: empty body": "an empty body keeps the request's",
}

# --- requests ---------------------------------------------------------------------------------------------------------


def scope_of(request: Request) -> Scope:
    """Return the scope that a server makes of `request`."""
    headers = [(b"host", b"client.test"), *_as_bytes(request.headers)]
    if request.chunked:
        headers.append((b"transfer-encoding", b"chunked"))
    elif request.body:
        headers.append((b"content-length", b"%d" % len(request.body)))
    path, _, query = request.target.encode("latin-1").partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": ("192.0.2.1", 1234),
        "server": ("198.51.100.1", 9080),
        "extensions": {},
        "state": {},
    }


def _as_bytes(headers: Iterable[tuple[str, str]]) -> Headers:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _as_texts(headers: Headers) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)


def make_request(method: str, path: bytes, query: bytes, headers: Headers, body: bytes, chunked: bool) -> Request:
    target = path + (b"?" + query if query else b"")
    return Request(method, target.decode("latin-1"), _as_texts(headers), body, chunked)


NAMES = [b"x-a", b"accept", b"cookie", b"x_under", b"content-type"]
visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=8)
values = st.one_of(
    st.sampled_from([b"", b"1", b"a, b", b"a=b", b"caf\xe9", b"a b", b"a\tb"]),
    visible.map(lambda text: text.encode("latin-1")),
)
headers = st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=8)
# bytes below 0x20 are no part of a target, and "#" ends it
segments = st.one_of(
    st.sampled_from([b"a", b"b", b"%2F", b"%2f", b"%20", b"%25", b"%3F", b"%23", b"%C3%A9", b"%e9", b"%FF", b".", b"..",
                     b"", b"a+b", b"a;b=c", b"~", b"%7e", b"'", b"(", b"@:", b"%E2%82%AC", b"\xc3\xa9", b'"<>^`{|}']),
    st.text("abcXYZ019-._~!$&'()*+,;=:@", max_size=6).map(str.encode),
)  # fmt: skip
paths = (
    st.lists(segments, max_size=5)
    .map(lambda parts: b"/" + b"/".join(parts))
    .filter(lambda path: normalise_path(path) is not None)
)
words = st.one_of(
    st.sampled_from([b"a", b"b", b"c", b"", b"a%20b", b"a+b", b"%2B", b"%26", b"%3D", b"%", b"%zz", b"%C3%A9", b"%FF",
                     b"\xc3\xa9", b"a;b", b"[]", b"?", b"/", b"%2525"]),
    st.text("abc019-._~!$'()*,;:@/?", max_size=4).map(str.encode),
)  # fmt: skip
pairs = st.one_of(words, st.tuples(words, words).map(b"=".join), st.tuples(words, words, words).map(b"=".join))
queries = st.lists(pairs, max_size=6).map(b"&".join)
bodies = st.one_of(st.just(b""), st.binary(min_size=1, max_size=50))
requests = st.builds(
    make_request,
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "PROPFIND"]),
    path=paths,
    query=queries,
    headers=headers,
    body=bodies,
    chunked=st.booleans(),
)


# --- changes ----------------------------------------------------------------------------------------------------------

Change = tuple[Any, ...]
"""What a middleware does to a request: a case of `Work.apply`, and its arguments."""


EDITS: dict[str, Callable[[bytes], bytes]] = {
    "same": lambda body: body,
    "upper": bytes.upper,
    "longer": lambda body: body + b"!",
    "empty": lambda body: b"",
}


def changed_by(receive: Receive, change: Callable[[bytes], bytes]) -> Receive:
    """Return a `receive` that reads the body, and gives what `change` makes of it in two messages."""
    parts: list[bytes] = []

    async def changed() -> Message:
        if not parts:
            body = change(await read(receive))
            parts.extend([body[3:], body[:3]])
        return {"type": "http.request", "body": parts.pop(), "more_body": len(parts) == 1}

    return changed


def instead_of(body: bytes) -> Receive:
    """Return a `receive` that gives `body`, and does not read the body of the request."""

    async def changed() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return changed


async def read(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            return body


@dataclass
class Work:
    """A request on its way through the middleware."""

    scope: Scope
    receive: Receive

    def apply(self, change: Change) -> None:
        scope = self.scope
        what, *details = change
        match what:
            case "set header":
                name, value = details
                kept = [entry for entry in scope["headers"] if entry[0] != name]
                scope["headers"] = [*kept, (name, value)]
            case "add header":
                scope["headers"] = [*scope["headers"], tuple(details)]
            case "delete header":
                scope["headers"] = [entry for entry in scope["headers"] if entry[0] != details[0]]
            case "rename header":
                old, new = details
                # at the end, for the order of different names is LIMITS["order"]
                renamed = [(new, value) for name, value in scope["headers"] if name == old]
                scope["headers"] = [entry for entry in scope["headers"] if entry[0] != old] + renamed
            case "upper-case headers":
                scope["headers"] = [(name.upper(), value) for name, value in scope["headers"]]
            case "reverse headers":
                scope["headers"] = scope["headers"][::-1]
            case "query":
                scope["query_string"] = details[0]
            case "add argument":
                query = scope["query_string"]
                scope["query_string"] = query + (b"&" if query else b"") + details[0]
            case "delete argument":
                scope["query_string"] = _without_argument(scope, details[0])
            case "set argument":
                name, new_values = details
                added = write_arguments((name, value) for value in new_values).encode()
                scope["query_string"] = b"&".join(filter(None, (_without_argument(scope, name), added)))
            case "prefix":
                scope["path"] = details[0] + scope["path"]
            case "body":
                self.receive = instead_of(details[0])
            case "edit body":
                self.receive = changed_by(self.receive, EDITS[details[0]])
            case "scope":
                scope[details[0]] = details[1]
            case other:
                raise AssertionError(other)


def _without_argument(scope: Scope, name: bytes) -> bytes:
    kept = (pair for pair in arguments(scope["query_string"].decode("latin-1")) if pair[0] != name)
    return write_arguments(kept).encode()


owned = st.sampled_from(sorted(name.encode() for name in GATEWAYS_OWN))
names = st.sampled_from([*NAMES, b"host", b"x-new"])
arg_names = st.sampled_from([b"a", b"b", b"c", b"a b", "é".encode(), b"&", b"="])
arg_values = st.lists(st.one_of(st.none(), st.binary(max_size=4)), max_size=3)
new_paths = st.one_of(
    st.sampled_from(
        ["/", "/a", "/é", "/a b?c#d", "/%41", "//a/../b", "/a/", "", "a", "/\udcff", "*", "/\u20ac\U0001f600"]
    ),
    st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=8).map("/".__add__),
)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("set header"), names, values),
        st.tuples(st.just("add header"), names, values),
        st.tuples(st.just("delete header"), names),
        st.tuples(st.just("rename header"), names, names),
        st.tuples(st.just("set header"), owned, st.sampled_from([b"1", b"close"])),
        st.tuples(st.just("delete header"), owned),
        st.tuples(st.sampled_from(["upper-case headers", "reverse headers"])),
        st.tuples(st.just("query"), queries),
        st.tuples(st.just("add argument"), pairs),
        st.tuples(st.just("delete argument"), arg_names),
        st.tuples(st.just("set argument"), arg_names, arg_values),
        st.tuples(st.just("prefix"), st.sampled_from(["/v1", "", "/é", "v1"])),
        st.tuples(st.just("body"), st.binary(max_size=50)),
        st.tuples(st.just("edit body"), st.sampled_from(sorted(EDITS))),
        st.tuples(st.just("scope"), st.just("path"), new_paths),
        st.tuples(st.just("scope"), st.just("method"), st.sampled_from(["GET", "POST"])),
        st.sampled_from([
            ("scope", "raw_path", b"/raw"), ("scope", "scheme", "https"), ("scope", "client", None), ("scope", "a", 1),
        ]),
    ),
    max_size=4,
)  # fmt: skip


# --- both ways --------------------------------------------------------------------------------------------------------


@dataclass
class Both:
    """The middleware in plain ASGI and at a gateway, with what it saw and what the upstream got."""

    changes: list[Change] = field(default_factory=list)
    seen: list[Scope] = field(default_factory=list)
    got: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        bridge = Bridge()
        bridge.add_middleware("change", self._middleware)
        routes = [{"uri": "/*", "plugins": {"ext-plugin-pre-req": {"conf": [{"name": "change", "value": "{}"}]}}}]
        self.plain: Any = PluginClient(bridge, "change", upstream=self._upstream).app
        self.gateway: Any = Gateway(bridge, routes, upstream=self._upstream)
        self.loop = asyncio.new_event_loop()
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()

    def _middleware(self, app: ASGIApp) -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            assert scope["type"] == "http"
            self.seen.append(dict(scope))
            work = Work(scope, receive)
            for change in self.changes:
                work.apply(change)
            await app(scope, work.receive, send)

        return middleware

    async def _upstream(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        body = await read(receive)
        # in plain ASGI the path counts: no server would make the request of the raw path
        path = unquote_to_bytes(scope["raw_path"]) if not self.seen_plain else _encode(scope["path"])
        query = scope["query_string"].decode("latin-1")
        self.got.append(Seen(scope["method"], path.decode("latin-1"), query, _as_texts(scope["headers"]), body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    seen_plain = False

    def start(self) -> None:
        """Run the gateway's start-up."""
        started = self.loop.create_future()

        async def send(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                started.set_result(None)

        self._inbox.put_nowait({"type": "lifespan.startup"})
        self._lifespan = self.loop.create_task(self.gateway({"type": "lifespan"}, self._inbox.get, send))
        self.loop.run_until_complete(started)

    def stop(self) -> None:
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        self.loop.run_until_complete(self._lifespan)
        self.loop.close()

    def ask(self, app: Any, request: Request, changes: list[Change], scope: Scope) -> tuple[int, Seen | None]:
        """Send a request to `app`, and return the status and what the upstream got."""
        self.changes = changes
        self.seen_plain = app is self.plain
        self.seen.clear()
        self.got.clear()
        messages: list[Message] = []
        incoming: list[Message] = [{"type": "http.request", "body": request.body, "more_body": False}]

        async def receive() -> Message:
            if incoming:
                return incoming.pop()
            await self.loop.create_future()
            raise AssertionError

        async def send(message: Message) -> None:
            messages.append(message)

        async def call() -> None:
            try:
                await app(scope, receive, send)
            except PluginError:
                assert messages[0]["status"] == 503

        self.loop.run_until_complete(call())
        assert len(self.got) <= 1
        return messages[0]["status"], self.got[0] if self.got else None


def _encode(path: object) -> bytes:
    return path.encode("utf-8", "surrogateescape") if isinstance(path, str) else b""


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    both = Both()
    both.start()
    yield both
    both.stop()


# --- the limits -------------------------------------------------------------------------------------------------------


def joined(headers: Iterable[tuple[str, str]], before: Iterable[tuple[str, str]] | None = None) -> dict[str, str]:
    """Return headers by name, with the limits "the gateway's own", "order" and "joined".

    Args:
        headers: names and values.
        before: the same before a middleware changed them: the limit "empty header" applies to those that differ.
    """
    old = by_name(before or [])
    found = {}
    for name, several in by_name((name.lower(), value) for name, value in headers).items():
        # no server shows the blanks around a value
        value = ("; " if name == "cookie" else ", ").join(several).strip(" \t")
        if name not in GATEWAYS_OWN and (value or before is None or old.get(name) == several):
            found[name] = value
    return found


def arguments_by_name(query: str, before: str | None = None) -> dict[bytes, list[bytes | None]]:
    """Return arguments by name, with the limits "order", "nameless" and "spelling".

    Args:
        query: the query string.
        before: the same before a middleware changed it: the limit "flag" applies to arguments that differ.
    """
    found = by_name(arguments(query))
    if before is None:
        return found
    old = by_name(arguments(before))
    return {name: several if old.get(name) == several else [value or b"" for value in several]
            for name, several in found.items()}  # fmt: skip


def refused(request: Request, before: Scope, after: Seen, path: object) -> bool:
    """Return whether the gateway refuses what a middleware passes on in plain ASGI: the limits "refused: …"."""
    hosts = [value for name, value in after.headers if name.lower() == "host"]
    return (
        after.method != before["method"]
        or (path != before["path"] and not _is_path(path))
        or len(hosts) != 1
        or not hosts[0]
        or "/" in hosts[0]
        or ".." in hosts[0]
        or (not after.body and request.body != b"")
    )


def _is_path(path: object) -> bool:
    try:
        return isinstance(path, str) and path.encode().startswith(b"/")
    except UnicodeEncodeError:
        return False


# --- the property -----------------------------------------------------------------------------------------------------


@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(request=requests, changes=changes)
@example(
    Request("GET", "/", (("cookie", "a=b"), ("x-a", "1"), ("cookie", "c=d"), ("x-a", "2"))),
    [("add header", b"cookie", b"e=f"), ("add header", b"x-a", b"3")],
)
@example(Request("GET", "/"), [("set header", b"host", b"/")])
@example(Request("GET", "/"), [("set header", b"host", b"a..b")])
@example(Request("GET", "/?a=1+2&c"), [("add argument", b"b+c=3+4"), ("add argument", b"a=5")])
def test_upstream_gets_the_request_that_the_middleware_passed_on(
    both: Both, request: Request, changes: list[Change]
) -> None:
    scope = scope_of(request)
    normal = normalise_path(scope["raw_path"])
    assert normal is not None
    status, got = both.ask(both.gateway, request, changes, scope)
    seen = both.seen[0]
    # LIMITS["normal path"]: what nginx makes of the path is what plain ASGI begins with
    before = {**scope, "path": normal.decode("utf-8", "replace")}
    _, plain = both.ask(both.plain, request, changes, before)
    assert plain is not None

    headers, query = _as_texts(before["headers"]), before["query_string"].decode("latin-1")
    assert seen["path"] == before["path"]
    assert joined(_as_texts(seen["headers"])) == joined(headers)
    assert arguments_by_name(seen["query_string"].decode("latin-1")) == arguments_by_name(query)
    path = plain.path.encode("latin-1").decode("utf-8", "surrogateescape")
    if refused(request, before, plain, path):
        assert (status, got) == (503, None)
        return
    assert got is not None, f"refused with {status}"
    assert (status, got.method, got.body) == (200, plain.method, plain.body)
    if path == before["path"]:  # nginx sends the target as it came, if nothing else in it has changed
        assert normalise_path(quote_path(got.path.encode("latin-1"))) == normal
    else:
        assert got.path == plain.path
    assert joined(got.headers) == joined(plain.headers, headers)
    if plain.query == query:
        assert arguments_by_name(got.query) == arguments_by_name(query)
    else:
        assert arguments_by_name(got.query) == arguments_by_name(plain.query, query)


def quote_path(path: bytes) -> bytes:
    return b"".join(b"/" if byte == 0x2F else b"%%%02X" % byte for byte in path)
