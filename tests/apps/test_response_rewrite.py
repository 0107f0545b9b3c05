"""``response-rewrite`` changes status, headers and body of the upstream's response."""

import gzip
import json
import zlib
from typing import Any

import pytest
from asgi_bridge_apps import bridge
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from asgi_bridge import ConfigurationError
from asgi_bridge.testing import Gateway, PluginClient

BODY = "hello world, hello gateway"


async def plain(request: Request) -> Response:
    return PlainTextResponse(BODY, headers={"etag": '"1"', "x-upstream": "1"})


async def streamed(request: Request) -> Response:
    return StreamingResponse(iter([b"hello wor", b"ld, hello ", b"gateway"]), media_type="text/plain")


async def encoded(request: Request) -> Response:
    return PlainTextResponse(BODY, headers={"content-encoding": request.path_params["encoding"]})


def deflated(data: bytes, bits: int) -> bytes:
    compressor = zlib.compressobj(wbits=bits)
    return compressor.compress(data) + compressor.flush()


COMPRESSED = {
    "gzip": gzip.compress(BODY.encode()),
    "X-Gzip": gzip.compress(BODY.encode()),
    "deflate": zlib.compress(BODY.encode()),
    "Deflate": deflated(BODY.encode(), -zlib.MAX_WBITS),
}
BOMB = gzip.compress(b"0" * 2**24 + b"1")


async def compressed(request: Request) -> Response:
    encoding = request.path_params["encoding"]
    return Response(COMPRESSED[encoding], media_type="text/plain", headers={"content-encoding": encoding})


async def bomb(request: Request) -> Response:
    return Response(BOMB, headers={"content-encoding": "gzip"})


async def xs(request: Request) -> Response:
    return PlainTextResponse("x" * 5000)


async def nothing(request: Request) -> Response:
    return Response(status_code=204)


upstream = Starlette(
    routes=[
        Route("/", plain),
        Route("/stream", streamed),
        Route("/says/{encoding}", encoded),
        Route("/compressed/{encoding}", compressed),
        Route("/bomb", bomb),
        Route("/x", xs),
        Route("/204", nothing),
    ]
)


def through(conf: Any, upstream: Starlette = upstream) -> list[TestClient]:
    """Clients of the plugin as plain ASGI, and through the gateway."""
    listed = {"conf": [{"name": "response-rewrite", "value": json.dumps(conf)}]}
    route = {"uri": "/*", "plugins": {"ext-plugin-post-resp": listed}}
    return [PluginClient(bridge, "response-rewrite", conf, upstream=upstream),
            TestClient(Gateway(bridge, [route], upstream=upstream))]  # fmt: skip


@pytest.mark.parametrize("target", ["/", "/stream"])
@pytest.mark.parametrize(
    ("conf", "body"),
    [
        ({}, BODY),
        ({"body": "other"}, "other"),
        ({"filters": [{"regex": "hel+o", "replace": "bye"}]}, "bye world, hello gateway"),
        ({"filters": [{"regex": "hel+o", "scope": "once", "replace": "bye"}]}, "bye world, hello gateway"),
        ({"filters": [{"regex": "hel+o", "scope": "global", "replace": "bye"}]}, "bye world, bye gateway"),
        # it replaces the text of the first match, by a literal text
        ({"filters": [{"regex": r"\w+ld", "scope": "global", "replace": r"\0"}]}, r"hello \0, hello gateway"),
        ({"filters": [{"regex": "world, "}, {"regex": "hello hello", "replace": "hi"}]}, "hi gateway"),
        ({"filters": [{"regex": "nowhere", "replace": "x"}], "body": "does not count"}, BODY),
        ({"filters": [{"regex": "x*", "scope": "global", "replace": "x"}]}, BODY),
    ],
)
def test_the_body(target: str, conf: Any, body: str) -> None:
    for client in through(conf):
        found = client.get(target)
        assert (found.status_code, found.text) == (200, body)
        if body != BODY:
            assert "etag" not in found.headers


def test_status_and_headers() -> None:
    for client in through({"status": 418, "headers": {"X-Upstream": "2", "X-New": "1"}}):
        found = client.get("/")
        assert (found.status_code, found.text) == (418, BODY)
        names = ("x-upstream", "x-new", "etag", "x-resp-a6-runner")
        assert [found.headers.get_list(name) for name in names] == [["2"], ["1"], ['"1"'], ["Python"]]


def test_the_go_examples_header_can_be_set() -> None:
    for client in through({"headers": {"X-Resp-A6-Runner": "Go"}}):
        assert client.get("/").headers.get_list("x-resp-a6-runner") == ["Go"]


