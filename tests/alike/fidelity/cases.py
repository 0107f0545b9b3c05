"""The requests that each middleware is tried with, and the limits that some of them meet."""

import json
from base64 import b64encode

import itsdangerous

from ..compare import Request, get, sent
from .subjects import SECRET, SUBJECTS

__all__ = ["CASES", "EXCEPTIONS", "OWN"]


def session_of(content: object) -> str:
    """Return the cookie of a session, signed as SessionMiddleware signs it."""
    signed = itsdangerous.TimestampSigner(SECRET).sign(b64encode(json.dumps(content).encode()))
    return f"session={signed.decode()}"


TAG = '"tag"'
COMMON = [
    get("/text"),
    get("/text?size=3000", accept_encoding="gzip, br"),
    get("/text?size=3000", accept_encoding="br"),
    get("/text?size=3000", origin="https://a.test", cookie="a=1; b=2"),
    sent("HEAD", "/text?size=300"),
    sent("HEAD", "/text?size=3000", origin="https://a.test"),
    sent("HEAD", "/files/file.txt"),
    sent("HEAD", "/status/204"),
    sent("HEAD", "/status/404"),
    sent("POST", "/echo", b'{"a": 1}', content_type="application/json"),
    sent("POST", "/echo", bytes(range(256)) * 40, content_type="application/octet-stream", x_a="1"),
    sent("POST", "/echo", b"x" * 300_000),
    sent("PUT", "/echo", b"put", origin="https://b.test"),
    sent("PATCH", "/echo?a=1", b"patch"),
    sent("DELETE", "/echo?a=1&b=%20x&a=2&c"),
    sent("OPTIONS", "/echo"),
    get("/echo/a%20b%3Fc", x_a="a", cookie="a=1"),
    get("/echo?q=%C3%BC+%26&q=2", accept="text/html;q=0.5, */*"),
    get("/page", origin="https://a.test"),
    get("/data?n=500"),
    get("/data?n=500", accept_encoding="gzip"),
    get("/stream?n=3"),
    get("/stream?n=200", accept_encoding="gzip"),
    get("/stream?n=5&type=text/event-stream", accept_encoding="gzip"),
    sent("POST", "/stream?n=3", b"x"),
    get("/cookies"),
    sent("POST", "/cookies", b"x", origin="https://a.test"),
    get("/encoded", accept_encoding="gzip"),
    get("/image", accept_encoding="gzip"),
    get("/untyped"),
    get("/files/file.txt", range="bytes=0-99"),
    get("/files/file.txt", range="bytes=-5", accept_encoding="gzip"),
    get("/files/file.txt", range="bytes=9000-"),
    get("/files/file.txt", if_modified_since="Sun, 13 Sep 2020 12:26:40 GMT"),
    get("/files/file.txt", if_modified_since="Sat, 12 Sep 2020 12:26:40 GMT"),
    get("/files/file.txt", if_none_match='"another"'),
    get("/files/nothing"),
    get("/status/204"),
    sent("POST", "/status/204", b"x"),
    get("/status/304", if_none_match='"of-it"'),
    get("/status/201"),
    get("/status/400"),
    get("/status/401", accept_encoding="gzip"),
    get("/status/418", origin="https://a.test"),
    sent("PUT", "/status/503", b"x"),
    get("/redirect"),
    get("/empty/200"),
    get("/empty/404"),
    Request(
        "GET", "/echo", (("x-a", "1"), ("x-a", "2"), ("cookie", "a=1"), ("accept", "text/html"), ("accept", "*/*"))
    ),
]
"""Requests that every middleware is tried with."""

