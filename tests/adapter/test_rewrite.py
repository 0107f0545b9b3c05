"""What a plugin passes on, as a Rewrite: tables, and the property that APISIX makes the plugin's request of it."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from asgi_bridge import upstream
from asgi_bridge.adapter.scope import encode_query, parse_query
from asgi_bridge.errors import PluginError
from asgi_bridge.wire import HTTPReqCallReq, Rewrite, Role, Stop, TextEntry, decode, encode

from .apisix import FIRST_LINE_ONLY, Values, grouped, rewritten
from .calls import FORWARDED, REFUSED, Gateway, answer, chain_of, errors, passing, request, run, warnings


def setting(**changes: Any) -> Any:
    """A plugin that passes on a scope with `changes`."""
    return passing(lambda scope: scope.update(changes))


def without(name: bytes) -> list[TextEntry]:
    return [entry for entry in FORWARDED if entry[0] != name]


def looking(scope: Scope) -> None:
    """Makes Starlette's headers of a scope, which have its list."""
    Headers(scope=scope)


def test_nothing_changed_is_no_action() -> None:
    message = request((b"x-a", b"1"), args=[(b"a", b"1"), (b"flag", None)])
    assert answer(passing(), message=message) is None
    # the same values in other objects, in an other order of names, in upper case
    assert answer(setting(headers=[list(entry) for entry in message.headers or ()]), message=message) is None
    assert answer(setting(headers=tuple(reversed(message.headers or ()))), message=message) is None
    assert answer(setting(headers=[(b"X-A", b"1"), *FORWARDED]), message=message) is None
    assert answer(passing(looking), message=message) is None
    assert answer(setting(query_string=b"flag&%61=%31"), message=message) is None


# path


@pytest.mark.parametrize(
    ("path", "rewrite"),
    [
        ("/y", b"/y"),
        ("/", b"/"),
        ("/ä b?c#%41", "/ä b?c#%41".encode()),
        ("//b//../c", b"//b//../c"),
    ],
)
def test_path(path: str, rewrite: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert answer(setting(path=path)) == Rewrite(path=rewrite)
    assert answer(setting(path=path, raw_path=b"/other")) == Rewrite(path=rewrite)
    assert warnings(caplog) == []


@pytest.mark.parametrize("path", ["", "y", "http://else.test/y", "*", b"/y", None])
def test_what_is_no_path(path: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert answer(setting(path=path)) == REFUSED
    assert errors(caplog) == [f'plugin p0: request refused: the path was changed to {path!r}; a path begins with "/"']


def test_a_path_that_cannot_be_encoded(caplog: pytest.LogCaptureFixture) -> None:
    assert answer(setting(path="/\udce9")) == REFUSED
    assert errors(caplog) == ["plugin p0: request refused: the path was changed to '/\\udce9', which is not UTF-8"]


def test_a_change_of_raw_path_alone(caplog: pytest.LogCaptureFixture) -> None:
    assert answer(setting(raw_path=b"/y")) is None
    assert answer(setting(raw_path=None)) is None
    assert warnings(caplog) == ["plugin p0: a change of raw_path alone is dropped: change path"]
    assert answer(passing(lambda scope: scope.pop("raw_path"))) is None


def test_a_path_that_is_not_utf_8_passes_as_it_is_unless_it_is_changed(caplog: pytest.LogCaptureFixture) -> None:
    message = request(path=b"/\xe9")
    assert answer(passing(), message=message) is None
    assert answer(setting(path="/y"), message=message) == Rewrite(path=b"/y")
    assert warnings(caplog) == []

    def prefix(scope: Scope) -> None:
        scope["path"] = "/v1" + scope["path"]

    assert answer(passing(prefix), message=message) == Rewrite(path="/v1/\ufffd".encode())
    assert warnings(caplog) == ["plugin p0: a path that is not UTF-8 was changed: what is not goes upstream as U+FFFD"]


# query

ARGS: list[TextEntry] = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"flag", None)]


