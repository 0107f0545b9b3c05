"""What a plugin needs of the request in the response phase, where the runner asks the gateway for each header.

Well-known middleware is listed here. For every other plugin the mount says it (option ``request_headers``), or the
default counts.
"""

import types
from collections.abc import Iterator, Mapping
from typing import Any

from .options import REQUEST_HEADERS

__all__ = ["default_headers", "known_headers", "named_headers"]

_KNOWN: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("asgi_correlation_id", "CorrelationIdMiddleware"): ("x-request-id",),
    ("asgi_etags", "ETagMiddleware"): ("if-match", "if-none-match"),
    ("brotli_asgi", "BrotliMiddleware"): ("accept-encoding",),
    ("msgpack_asgi", "MessagePackMiddleware"): ("accept", "content-type"),
    ("opentelemetry", "OpenTelemetryMiddleware"): ("host", "user-agent", "traceparent", "tracestate", "baggage"),
    ("piccolo_api", "CSPMiddleware"): (),
    ("secure", "SecureASGIMiddleware"): (),
    ("starlette", "CORSMiddleware"): ("origin", "cookie"),
    ("starlette", "GZipMiddleware"): ("accept-encoding",),
    ("starlette", "HTTPSRedirectMiddleware"): ("host",),
    ("starlette", "SessionMiddleware"): ("cookie",),
    ("starlette", "TrustedHostMiddleware"): ("host",),
    ("starlette_compress", "CompressMiddleware"): ("accept-encoding",),
    ("timing_asgi", "TimingMiddleware"): (),
    ("zstd_asgi", "ZstdMiddleware"): ("accept-encoding",),
}
"""Package and class of a middleware → the request headers that it reads when it runs around a response."""

_OF_WSGI = ("host", "accept-encoding", "authorization", "cookie", "content-length")
"""Headers that WSGI code gets by default. With a content-length it need not fetch the body to learn that there is one
(:mod:`asgi_bridge.wsgi.environ`)."""

_NAMES = frozenset(
    """
    accept accept-charset accept-encoding accept-language access-control-request-headers access-control-request-method
    authorization baggage content-length content-type cookie dnt expect forwarded from host if-match if-modified-since
    if-none-match if-range if-unmodified-since origin proxy-authorization range referer save-data sec-ch-ua
    sec-fetch-dest sec-fetch-mode sec-fetch-site te traceparent tracestate transfer-encoding
    upgrade-insecure-requests user-agent x-api-key x-b3-traceid x-correlation-id x-csrf-token x-csrftoken
    x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-real-ip x-request-id x-requested-with
    """.split()
)
"""Request headers that plugins read."""
_ALSO_OF_RESPONSES = frozenset({"content-length", "content-type", "transfer-encoding", "x-request-id"})
_WORDS = frozenset({"from", "te", "range", "host", "origin", "expect"})
"""Names that may be something else in code: an ordinary word."""


def known_headers(found: Any) -> tuple[str, ...] | None:
    """Return the request headers that well-known middleware needs in the response phase; None: it is another plugin.

    Args:
        found: What was mounted.
    """
    if isinstance(found, type):
        return _KNOWN.get((found.__module__.partition(".")[0], found.__name__))
    return None


def default_headers(source: str, found: Any) -> tuple[str, ...]:
    """Return the request headers that every other plugin gets in the response phase.

    Args:
        source: The kind of what was mounted, as of :class:`~.plugin.Plugin`.
        found: What was mounted.
    """
    made_of_wsgi = type(found).__module__.startswith("asgi_bridge.wsgi.") or _says_of_wsgi(found)
    return _OF_WSGI if made_of_wsgi or source in ("wsgi", "wsgi_middleware") else REQUEST_HEADERS


def _says_of_wsgi(found: Any) -> bool:
    try:
        return getattr(found, "of_wsgi", False) is True
    except Exception:  # an object's own code may raise
        return False


def named_headers(found: Any) -> list[str]:
    """Return the names of request headers that stand in the code of a class or function, sorted.

    The code may use them for something else. Names that responses have too, and those that are ordinary words, are
    left out.

    Args:
        found: What was mounted.
    """
    named: set[str] = set()
    for code in _codes(found):
        for constant in code.co_consts:
            parts = constant if isinstance(constant, tuple | frozenset) else (constant,)
            named.update(_header(part) for part in parts if isinstance(part, str | bytes))
    return sorted((named & _NAMES) - _ALSO_OF_RESPONSES - _WORDS)


def _header(constant: str | bytes) -> str:
    """Return the header that a constant would name, in WSGI's spelling too."""
    text = constant if isinstance(constant, str) else constant.decode("latin-1")
    return text.lower().replace("_", "-").removeprefix("http-")


def _codes(found: Any) -> Iterator[types.CodeType]:
    """Yield the code of a function and of those in it, or of all methods of a class or of an object's class."""
    if isinstance(found, types.MethodType):
        found = found.__func__
    if isinstance(found, types.FunctionType):
        yield from _nested(found.__code__)
        return
    for each in (found if isinstance(found, type) else type(found)).__mro__:
        for member in vars(each).values():
            function = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
            if isinstance(function, types.FunctionType):
                yield from _nested(function.__code__)


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)
