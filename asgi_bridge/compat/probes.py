"""The probes: requests, and responses of an upstream, that show what a plugin does."""

from dataclasses import dataclass

__all__ = ["KEYS", "PAGE", "PROBES", "RESPONSES", "Probe", "Response"]

SLOW_SECONDS = 0.03
"""Seconds that the slow upstream takes: more than a clock's rounding error."""
_HTML = b"<html><body>" + b"<p>probe</p>" * 200 + b"</body></html>"


@dataclass(frozen=True)
class Probe:
    """A request to try a plugin on; `headers` are further ones, in addition to those of all probes."""

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
"""Requests of different kinds. The upstream answers each of them with PAGE."""


@dataclass(frozen=True)
class Response:
    """A response of the upstream.

    Attributes:
        name: What is special about it.
        status: Its status.
        body: Its body.
        content_type: Its content-type; not sent where there is no body.
        length: True: it has a content-length.
        headers: Further ones, in addition to those of all responses.
        seconds: How long the upstream takes to answer.
    """

    name: str = ""
    status: int = 200
    body: bytes = _HTML
    content_type: bytes = b"text/html; charset=utf-8"
    length: bool = True
    headers: tuple[tuple[bytes, bytes], ...] = ()
    seconds: float = 0.0


PAGE = Response()
"""The page that the upstream answers each of PROBES with."""

RESPONSES = (
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
"""Further responses of the upstream, each of them to the first probe."""

KEYS = ((b"idempotency-key", b"8e03978e-40d5-43dd-bc93-6894a57f9324"), (b"x-idempotency-key", b"8e03978e"))
"""Headers that make a request one that a plugin may answer with the response to an earlier request."""