@pytest.mark.parametrize(
    ("query", "args"),
    [
        (b"a=1&b=2&a=3&flag", None),
        (b"b=2&flag&a=1&a=3", None),
        (b"a=1&b=2&a=3&flag&&", None),
        (b"a=1&b=2&a=3&flag&c=4", [(b"c", b"4")]),
        (b"a=1&b=2&a=3", [(b"flag", None)]),
        (b"", [(b"a", None), (b"b", None), (b"flag", None)]),
        (b"a=3&b=2&a=1&flag", [(b"a", b"3"), (b"a", b"1")]),
        (b"a=1&b=2&flag", [(b"a", b"1")]),
        (b"a=1&b=&a=3&flag", [(b"b", b"")]),
        (b"a=1&b=2&a=3&flag=", [(b"flag", b"")]),
        (b"a=1&b=2&a=3&flag&c+d=%2B+%26%3D&%E9=%zz", [(b"c d", b"+ &="), (b"\xe9", b"%zz")]),
        (b"a=1&b=2&a=3&flag&x=a=b", [(b"x", b"a=b")]),
    ],
)
def test_query(query: bytes, args: list[TextEntry] | None, caplog: pytest.LogCaptureFixture) -> None:
    expected = None if args is None else Rewrite(args=args)
    assert answer(setting(query_string=query), message=request(args=ARGS)) == expected
    assert warnings(caplog) == []


def test_a_new_flag_gets_a_sign(caplog: pytest.LogCaptureFixture) -> None:
    assert answer(setting(query_string=b"new&flag&flag"), message=request(args=[(b"flag", None)])) == Rewrite(
        args=[(b"new", b""), (b"flag", b""), (b"flag", b"")]
    )
    assert warnings(caplog) == [
        'plugin p0: the protocol has no argument without "=": a new "?name" goes upstream as "?name="'
    ]


def test_a_query_of_an_exact_scope_is_compared_by_its_meaning() -> None:
    variables = {"real_request_uri": b"/x?%61=%31&a=+&flag#f"}
    message = request(args=[(b"flag", None), (b"a", b"1"), (b"a", b" ")])

    def add(scope: Scope) -> None:
        scope["query_string"] += b"&c=1"

    assert answer(passing(), message=message, variables=variables, exact=True) is None
    assert answer(passing(add), message=message, variables=variables, exact=True) == Rewrite(args=[(b"c", b"1")])


@pytest.mark.parametrize("query", ["a=1", None, memoryview(b"a=1")])
def test_a_query_that_is_no_bytes(query: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert answer(setting(query_string=query)) == REFUSED
    assert errors(caplog) == [f"plugin p0: request refused: the query string was changed to {query!r}; it is bytes"]


# headers

OLD: list[TextEntry] = [(b"x-a", b"1"), (b"x-a", b"2"), (b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"x-b", b"")]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([*FORWARDED, *OLD], None),
        ([*FORWARDED, *OLD, (b"X-New", b"\xe9")], [(b"x-new", b"\xe9")]),
        ([*FORWARDED, *OLD, [bytearray(b"x-new"), memoryview(b"1")]], [(b"x-new", b"1")]),
        ([*FORWARDED, *OLD, (b"x-new", b"1"), (b"X-New", b"2")], [(b"x-new", b"1, 2")]),
        ([*FORWARDED, *OLD, (b"x-a", b"3")], [(b"x-a", None), (b"x-a", b"1, 2, 3")]),
        ([*FORWARDED, *OLD, (b"cookie", b"c=3")], [(b"cookie", None), (b"cookie", b"a=1; b=2; c=3")]),
        ([*FORWARDED, *OLD[1:]], [(b"x-a", None), (b"x-a", b"2")]),
        ([*FORWARDED, OLD[1], OLD[0], *OLD[2:]], [(b"x-a", None), (b"x-a", b"2, 1")]),
        ([*FORWARDED, *OLD[2:]], [(b"x-a", None)]),
        (FORWARDED, [(b"x-a", None), (b"cookie", None), (b"x-b", None)]),
        ([(b"host", b"b.test"), *FORWARDED[1:], *OLD], [(b"host", b"b.test")]),
        ([*without(b"x-forwarded-host"), *OLD], [(b"x-forwarded-host", None)]),
        ([*FORWARDED, *OLD, (b"x-forwarded-for", b"9.9.9.9")], [(b"x-forwarded-for", b"9.9.9.9")]),
    ],
)
def test_headers(headers: Any, expected: list[TextEntry] | None, caplog: pytest.LogCaptureFixture) -> None:
    rewrite = None if expected is None else Rewrite(headers=expected)
    assert answer(setting(headers=headers), message=request(*OLD)) == rewrite
    assert warnings(caplog) == []


