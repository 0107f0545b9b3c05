"""The scope that a plugin gets, its extension, and the variables behind it."""

import asyncio
import gc
from collections.abc import Mapping
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

import asgi_bridge
from asgi_bridge import Bridge, upstream
from asgi_bridge.adapter import Host
from asgi_bridge.errors import PluginError
from asgi_bridge.plugins import ConfigurationStore, build_chain
from asgi_bridge.plugins.extension import about_current
from asgi_bridge.wire import ErrCode, ErrResp, HTTPReqCallReq, Info, Stop, TextEntry, Var

from .calls import FORWARDED, HOST, KEY, REFUSED, Gateway, answer, chain_of, errors, passing, request, run

ALL_VARIABLES: list[Info] = [
    Var(b"scheme"),
    Var(b"http_host"),
    Var(b"server_addr"),
    Var(b"server_port"),
    Var(b"request"),
    Var(b"remote_port"),
    Var(b"request_id"),
]


def seen(
    message: HTTPReqCallReq,
    variables: Mapping[str, bytes | None] | None = None,
    asked: list[list[Any]] | None = None,
    host: Host = HOST,
    **options: Any,
) -> Scope:
    """The scope of a plugin, without its extension."""
    scopes: list[Scope] = []
    assert (
        answer(passing(scopes.append), message=message, variables=variables, asked=asked, host=host, **options) is None
    )
    (scope,) = scopes
    assert list(scope["extensions"]) == ["apisix"]
    return {name: value for name, value in scope.items() if name != "extensions"}


def expected(**changes: Any) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/x",
        "raw_path": b"/x",
        "query_string": b"",
        "root_path": "",
        "headers": FORWARDED,
        "client": ("127.0.0.1", 0),
        "server": ("a.test", 9080),
        "app": HOST.app,
        "state": {},
        **changes,
    }


def test_plain_request_costs_no_round_trip() -> None:
    assert seen(request(), asked=[]) == expected()


@pytest.mark.parametrize(
    ("src_ip", "client"),
    [
        (b"\x0a\x01\x02\xff", ("10.1.2.255", 0)),
        (bytes(15) + b"\x01", ("::1", 0)),
        (b"\x20\x01\x0d\xb8" + bytes(11) + b"\x09", ("2001:db8::9", 0)),
        (None, None),
        (b"", None),
        (b"12345", None),
    ],
)
def test_client(src_ip: bytes | None, client: tuple[str, int] | None) -> None:
    assert seen(request(src_ip=src_ip)) == expected(client=client)


@pytest.mark.parametrize(
    ("sent", "path", "raw_path"),
    [
        (b"/", "/", b"/"),
        (None, "/", b"/"),
        (b"/a b", "/a b", b"/a%20b"),
        ("/ä".encode(), "/ä", b"/%C3%A4"),
        (b"/\xe9/x", "/\ufffd/x", b"/%E9/x"),
        (b"/a?b#c%41", "/a?b#c%41", b"/a%3Fb%23c%2541"),
        (b"/x/\r\nX\x00", "/x/\r\nX\x00", b"/x/%0D%0AX%00"),
        (b"/:@!$&'()*+,;=-._~", "/:@!$&'()*+,;=-._~", b"/:@!$&'()*+,;=-._~"),
        (b'/"<>[]\\^`{|}', '/"<>[]\\^`{|}', b"/%22%3C%3E%5B%5D%5C%5E%60%7B%7C%7D"),
        (b"//a//", "//a//", b"//a//"),
    ],
)
def test_path(sent: bytes | None, path: str, raw_path: bytes) -> None:
    assert seen(request(path=sent)) == expected(path=path, raw_path=raw_path)


@pytest.mark.parametrize(
    ("args", "query"),
    [
        (None, b""),
        ([], b""),
        ([(b"b", b"1"), (b"a", b"2"), (b"b", b"3")], b"b=1&a=2&b=3"),
        ([(b"flag", None), (b"empty", b""), (b"flag", None)], b"flag&empty=&flag"),
        ([(b"f g", b"h&i=j"), (b"p", b"a/b+c:d;e#f?")], b"f%20g=h%26i%3Dj&p=a/b%2Bc:d%3Be%23f%3F"),
        ([(b"\xe9", "好".encode())], b"%E9=%E5%A5%BD"),
        ([(b"~*'()!$,@-._", b"%41")], b"~*'()!$,@-._=%2541"),
    ],
)
def test_query_is_rebuilt(args: list[TextEntry] | None, query: bytes) -> None:
    assert seen(request(args=args)) == expected(query_string=query)


