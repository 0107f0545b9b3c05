"""Responses without the upstream, as a Stop: what keeps APISIX from spoiling them."""

from typing import Any

import pytest

from asgi_bridge.wire import Stop, TextEntry

from .calls import answer, errors, request, responding, warnings

UNTYPED = (b"content-type", b"")
"""Keeps APISIX from making up a text/plain."""
TYPED = (b"content-type", b"text/x")


def stopped(status: int, headers: Any = (), body: bytes = b"", method: str = "GET", cures: bool = True) -> Any:
    start = {"type": "http.response.start", "status": status, "headers": headers}
    messages = start, {"type": "http.response.body", "body": body}
    return answer(responding(*messages), message=request(method=method), asked=[], cures=cures)


@pytest.mark.parametrize(
    ("status", "body", "sent"),
    [
        (200, b"", None),
        (200, b"hello", b"hello"),
        (299, b"", None),
        # nginx puts its own page in place of an empty body from 300 on
        (300, b"", b" "),
        (301, b"", b" "),
        (302, b"", b" "),
        (302, b"moved", b"moved"),
        (401, b"", b" "),
        (401, b"who?", b"who?"),
        (503, b"", b" "),
        (999, b"", b" "),
        # no body at the client, whatever is sent
        (204, b"", b" "),
        (304, b"", b" "),
        (204, b"x", b" "),
        (304, b"x", b" "),
    ],
)
def test_filler_body(status: int, body: bytes, sent: bytes | None) -> None:
    assert stopped(status, [TYPED], body) == Stop(status, [TYPED], sent)


@pytest.mark.parametrize(
    ("status", "body", "sent"),
    [(200, b"", None), (302, b"", None), (401, b"", None), (401, b"x", b"x"), (204, b"x", None), (304, b"", None)],
)
def test_without_cures_there_is_no_filler(status: int, body: bytes, sent: bytes | None) -> None:
    assert stopped(status, [TYPED], body, cures=False) == Stop(status, [TYPED], sent)
    assert stopped(status, [], body, cures=False) == Stop(status, [], sent)


@pytest.mark.parametrize("status", [200, 204, 302, 304, 404])
def test_a_missing_content_type_stays_missing(status: int) -> None:
    assert stopped(status, [(b"x-a", b"1")]).headers == [(b"x-a", b"1"), UNTYPED]


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("body", [b"", b"hello"])
def test_head_with_its_content_length(status: int, body: bytes) -> None:
    # a framework may send the body of a HEAD, or leave it out
    found = stopped(status, [TYPED, (b"content-length", b"5")], body, "HEAD")
    assert found == Stop(status, [TYPED, (b"content-length", b"5")], b" ")
    assert stopped(status, [TYPED], body, "HEAD") == Stop(status, [TYPED], b" ")
    # without the filler the client would wait for the body
    assert stopped(status, [TYPED, (b"content-length", b"5")], body, "HEAD", False) == Stop(status, [TYPED])


@pytest.mark.parametrize(
    ("lengths", "told"),
    [([b"5", b"5"], [b"5"]), ([b"5", b"6"], [b"5"]), ([b"x"], []), ([b""], []), ([b"-1", b"7"], [b"7"])],
)
def test_head_tells_one_content_length(lengths: list[bytes], told: list[bytes]) -> None:
    headers = [TYPED, *((b"content-length", length) for length in lengths)]
    assert stopped(200, headers, b"", "HEAD").headers == [TYPED, *((b"content-length", length) for length in told)]


@pytest.mark.parametrize("status", [204, 304])
def test_no_content_length_without_a_body(status: int) -> None:
    # of a 304 it may be the one of the body that there would be
    assert stopped(status, [TYPED, (b"content-length", b"77")]) == Stop(status, [TYPED], b" ")


@pytest.mark.parametrize(
    "name", ["content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer"]
)
def test_framing_is_never_sent(name: str, caplog: pytest.LogCaptureFixture) -> None:
    value = b"5" if name == "content-length" else b"x"
    headers = [TYPED, (name.title().encode(), value), (b"x-a", b"1")]
    assert stopped(200, headers, b"hello") == Stop(200, [TYPED, (b"x-a", b"1")], b"hello")
    assert warnings(caplog) == []


def test_server_cannot_be_set(caplog: pytest.LogCaptureFixture) -> None:
    assert stopped(200, [TYPED, (b"Server", b"mine")], b"x") == Stop(200, [TYPED], b"x")
    assert warnings(caplog) == ["plugin p0: APISIX sends its own server header: this one is dropped"]


def test_empty_values(caplog: pytest.LogCaptureFixture) -> None:
    assert stopped(200, [TYPED, (b"x-a", b"")], b"x") == Stop(200, [TYPED], b"x")
    assert warnings(caplog) == ["plugin p0: an empty header deletes it in APISIX: the client gets no x-a"]


def test_an_empty_value_between_others_deletes_nothing() -> None:
    headers = [TYPED, (b"x-a", b"1"), (b"x-a", b""), (b"x-a", b"2")]
    assert stopped(200, headers, b"x").headers == [TYPED, (b"x-a", b"1"), (b"x-a", b"2")]


def test_an_empty_content_type_is_none() -> None:
    assert stopped(200, [UNTYPED], b"x") == Stop(200, [UNTYPED], b"x")


def test_order_repeats_and_bytes_are_kept() -> None:
    headers = [
        (b"Set-Cookie", b"a=1"), (b"vary", b"a"), (b"set-cookie", b"b=2; Path=/"), (b"vary", b"b"), TYPED,
        (b"www-authenticate", b"Basic"), (b"www-authenticate", b"Bearer"), (b"x-latin", b"caf\xe9"),
    ]  # fmt: skip
    found = stopped(401, headers, b"x")
    assert found == Stop(401, [(name.lower(), value) for name, value in headers], b"x")


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_location_and_encoding_are_sent(method: str) -> None:
    headers: list[TextEntry] = [TYPED, (b"location", b"/y"), (b"content-encoding", b"gzip"), (b"etag", b'"1"')]
    assert stopped(307, headers, b"", method) == Stop(307, headers, b" ")


def test_every_warning_comes_once_for_a_chain(caplog: pytest.LogCaptureFixture) -> None:
    stopped(200, [(b"server", b"a"), (b"server", b"b"), (b"x-a", b""), (b"x-a", b""), (b"x-b", b"")])
    assert len(warnings(caplog)) == 3
    assert errors(caplog) == []