@pytest.mark.parametrize("encoding", ["br", "no-such", "gzip"])
def test_a_body_that_cannot_be_decoded_is_not_searched_but_may_be_replaced(
    encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    for client in through({"filters": [{"regex": "hello"}]}):
        with client:
            for _ in range(2):
                with client.stream("GET", f"/says/{encoding}") as found:
                    assert b"".join(found.iter_raw()).decode() == BODY
                    assert found.headers["content-encoding"] == encoding
    warning = f"response-rewrite: filters cannot search a body of content-encoding {encoding!r}"
    assert [message.partition(":")[0] for message in caplog.messages].count("response-rewrite") == 2
    assert all(warning in message for message in caplog.messages if message.startswith("response-rewrite"))
    for client in through({"body": "plain"}):
        found = client.get("/says/br")
        assert found.text == "plain"
        assert "content-encoding" not in found.headers


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_a_compressed_body_is_searched(encoding: str) -> None:
    for client in through({"filters": [{"regex": "hello", "replace": "bye"}]}):
        found = client.get(f"/compressed/{encoding}")
        assert found.text == "bye world, hello gateway"
        assert "content-encoding" not in found.headers
    for client in through({"filters": [{"regex": "nothing", "replace": "bye"}]}):
        with client.stream("GET", f"/compressed/{encoding}") as unchanged:
            assert b"".join(unchanged.iter_raw()) == COMPRESSED[encoding]


@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(b"hel") + gzip.compress(b"lo world, hello gateway"),
        gzip.compress(b"hello") * 3,
        gzip.compress(b"hello") + bytes(8),
        gzip.compress(b"hello") + b"hello",
        gzip.compress(b"hello")[:-1],
    ],
    ids=["two members", "three members", "padded", "plain text behind", "cut off"],
)
def test_a_compressed_body_that_is_not_one_whole_member_passes_as_it_came(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(request: Request) -> Response:
        return Response(body, headers={"content-encoding": "gzip"})

    for client in through({"filters": [{"regex": "hello", "replace": "bye"}]}, Starlette(routes=[Route("/", app)])):
        with client.stream("GET", "/") as found:
            assert b"".join(found.iter_raw()) == body
        assert found.headers["content-encoding"] == "gzip"
    assert caplog.text.count("filters cannot search a body of content-encoding 'gzip'") == 2


@pytest.mark.parametrize(
    ("lines", "compressions", "found"),
    [
        (["identity"], 0, b"bye"),
        (["Identity, gzip"], 1, b"bye"),
        (["gzip", "identity"], 1, b"bye"),
        (["gzip", "gzip"], 2, None),
        (["gzip, gzip"], 2, None),
    ],
)
def test_all_lines_of_content_encoding_count(
    lines: list[str], compressions: int, found: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    body = b"hello"
    for _ in range(compressions):
        body = gzip.compress(body)

    async def app(request: Request) -> Response:
        response = Response(body)
        for line in lines:
            response.headers.append("content-encoding", line)
        return response

    for client in through({"filters": [{"regex": "hello", "replace": "bye"}]}, Starlette(routes=[Route("/", app)])):
        with client.stream("GET", "/") as answer:
            assert b"".join(answer.iter_raw()) == (body if found is None else found)
    assert caplog.text.count("content-encoding 'gzip, gzip'") == (2 if found is None else 0)


def test_a_compressed_body_that_is_too_long_is_not_searched(caplog: pytest.LogCaptureFixture) -> None:
    (client, _) = through({"filters": [{"regex": "0", "replace": "1"}]})
    with client.stream("GET", "/bomb") as found:
        assert b"".join(found.iter_raw()) == BOMB
    assert "filters cannot search a body of content-encoding 'gzip'" in caplog.text


def test_no_body_makes_a_filter_slow() -> None:
    """Python's own regular expressions would take practically for ever."""
    (client, _) = through({"filters": [{"regex": "(x+x+)+y"}]})
    assert client.get("/x").text == "x" * 5000


def test_a_response_without_a_body_gets_none() -> None:
    for client in through({"body": "other", "headers": {"x-new": "1"}}):
        found = client.get("/204")
        assert (found.status_code, found.content, found.headers["x-new"]) == (204, b"", "1")


@pytest.mark.parametrize(("conf", "length"), [({"body": "other"}, "5"), ({"filters": [{"regex": "hello"}]}, None)])
def test_head(conf: Any, length: str | None) -> None:
    for client in through(conf):
        found = client.head("/")
        assert (found.status_code, found.content, found.headers.get("content-length")) == (200, b"", length)


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"filters": [{"regex": "("}]}, r"not a regular expression of RE2: missing \)"),
        ({"filters": [{"regex": "(?=a)"}]}, r"RE2: invalid perl operator \(RE2 has no look-around"),
        ({"filters": [{"regex": "(?<!a)b"}]}, r"RE2: invalid perl operator \(RE2 has no look-around"),
        ({"filters": [{"regex": "(?x)a"}]}, r"RE2: invalid perl operator \(.* no flags but imsU\)"),
        ({"filters": [{"regex": r"(a)\1"}]}, r"RE2: invalid escape sequence \(RE2 has no back-references"),
        ({"filters": [{"regex": r"a\Z"}]}, r"RE2: invalid escape sequence \(.* no \\Z \(write \\z\)"),
        ({"filters": [{"regex": "a++"}]}, r"RE2: bad repetition operator \(RE2 has no possessive"),
        ({"filters": [{"regex": "a{1001}"}]}, r"RE2: invalid repetition size \(RE2 repeats 1000 times at most\)"),
        ({"filters": [{"regex": ""}]}, "String should have at least 1 character"),
        ({"filters": [{"regex": "a", "scope": "twice"}]}, "Input should be 'once' or 'global'"),
        ({"filters": {"regex": "a"}}, "Input should be a valid array"),
        ({"status": 99}, "greater than or equal to 200"),
        ({"headers": {"content-length": "1"}}, "belongs to one connection"),
        ({"status_code": 200}, "Extra inputs are not permitted"),
    ],
)
def test_refuses_a_bad_configuration(conf: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"plugin response-rewrite: .*{reason}"):
        PluginClient(bridge, "response-rewrite", conf).get("/")