@pytest.mark.parametrize("method", ["HEAD", "POST", "TRACE", "PROPFIND"])
def test_method(method: str) -> None:
    assert seen(request(method=method), asked=[]) == expected(method=method)


def test_headers_keep_order_repeats_and_bytes() -> None:
    more: list[TextEntry] = [(b"x-b", b"\xe9"), (b"x-a", b""), (b"x-b", b"2")]
    assert seen(request(*more)) == expected(headers=[*FORWARDED, *more])


def forwarded(proto: bytes | None, host: bytes | None, port: bytes | None = None) -> HTTPReqCallReq:
    names = (b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port")
    headers: list[TextEntry] = [
        (name, value) for name, value in zip(names, (proto, host, port), strict=True) if value is not None
    ]
    return HTTPReqCallReq(5, b"\x7f\x00\x00\x01", "GET", b"/x", None, headers, 1)


@pytest.mark.parametrize(
    ("proto", "host", "port", "scheme", "server"),
    [
        (b"http", b"a.test", b"9080", "http", ("a.test", 9080)),
        (b"HTTPS", b"a.test", None, "https", ("a.test", 443)),
        (b"http", b"a.test", None, "http", ("a.test", 80)),
        (b"https", b"a.test:8443", None, "https", ("a.test", 8443)),
        (b"https", b"a.test:8443", b"9443", "https", ("a.test", 9443)),
        (b"http", b"[::1]:81", None, "http", ("::1", 81)),
        (b"http", b"[::1]:80", b"9080", "http", ("::1", 9080)),
        (b"http", b"[::1]", None, "http", ("::1", 80)),
        (b"http", b"::1", None, "http", ("::1", 80)),
        (b"http", b"_", b"9080", "http", ("_", 9080)),
        (b"http", b"", None, "http", ("", 80)),
        (b"http", b"a.test", b"x", "http", ("a.test", 80)),
        (b"http", b"a.test", b"", "http", ("a.test", 80)),
        (b"http", b"a.test", b"0", "http", ("a.test", 80)),
        (b"http", b"a.test", b"65536", "http", ("a.test", 80)),
        (b"http", b"a.test", b"80, 80", "http", ("a.test", 80)),
        (b"http", b"a.test", b"9" * 5000, "http", ("a.test", 80)),
        (b"http", b"a.test:", None, "http", ("a.test:", 80)),
        # a digit to str.isdigit, none to int
        (b"http", b"a.test:\xb2", b"\xb2", "http", ("a.test:\xb2", 80)),
    ],
)
def test_scheme_and_server_of_forwarded_headers(
    proto: bytes, host: bytes, port: bytes | None, scheme: str, server: tuple[str, int]
) -> None:
    message = forwarded(proto, host, port)
    assert seen(message, asked=[]) == expected(headers=message.headers, scheme=scheme, server=server)


@pytest.mark.parametrize(
    ("proto", "host"), [(None, None), (b"http", None), (None, b"a.test"), (b"https, http", b"a.test"), (b"ws", b"a")]
)
def test_scheme_and_server_are_asked_for_without_usable_forwarded_headers(proto: bytes, host: bytes) -> None:
    message = forwarded(proto, host)
    variables = {"scheme": b"https", "server_addr": b"10.0.0.9", "server_port": b"9443"}
    assert seen(message, variables, [ALL_VARIABLES]) == expected(
        headers=message.headers, scheme="https", server=("10.0.0.9", 9443)
    )


def test_ask_origin_does_not_believe_forwarded_headers() -> None:
    variables = {"scheme": b"https", "server_addr": b"10.0.0.9"}
    assert seen(request(), variables, [ALL_VARIABLES], Host(HOST.app, ask_origin=True)) == expected(
        scheme="https", server=("10.0.0.9", 443)
    )


EXACT: dict[str, bytes | None] = {
    "scheme": b"https",
    "http_host": b"client.test",
    "server_addr": b"::1",
    "server_port": b"9443",
    "request": b"GET /%78/.//%2f?b=%41&a=+&flag#top HTTP/2.0",
    "remote_port": b"50123",
    "request_id": b"0123abcd",
}


def test_exact_takes_everything_in_one_round_trip() -> None:
    message = request(path=b"/x/", args=[(b"a", b" "), (b"b", b"A"), (b"flag", None)])
    assert seen(message, EXACT, [ALL_VARIABLES], exact=True) == expected(
        http_version="2",
        scheme="https",
        path="/x/",
        raw_path=b"/%78/.//%2f",
        query_string=b"b=%41&a=+&flag",
        headers=[(b"host", b"client.test"), *FORWARDED[1:]],
        client=("127.0.0.1", 50123),
        server=("::1", 9443),
    )


def test_exact_of_one_plugin_is_exact_for_all() -> None:
    bridge = Bridge()
    scopes: list[Scope] = []
    bridge.mount("plain", passing(scopes.append))
    bridge.mount("exact", passing(scopes.append), exact=True)
    assert answer(bridge=bridge, variables=EXACT, asked=[ALL_VARIABLES]) is None
    assert [scope["http_version"] for scope in scopes] == ["2", "2"]
    assert [asgi_bridge.apisix(scope).request_id for scope in scopes] == ["0123abcd", "0123abcd"]


def test_exact_without_any_variable() -> None:
    message = request(args=[(b"a", b"1")])
    assert seen(message, {}, [ALL_VARIABLES], exact=True) == expected(query_string=b"a=1", server=("", 80))


@pytest.mark.parametrize(
    ("variable", "value", "changes"),
    [
        ("request", b"GET /x HTTP/1.0", {"http_version": "1.0"}),
        ("request", b"GET /x HTTP/1.1", {"http_version": "1.1"}),
        ("request", b"GET /x HTTP/3.0", {"http_version": "3"}),
        ("request", b"GET /y", {"raw_path": b"/y"}),  # HTTP/0.9
        ("request", b"odd", {}),
        ("request", b"", {}),
        ("request", b"GET /y HTTP/1.1", {"raw_path": b"/y"}),
        ("request", b"GET /y? HTTP/1.1", {"raw_path": b"/y"}),
        ("request", b"GET   /y   HTTP/1.1  ", {"raw_path": b"/y"}),
        ("request", b"GET /y z HTTP/1.1 HTTP/1.1", {"raw_path": b"/y z HTTP/1.1"}),  # nginx before 1.21.1
        ("request", b"GET http://b.test/y?q HTTP/1.1", {"raw_path": b"/y", "query_string": b"q"}),
        ("request", b"GET HTTP://[::1]:80 HTTP/1.1", {"raw_path": b"/"}),
        ("request", b"GET http://b.test?q HTTP/1.1", {"query_string": b"q"}),
        ("request", b"GET /y?a?b HTTP/1.1", {"raw_path": b"/y", "query_string": b"a?b"}),
        ("request", b"GET /http://b.test/?a HTTP/1.1", {"raw_path": b"/http://b.test/", "query_string": b"a"}),
        ("request", b"GET /\xff\xc3?\xfc HTTP/1.1", {"raw_path": b"/\xff\xc3", "query_string": b"\xfc"}),
        ("remote_port", b"x", {}),
        ("server_port", b"x", {}),
        ("http_host", b"", {"headers": [(b"host", b""), *FORWARDED[1:]]}),
    ],
)
def test_exact_one_by_one(variable: str, value: bytes, changes: dict[str, Any]) -> None:
    assert seen(request(), {variable: value}, exact=True) == expected(server=("", 80), **changes)


def test_exact_without_a_client() -> None:
    assert seen(request(src_ip=None), EXACT, exact=True)["client"] is None


def test_host_application_has_a_state() -> None:
    scope = seen(request())
    assert isinstance(scope["app"], Starlette)
    scope["app"].state.some = 1


def test_calls_share_no_part_of_the_scope() -> None:
    def spoil(scope: Scope) -> None:
        scope["asgi"]["version"] = "9"
        scope["extensions"]["mine"] = {}
        scope["state"]["mine"] = 1
        scope["headers"].append((b"x-mine", b"1"))

    async def main() -> None:
        scopes: list[Scope] = []

        def keep(scope: Scope) -> None:
            copied = {"asgi": {**scope["asgi"]}, "extensions": list(scope["extensions"]), "state": {**scope["state"]}}
            scopes.append({**scope, **copied})

        chain = await chain_of(passing(keep), passing(spoil))
        message = request()
        for _ in range(2):
            await run(chain, message)
        assert scopes == [expected(extensions=["apisix"])] * 2

    asyncio.run(main())


def test_state_is_a_copy_of_what_lifespan_left() -> None:
    seen_states: list[dict[str, Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["pool"] = "p"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        seen_states.append(dict(scope["state"]))
        scope["state"]["mine"] = 1
        await upstream(scope, receive, send)

    async def main() -> None:
        bridge = Bridge()
        bridge.mount("p", app)
        store = ConfigurationStore(bridge.plugins)
        await store.start()
        chain = store.find(await store.prepare(KEY, [(b"p", b"")]))
        assert chain is not None
        await run(chain)
        await run(chain)
        await store.close()

    asyncio.run(main())
    assert seen_states == [{"pool": "p"}, {"pool": "p"}]


def test_extension() -> None:
    async def main() -> None:
        bridge = Bridge()
        gateway = Gateway()
        scopes: list[Scope] = []

        def compare(scope: Scope) -> None:
            assert gateway.call is not None
            assert gateway.call.plugins == "p"
            assert scope["extensions"]["apisix"] == {
                "plugin": "p",
                "phase": "request",
                "conf": {"a": [1]},
                "route_id": "7",
                "request_id": None,
                "var": gateway.call.var,
            }
            scopes.append(scope)

        bridge.mount("p", passing(compare))
        await run(await build_chain(bridge.plugins, KEY, [(b"p", b'{"a": [1]}')], None), None, gateway)
        extension = asgi_bridge.apisix(scopes[0])
        assert extension is scopes[0]["extensions"]["apisix"]
        assert (extension.plugin, extension.phase, extension.conf) == ("p", "request", {"a": [1]})
        assert (extension.route_id, extension.request_id) == ("7", None)
        assert extension.var is extension["var"]

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["none", "another's", "its own, of another name"])
def test_a_plugin_gets_its_own_var_whatever_an_outer_one_has_put_in_its_place(kind: str) -> None:
    found: list[Any] = []

    def change(scope: Scope) -> None:
        call = asgi_bridge.apisix(scope)._call
        puts = {"none": None, "another's": Gateway().answer, "its own, of another name": call.about}
        asgi_bridge.apisix(scope)["var"] = puts[kind]

    def note(scope: Scope) -> None:
        extension = asgi_bridge.apisix(scope)
        found.append(extension["var"] == extension._call.var)

    assert answer(passing(change), passing(note), passing(note)) is None
    assert found == [True, True]


def test_a_finalizer_may_change_the_headers_that_a_plugin_hands_on() -> None:
    """To copy them may run the garbage collector."""
    before = FORWARDED * 20
    found: list[list[TextEntry]] = []

    def garbage(headers: list[TextEntry]) -> None:
        class Cyclic:
            def __init__(self) -> None:
                self.me = self

            def __del__(self) -> None:
                headers.clear()

        Cyclic()

    def change(after: int) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["headers"] = before.copy()
            gc.set_threshold(0)
            gc.collect()
            garbage(scope["headers"])
            gc.set_threshold(after)
            await upstream(scope, receive, send)

        return app

    threshold = gc.get_threshold()
    try:
        for after in range(1, 60):
            answer(change(after), passing(lambda scope: found.append(scope["headers"])))
            gc.set_threshold(*threshold)
    finally:
        gc.set_threshold(*threshold)
    assert len(found) == 59
    assert all(headers in (before, []) for headers in found)
    assert before in found
    assert [] in found


def test_a_plugin_that_drops_what_it_has_begun_is_the_one_whose_code_runs() -> None:
    """So a log line of its own names it, and not the plugin inside."""
    found: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun = upstream(scope, receive, send)
        begun.send(None)
        found.append(about_current()["plugin"])
        del begun
        found.append(about_current()["plugin"])
        await upstream(scope, receive, send)

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        if not found:
            try:
                await asyncio.sleep(0)
            finally:
                found.append("ends")
        await upstream(scope, receive, send)

    assert answer(app, waits) is None
    assert found == ["p1", "ends", "p0"]


VARIABLES = {"consumer_name": b"jack", "request_id": b"0123", "odd": b"\xff"}


def test_one_variable_and_several() -> None:
    found: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        var = asgi_bridge.apisix(scope).var
        found.append(await var("consumer_name"))
        found.append(await var("nope"))
        found.append(await var("odd", "nope"))
        await upstream(scope, receive, send)

    asked: list[list[Info]] = [[Var(b"consumer_name")], [Var(b"nope")], [Var(b"odd"), Var(b"nope")]]
    assert answer(app, variables=VARIABLES, asked=asked) is None
    assert found == [b"jack", None, {"odd": b"\xff", "nope": None}]


def test_request_id_is_told_to_all_layers_once_it_is_known() -> None:
    found: list[Any] = []

    async def outer(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream(scope, receive, send)
        found.append(asgi_bridge.apisix(scope).request_id)

    async def middle(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(asgi_bridge.apisix(scope).request_id)
        await asgi_bridge.apisix(scope).var("request_id")
        await upstream(scope, receive, send)

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(asgi_bridge.apisix(scope).request_id)
        await upstream(scope, receive, send)

    assert answer(outer, middle, inner, variables=VARIABLES, asked=[[Var(b"request_id")]]) is None
    assert found == [None, "0123", "0123"]


def test_variables_cannot_be_asked_for_after_the_answer() -> None:
    found: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await upstream(scope, receive, send)
        with pytest.raises(PluginError) as caught:
            await asgi_bridge.apisix(scope).var("consumer_name")
        found.append(str(caught.value))

    assert answer(app, variables=VARIABLES, asked=[]) is None
    assert found == ["the call has been answered: the gateway cannot be asked any more"]


@pytest.mark.parametrize("names", [(), ("",), (b"scheme",), ("scheme", ""), ("scheme", None)])
def test_wrong_names_of_variables(names: tuple[Any, ...], caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asgi_bridge.apisix(scope).var(*names)

    assert answer(app, asked=[]) == REFUSED
    assert errors(caplog) == [f"plugin p0: request refused: var takes names of variables, not {names!r}"]


def test_a_gateway_that_cannot_tell(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> Gateway:
        gateway = Gateway(holding=True)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            asyncio.get_running_loop().call_soon(gateway.fail)
            await asgi_bridge.apisix(scope).var("consumer_name")

        return await run(await chain_of(app), None, gateway)

    assert asyncio.run(main()).answers == [REFUSED]
    assert errors(caplog) == ["plugin p0: request refused: the gateway could not tell"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (request((None, b"1")), "a header without a name or value"),
        (request((b"x-a", None)), "a header without a name or value"),
        (request(args=[(None, b"1")]), "an argument without a name"),
    ],
)
def test_what_the_protocol_does_not_have(
    message: HTTPReqCallReq, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert answer(passing(), message=message) == ErrResp(ErrCode.BAD_REQUEST)
    assert errors(caplog) == [f"plugin p0: request refused: RemoteProtocolError: {reason}"]


@pytest.mark.parametrize("count", [99, 100, 101])
def test_hundred_headers_may_be_more(count: int, caplog: pytest.LogCaptureFixture) -> None:
    more = [(b"x-%d" % number, b"1") for number in range(count - len(FORWARDED))]
    found = answer(passing(), message=request(*more))
    if count < 100:
        assert found is None
        return
    assert found == Stop(
        431,
        [(b"content-type", b"text/plain; charset=utf-8")],
        b"100 or more header fields: the gateway cannot check them\n",
    )
    (record,) = caplog.records
    assert record.getMessage() == "plugin p0: request refused with 431: 100 or more header fields"


def test_no_headers_and_no_plugins() -> None:
    async def main() -> Gateway:
        return await run(await chain_of(), HTTPReqCallReq())

    gateway = asyncio.run(main())
    assert gateway.outcomes == ["pass"]
    assert gateway.asked == [ALL_VARIABLES]