@pytest.mark.parametrize("name", [*sorted(FIRST_LINE_ONLY), b"accept", b"x-own", b"cookie", b"if-none-match"])
@pytest.mark.parametrize(
    ("new", "entries"),
    [
        ([b"mine"], [None, b"mine"]),
        ([b"v1"], [None, b"v1"]),
        ([b"v2"], [None, b"v2"]),
        ([b"v2", b"v1"], [None, b"v2, v1"]),
        ([b"v1, v2"], [None, b"v1, v2"]),
        ([b"v1", b"v2", b"v3"], [None, b"v1, v2, v3"]),
        ([], [None]),
        ([b""], [None]),
        ([b"v1", b"v2"], []),
    ],
    ids=["replaced", "last dropped", "first dropped", "turned round", "joined", "added", "deleted", "emptied", "same"],
)
def test_a_repeated_header_is_deleted_before_it_is_set(
    name: bytes, new: list[bytes], entries: list[bytes | None]
) -> None:
    """Without that the client's second line would go upstream behind what a plugin sets."""
    message = request((name, b"v1"), (b"x-else", b"1"), (name, b"v2"))
    found = answer(setting(headers=[*FORWARDED, (b"x-else", b"1"), *((name, value) for value in new)]), message=message)
    cookies = (
        [entry and entry.replace(b", ", b"; ") for entry in entries] if name == b"cookie" and len(new) > 1 else None
    )
    assert found == (Rewrite(headers=[(name, entry) for entry in cookies or entries]) if entries else None)
    _, _, headers, _ = rewritten(message, None, found)
    wanted = {b", ".join(new), b"; ".join(new), b""} if entries else {b"v1, v2"}
    assert b", ".join(value or b"" for value in headers.get(name, [])) in wanted


RECORDED_CALL = bytes.fromhex(
    "020001dc18000000000012001c001800100000000c000800040014001200000018000000a8010000b0010000a401000024ee416707000000"
    "070000006001000010010000dc000000880000005c0000003000000004000000c4feffff080000000c00000002000000763200000c000000"
    "636f6e74656e742d7479706500000000ecfeffff080000000c00000002000000763100000c000000636f6e74656e742d7479706500000000"
    "14ffffff08000000100000000500000063617365730000000a000000757365722d6167656e7400003cffffff080000003000000027000000"
    "616761696e2d64656c6574652d7468656e2d7365742d636f6e74656e742d747970652e746573740010000000782d666f727761726465642d"
    "686f7374000000008cffffff080000001000000004000000393038300000000010000000782d666f727761726465642d706f727400000000"
    "bcffffff080000003000000027000000616761696e2d64656c6574652d7468656e2d7365742d636f6e74656e742d747970652e7465737400"
    "04000000686f73740000000008000c000800040008000000080000001000000004000000687474700000000011000000782d666f72776172"
    "6465642d70726f746f00000000000000040000007f000001020000002f780000"
)
"""A call of APISIX 3.18: a request with ``Content-Type: v1`` and ``content-type: v2``."""
RECORDED_ANSWER = bytes.fromhex(
    "020000901000000000000a0010000c000b0004000a0000001400000000000002070000000800080000000400080000000400000002000000"
    "400000000c00000008000c0008000400080000000800000010000000040000006d696e65000000000c000000636f6e74656e742d74797065"
    "000006000800040006000000040000000c000000636f6e74656e742d7479706500000000"
)
"""What a runner answered to it, so that the upstream got ``content-type: mine`` and nothing else."""


def test_the_frames_of_a_repeated_header() -> None:
    call = decode(2, RECORDED_CALL[4:], Role.RUNNER)
    assert isinstance(call, HTTPReqCallReq)

    def own(scope: Scope) -> None:
        MutableHeaders(scope=scope)["content-type"] = "mine"

    async def main() -> Gateway:
        return await run(await chain_of(passing(own)), call)

    (found,) = asyncio.run(main()).answers
    assert found == decode(2, RECORDED_ANSWER[4:], Role.GATEWAY)
    # on the wire too the first entry has no value, which is another thing than an empty one
    assert decode(2, encode(found)[4:], Role.GATEWAY) == found


