"""Middleware that changes the body: compression and other formats."""

import gzip

import msgpack

from ...compare import Request, get, sent
from ..gate import etag
from ..stage import COMMON, Row

__all__ = ["ROWS"]

JSON = "application/json"
MSGPACK = "application/vnd.msgpack"
TEXT = b"All work and no play. "
"""Body of the upstream's ``/text``."""


def compressed(encoding: str) -> list[Request]:
    return [
        get("/text?size=3000", accept_encoding=encoding),
        get("/text?size=3000", accept_encoding=f"deflate, {encoding};q=0.9"),
        get("/text?size=20", accept_encoding=encoding),
        get("/json?size=200", accept_encoding=encoding),
        get("/page", accept_encoding=encoding),
        get("/stream", accept_encoding=encoding),
        get("/encoded", accept_encoding=f"{encoding}, br"),
        get("/image", accept_encoding=encoding),
        get("/text?size=3000", accept_encoding="gzip"),
        get("/status/404", accept_encoding=encoding),
        sent("HEAD", "/text?size=3000", accept_encoding=encoding),
        sent("POST", "/echo", b"x" * 3000, accept_encoding=encoding),
    ]


ROWS = [
    Row(
        "etags",
        "asgi-etags",
        {
            "etags": {
                "middleware": "asgi_etags:ETagMiddleware",
                "phase": "both",
                "defaults": {"etag_generator": "tests.alike.ecosystem.gate:etag"},
            }
        },
        "both",
        [
            get("/text"),
            get("/text", if_none_match=etag(TEXT)),
            get("/text", if_none_match='"another"'),
            get("/text", if_match=etag(TEXT)),
            sent("POST", "/echo", b"x"),
            get("/text?size=3000"),
        ],
        # It starts the response again for each part of a stream, which no server can send. It adds a second etag to the
        # upstream's own.
        common=[each for each in COMMON if each.target not in ("/own", "/stream")],
        remark="compiled: a route may configure any JSON object",
    ),
    Row(
        "brotli",
        "brotli-asgi",
        {"brotli": {"middleware": "brotli_asgi:BrotliMiddleware", "phase": "response"}},
        "response",
        compressed("br"),
        conf={"quality": 5},
        limits=["path"],
    ),
    Row(
        "zstd",
        "zstd-asgi",
        {"zstd": {"middleware": "zstd_asgi:ZstdMiddleware", "phase": "response"}},
        "response",
        compressed("zstd"),
        conf={"level": 5},
        limits=["path"],
    ),
    Row(
        "compress",
        "starlette-compress",
        {"compress": {"middleware": "starlette_compress:CompressMiddleware", "phase": "response"}},
        "response",
        [*compressed("zstd"), *compressed("br"), *compressed("gzip")],
        conf={"minimum_size": 400},
        limits=["path"],
    ),
    Row(
        "gzip-request",
        "starlette-gzip-request",
        {
            "gzip-request": {
                "middleware": "starlette.middleware.exceptions:ExceptionMiddleware",
                "phase": "request",
            },
            "gunzip": {"middleware": "starlette_gzip_request:GZipRequestMiddleware", "phase": "request"},
        },
        "request",
        [
            sent("POST", "/echo", gzip.compress(b'{"a": 1}', mtime=0), content_encoding="gzip", content_type=JSON),
            sent("POST", "/echo", gzip.compress(b"x" * 30000, mtime=0), content_encoding="gzip"),
            sent("PUT", "/echo", gzip.compress(b"put", mtime=0), content_encoding="gzip", content_type="text/plain"),
            sent("POST", "/echo", b"not gzip", content_encoding="gzip"),
            sent("POST", "/echo", gzip.compress(b"x" * 300, mtime=0)[:-9], content_encoding="gzip"),
            sent("POST", "/echo", b"x", content_encoding="br"),
        ],
        inside=[("gunzip", {})],
        remark="it raises HTTPException: Starlette's ExceptionMiddleware listed before it answers 422",
    ),
    Row(
        "msgpack",
        "msgpack-asgi",
        {
            "msgpack": {
                "middleware": "msgpack_asgi:MessagePackMiddleware",
                "phase": "response",
                "request_headers": ["accept", "content-type"],
            }
        },
        "response",
        [
            get("/json", accept=MSGPACK),
            get("/json?size=500", accept=MSGPACK),
            get("/json", accept=JSON),
            get("/page", accept=MSGPACK),
            get("/image", accept=MSGPACK),
            get("/status/404", accept=MSGPACK),
            sent("POST", "/echo", b"{}", content_type=JSON, accept=MSGPACK),
        ],
        limits=["path"],
        remark="answers; for requests see the next row",
    ),
    Row(
        "msgpack-request",
        "msgpack-asgi",
        {"msgpack-request": {"middleware": "msgpack_asgi:MessagePackMiddleware", "phase": "request"}},
        "request",
        [
            sent("POST", "/echo", msgpack.packb({"a": [1, 2, None]}), content_type=MSGPACK),
            sent("PUT", "/echo", msgpack.packb("text"), content_type=MSGPACK),
            sent("POST", "/echo", msgpack.packb({"a": "x" * 5000}), content_type=MSGPACK),
            sent("POST", "/echo", b"\xc1", content_type=MSGPACK, limit="fault"),
            sent("POST", "/echo", b'{"a": 1}', content_type=JSON),
        ],
        remark="a body of another length cannot go with ext-plugin-post-resp on the same route",
    ),
]