OWN: dict[str, list[Request]] = {
    "cors": [
        sent("OPTIONS", "/echo", origin="https://a.test", access_control_request_method="PUT"),
        sent("OPTIONS", "/echo", origin="https://a.test", access_control_request_method="DELETE"),
        sent("OPTIONS", "/echo", origin="https://c.test", access_control_request_method="GET"),
        sent(
            "OPTIONS",
            "/echo",
            origin="https://b.test",
            access_control_request_method="GET",
            access_control_request_headers="x-a, content-type",
        ),
        sent(
            "OPTIONS",
            "/echo",
            origin="https://b.test",
            access_control_request_method="GET",
            access_control_request_headers="x-b",
        ),
        get("/echo", origin="https://c.test"),
        get("/cookies", origin="https://b.test", cookie="a=1"),
        get("/status/304", origin="https://a.test"),
        get("/stream?n=9", origin="https://a.test"),
        get("/stream?n=0", origin="https://a.test"),
        get("/tagged", origin="https://a.test"),
        get("/tagged", origin="https://a.test", if_none_match=TAG),
        get("/bare", origin="https://a.test"),
    ],
    "gzip": [
        get("/text?size=499", accept_encoding="gzip"),
        get("/text?size=500", accept_encoding="gzip"),
        get("/text?size=300000", accept_encoding="gzip"),
        get("/files/file.json", accept_encoding="gzip"),
        get("/files/file.json", accept_encoding="gzip", range="bytes=0-9"),
        get("/stream?n=1", accept_encoding="gzip"),
        get("/stream?n=0", accept_encoding="br"),
        get("/page", accept_encoding="gzip;q=1.0"),
        get("/status/500", accept_encoding="gzip"),
        sent("HEAD", "/text?size=3000", accept_encoding="gzip"),
        get("/bare", accept_encoding="gzip"),
        get("/echo/a%2Fb"),
    ],
    "session": [
        get("/echo", cookie=session_of({"visits": 4})),
        get("/echo?quiet", cookie=session_of({"visits": 4})),
        get("/echo?quiet"),
        get("/echo?logout", cookie=session_of({"visits": 4})),
        get("/echo", cookie="session=forged"),
        get("/cookies", cookie=session_of({"visits": 1, "name": "ü"}) + "; other=1"),
        sent("POST", "/status/204", b"x", cookie=session_of({"visits": 7})),
        sent("HEAD", "/text", cookie=session_of({"visits": 7})),
        get("/status/404", cookie=session_of({"visits": 7})),
        get("/redirect", cookie=session_of({})),
    ],
    "trusted-host": [
        get("/echo", host="a.test:8000"),
        get("/echo", host="x.b.test"),
        get("/echo", host="b.test"),
        get("/echo", host="evil.test"),
        sent("HEAD", "/echo", host="evil.test"),
        sent("POST", "/echo", b"x", host="evil.test"),
        get("/echo/a%20b?c=%20d&e", host="c.test"),
        sent("HEAD", "/echo?a=1&b=2&a=3", host="c.test"),
        sent("HEAD", "/echo", host="c.test:8000", x_listener_tls="1"),
        get("/echo", host="A.test"),
    ],
    "https-redirect": [
        *[Request(one.method, one.target, (*one.headers, ("x-listener-tls", "1")), one.body) for one in COMMON],
        sent("HEAD", "/echo/a%2Fb/%7Ec?a=%20b", host="a.test:80"),
        sent("HEAD", "/echo?b=2&a=1&b=3", host="[::1]:8000"),
        sent("HEAD", "/", host="a.test:443"),
        sent("HEAD", "/echo/a%20b%3Fc"),
        get("/echo/a%20b%3Fc?d=%20e&f", host="a.test:80"),
        sent("POST", "/echo", b"x", origin="https://a.test"),
    ],
    "authentication": [
        get("/echo", authorization="User ann"),
        get("/echo?a=1", authorization="Bearer x"),
        sent("HEAD", "/echo", authorization="Bearer x"),
        sent("POST", "/echo", b"x", authorization="user bob"),
        sent("POST", "/echo", b"x", authorization="Basic bob"),
        get("/echo/a%20b", authorization="user bob", x_user="forged"),
    ],
    "base-http": [
        get("/echo", x_refuse="1"),
        sent("POST", "/echo", b"x", x_refuse="1"),
        get("/echo", x_drop="1", x_a="2"),
        get("/echo?move=1"),
        sent("POST", "/echo?move=1", b"moved"),
        get("/echo/a%20b?move=1"),
        get("/text?size=200", x_shout="1"),
        get("/stream?n=20", x_shout="1"),
        get("/status/404", x_shout="1"),
        sent("POST", "/echo", b"body", x_shout="1"),
        sent("HEAD", "/echo", x_refuse="1"),
    ],
    "server-error": [
        get("/text", x_fault="before"),
        sent("POST", "/echo", b"x", x_fault="before"),
        sent("POST", "/echo", b"x", x_fault="read"),
        sent("HEAD", "/text", x_fault="before"),
        get("/text", x_fault="start"),
        get("/text", x_fault="start", accept="text/html"),
        sent("POST", "/status/204", b"x", x_fault="start"),
        get("/cookies", x_fault="start"),
        get("/text", x_fault="after"),
        get("/raising"),
    ],
    "server-error-handler": [
        get("/text", x_fault="before"),
        get("/text", x_fault="start"),
        sent("PUT", "/echo", b"x", x_fault="read"),
        get("/status/304", x_fault="start"),
        get("/raising"),
    ],
}


PLAIN_REDIRECT = [
    one for one in OWN["https-redirect"] if one.method != "HEAD" and ("x-listener-tls", "1") not in one.headers
]
EXCEPTIONS: dict[tuple[str, Request], str] = {
    **{("https-redirect", one): "blank" for one in PLAIN_REDIRECT},
    ("trusted-host", get("/echo/a%20b?c=%20d&e", host="c.test")): "blank",
    ("cors", get("/stream?n=0", origin="https://a.test")): "empty stream",
    ("gzip", get("/stream?n=0", accept_encoding="br")): "empty stream",
    ("cors", get("/tagged", origin="https://a.test", if_none_match=TAG)): "conditions",
    ("cors", get("/bare", origin="https://a.test")): "charset",
    ("gzip", get("/bare", accept_encoding="gzip")): "charset",
    ("trusted-host", sent("PUT", "/status/503", b"x")): "upstream status",
    ("authentication", sent("PUT", "/status/503", b"x")): "upstream status",
    ("https-redirect", sent("PUT", "/status/503", b"x", x_listener_tls="1")): "upstream status",
    ("gzip", sent("HEAD", "/text?size=3000", origin="https://a.test")): "HEAD has no body",
    ("gzip", sent("HEAD", "/text?size=3000", accept_encoding="gzip")): "HEAD has no body",
    ("gzip", get("/echo/a%20b%3Fc", x_a="a", cookie="a=1")): "path",
    ("gzip", get("/echo/a%2Fb")): "escaped slash",
}
"""Middleware and request → name of the limit that they meet."""

CASES = [
    (subject.name, request)
    for subject in SUBJECTS
    for request in (COMMON if subject.name != "https-redirect" else []) + OWN[subject.name]
]
"""All middleware with all its requests."""