@pytest.mark.parametrize(
    ("value", "sent"),
    [(b" 1", b"1"), (b"1\t", b"1"), (b"\t 1 2\t ", b"1 2"), (b"a\tb", b"a\tb"), (b"\xa01", b"\xa01")],
)
def test_blanks_around_a_changed_header_are_no_part_of_it(value: bytes, sent: bytes) -> None:
    assert answer(setting(headers=[*FORWARDED, (b"x-a", value)])) == Rewrite(headers=[(b"x-a", sent)])
    # and so no change, where they are the only one
    assert answer(setting(headers=[*FORWARDED, (b"x-a", value)]), message=request((b"x-a", sent))) is None
    assert answer(setting(headers=[(b"x-a", sent), *FORWARDED]), message=request((b"x-a", value))) is None


def test_what_the_client_sent_passes_as_it_came() -> None:
    """Control characters of a client are its own affair, where a plugin only moves the header."""
    odd = (b"x-odd", b"a\x01b")
    assert answer(setting(headers=[odd, *FORWARDED, (b"x-a", b"1")]), message=request(odd)) == Rewrite(
        headers=[(b"x-a", b"1")]
    )


def test_headers_changed_in_place_and_replaced() -> None:
    def in_place(scope: Scope) -> None:
        MutableHeaders(scope=scope)["x-new"] = "1"

    def raw(scope: Scope) -> None:
        scope["headers"].append((b"x-new", b"1"))

    def replaced(scope: Scope) -> None:
        scope["headers"] = [*scope["headers"], (b"x-new", b"1")]

    for change in (in_place, raw, replaced):
        assert answer(passing(change)) == Rewrite(headers=[(b"x-new", b"1")])
        # every layer has its own list: the change is passed on all the same
        assert answer(passing(), passing(change), passing()) == Rewrite(headers=[(b"x-new", b"1")])


@pytest.mark.parametrize(
    ("old", "new", "expected", "warning"),
    [
        ([(b"x-a", b"1")], [(b"x-a", b"")], [(b"x-a", None)],
         "an empty header deletes it in APISIX: the upstream gets no x-a"),
        ([], [(b"x-a", b"")], None, "an empty header deletes it in APISIX: the upstream gets no x-a"),
        ([(b"content-length", b"0")], [(b"content-length", b"9")], None,
         "content-length is the gateway's own: a change of it without a change of the body is dropped"),
        ([], [(b"transfer-encoding", b"chunked")], None,
         "transfer-encoding is the gateway's own: a change of it without a change of the body is dropped"),
        ([(b"content-length", b"0")], [], None, "content-length is the gateway's own: it cannot be deleted"),
        ([], [(b"connection", b"close")], None,
         "connection is between client and gateway: a change of it is dropped"),
        ([(b"te", b"a")], [(b"te", b"b")], None, "te is between client and gateway: a change of it is dropped"),
        ([], [(b"expect", b"100-continue")], None,
         "expect is between client and gateway: a change of it is dropped"),
        ([(b"upgrade", b"h2c"), (b"keep-alive", b"5"), (b"connection", b"x")], [], None, None),
        ([], [(b"x-real-ip", b"8.8.8.8")], None, "x-real-ip is set by APISIX: a change of it is dropped"),
        ([(b"x-real-ip", b"8.8.8.8")], [], None, None),
    ],
)  # fmt: skip
def test_headers_that_cannot_be_changed_are_warned_of_once(
    old: list[TextEntry],
    new: list[TextEntry],
    expected: list[TextEntry] | None,
    warning: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> list[Any]:
        chain = await chain_of(setting(headers=[*FORWARDED, *new]))
        return [(await run(chain, request(*old))).answers[0].action for _ in range(3)]

    assert asyncio.run(main()) == [None if expected is None else Rewrite(headers=expected)] * 3
    assert warnings(caplog) == ([] if warning is None else [f"plugin p0: {warning}"])


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (FORWARDED[1:], "the host header was deleted; a request has one"),
        ([(b"host", b""), *FORWARDED[1:]], "the host header was changed to [b'']; a request has one"),
        ([*FORWARDED, (b"host", b"b.test")],
         "the host header was changed to [b'a.test', b'b.test']; a request has one"),
        ([*FORWARDED, (b"x-a", b"1\r\nx-b: 2")], "header x-a: its value holds a CR, LF or NUL"),
        ([*FORWARDED, (b"x-a", b"1\x0b")], "header x-a: its value holds a control character"),
        ([*FORWARDED, (b"x-a", b"\x1f1")], "header x-a: its value holds a control character"),
        ([*FORWARDED, (b"x-a", b"a\x7fb")], "header x-a: its value holds a control character"),
        ([*FORWARDED, (b"x\x01a", b"1")], "header b'x\\x01a': that is no header name"),
        ([*FORWARDED, (b"x\ta", b"1")], "header b'x\\ta': that is no header name"),
        ([(b"host", b"a/b.test"), *FORWARDED[1:]],
         "the host header was changed to b'a/b.test'; nginx answers 500 to a / or .. in it"),
        ([(b"host", b"a..test"), *FORWARDED[1:]],
         "the host header was changed to b'a..test'; nginx answers 500 to a / or .. in it"),
        ([*FORWARDED, (b"x a", b"1")], "header b'x a': that is no header name"),
        ([*FORWARDED, ("x-a", "1")], "header 'x-a': name and value must be bytes"),
        ([*FORWARDED, (b"x-a", b"1", 2)], "header (b'x-a', b'1', 2): a header is a pair of name and value"),
        ([*FORWARDED, b"x-a: 1"], "header b'x-a: 1': a header is a pair of name and value"),
    ],
)  # fmt: skip
def test_headers_that_no_request_has(headers: Any, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    assert answer(setting(headers=headers)) == REFUSED
    assert errors(caplog) == [f"plugin p0: request refused: {reason}"]


def test_content_length_of_a_changed_body_is_left_to_apisix(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def decoded() -> Message:
            return {"type": "http.request", "body": b"longer than before"}

        headers = MutableHeaders(scope=scope)
        del headers["content-encoding"]
        headers["content-length"] = "18"
        await upstream(scope, decoded, send)

    message = request((b"content-length", b"4"), (b"content-encoding", b"gzip"), method="POST")
    expected = Rewrite(headers=[(b"content-encoding", None)], body=b"longer than before")
    assert answer(app, message=message, body=b"gzip") == expected

    async def dropping(scope: Scope, receive: Receive, send: Send) -> None:
        async def decoded() -> Message:
            return {"type": "http.request", "body": b"other"}

        del MutableHeaders(scope=scope)["content-length"]
        await upstream(scope, decoded, send)

    assert answer(dropping, message=message, body=b"gzip") == Rewrite(body=b"other")
    assert warnings(caplog) == []


# what cannot be told


def test_method(caplog: pytest.LogCaptureFixture) -> None:
    assert answer(setting(method="POST")) == REFUSED
    assert errors(caplog) == [
        "plugin p0: request refused: the method was changed to 'POST', which the protocol cannot express"
    ]


@pytest.mark.parametrize("swallowed", [False, True])
def test_upstream_called_twice(swallowed: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def nowhere(message: Message) -> None: ...

        await upstream(scope, receive, nowhere)
        try:
            await upstream(scope, receive, send)
        except PluginError:
            if not swallowed:
                raise
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body"})

    assert answer(app) == REFUSED
    assert errors(caplog) == [
        "plugin p0: request refused: the upstream was called twice; the gateway sends a request once"
    ]


def test_a_plugin_may_answer_an_error_for_what_cannot_be_told() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await upstream({**scope, "method": "POST"}, receive, send)
        except PluginError:
            await send({"type": "http.response.start", "status": 405})
            await send({"type": "http.response.body", "body": b"no"})

    assert answer(app) == Stop(405, [(b"content-type", b"")], b"no")


def test_a_scope_that_lacks_a_part(caplog: pytest.LogCaptureFixture) -> None:
    assert answer(passing(lambda scope: scope.pop("method"))) == REFUSED
    assert errors(caplog) == ["plugin p0: request refused: KeyError: 'method'"]


def test_changes_of_several_layers_are_one_rewrite() -> None:
    def first(scope: Scope) -> None:
        scope["path"] = "/first"
        scope["headers"].append((b"x-a", b"1"))

    def second(scope: Scope) -> None:
        assert scope["path"] == "/first"
        scope["query_string"] = b"a=1"
        scope["headers"].append((b"x-a", b"2"))

    assert answer(passing(first), passing(second)) == Rewrite(b"/first", [(b"x-a", b"1, 2")], [(b"a", b"1")])


def test_what_a_layer_does_to_its_own_copy_alone_is_no_change() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        before = {**scope, "headers": list(scope["headers"])}
        scope["path"] = "/other"
        scope["headers"].append((b"x-a", b"1"))
        await upstream(before, receive, send)

    assert answer(app) is None


# properties

bytes_text = st.one_of(
    st.binary(max_size=6), st.text("ab+&=%; /?#~", max_size=6).map(str.encode), st.text(max_size=4).map(str.encode)
)
arguments = st.lists(
    st.tuples(st.one_of(st.sampled_from([b"a", b"b", b"c d"]), bytes_text.filter(bool)), st.none() | bytes_text),
    max_size=8,
)
values = st.sampled_from([b"", b"1", b"2", b"\xe9", b"a, b", b" ", b" 1", b"2\t"])
names = st.sampled_from([
    b"x-a", b"x-b", b"cookie", b"accept", b"content-type", b"x-real-ip", b"connection", b"te", b"content-length",
    b"authorization", b"x_a", b"user-agent", b"range", b"date",
])  # fmt: skip
header_lists = st.lists(st.tuples(names, values), max_size=8)
paths = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("/?#% +"), max_size=8
).map(lambda text: "/" + text)  # fmt: skip
UNTOUCHABLE = (b"x-real-ip", b"connection", b"te", b"content-length")


@given(arguments)
def test_a_query_means_the_arguments_it_was_made_of(args: Any) -> None:
    assert parse_query(encode_query(args)) == args


@given(st.binary(max_size=30))
def test_any_query_can_be_read_and_its_meaning_stays(query: bytes) -> None:
    args = parse_query(query)
    assert parse_query(encode_query(args)) == args


def expected_args(old: Values, new: Values) -> Values:
    return {
        name: values if old.get(name) == values else [value or b"" for value in values] for name, values in new.items()
    }


def expected_headers(old: Values, new: Values) -> Values:
    found: Values = {name: values for name, values in old.items() if name in UNTOUCHABLE}
    for name, values in new.items():
        values = [(value or b"").strip(b" \t") for value in values]
        joined = (b"; " if name == b"cookie" else b", ").join(value or b"" for value in values)
        if name in UNTOUCHABLE:
            continue
        if [(value or b"").strip(b" \t") for value in old.get(name, ())] == values:
            found[name] = old[name]
        elif joined:
            found[name] = [joined]
    return found


@settings(deadline=None)
@given(paths, arguments, header_lists, paths, arguments, header_lists, st.none() | st.binary(min_size=1, max_size=5))
def test_apisix_makes_the_plugins_request_of_the_rewrite(
    path: str, args: Any, headers: Any, new_path: str, new_args: Any, new_headers: Any, new_body: bytes | None
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def replaced() -> Message:
            return {"type": "http.request", "body": b"old" if new_body is None else new_body}

        changed = {
            **scope,
            "path": new_path,
            "query_string": encode_query(new_args),
            "headers": [(b"host", b"b.test"), *new_headers],
        }
        await upstream(changed, replaced, send)

    message = HTTPReqCallReq(
        5, None, "POST", path.encode(), args, [*headers, (b"host", b"a.test"), (b"transfer-encoding", b"chunked")], 1
    )

    async def main() -> Gateway:
        return await run(await chain_of(app), message, Gateway(body=b"old"))

    (found,) = asyncio.run(main()).answers
    old_headers = grouped(message.headers)
    encoding = old_headers.pop(b"transfer-encoding")
    assert rewritten(message, b"old", found.action) == (
        new_path.encode(),
        expected_args(grouped(args), grouped(new_args)),
        expected_headers(old_headers, {b"host": [b"b.test"], **grouped(new_headers)})
        | {b"transfer-encoding": encoding},
        new_body or b"old",
    )


@settings(deadline=None)
@given(paths, arguments, header_lists)
def test_what_is_passed_on_unchanged_is_never_an_action(path: str, args: Any, headers: Any) -> None:
    message = HTTPReqCallReq(5, None, "GET", path.encode(), args, [*FORWARDED, *headers], 1)
    assert answer(setting(headers=[*FORWARDED, *headers]), message=message) is None
