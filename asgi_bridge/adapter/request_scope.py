"""The scope of a request call, made of its message: the pure Python twin of ``_request_scope.pyx``.

This part runs with every call. It decides nothing: what an incomplete message, too many headers or an unknown origin
lead to is said in ``request.py``. ``scope.py`` chooses between the twins, and all other code takes them from there.
"""

import socket
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..errors import RemoteProtocolError
from ..wire import HTTPReqCallReq

__all__ = [
    "FORWARDED",
    "Args",
    "Headers",
    "build_scope",
    "checked_fields",
    "encode_query",
    "forwarded_origin",
    "needs_escaping",
]

Args = list[tuple[bytes, bytes | None]]
Headers = list[tuple[bytes, bytes]]

# What RFC 3986 lets stand in a path, and in a name or value of a query. The sub-delims that separate the parts of a
# query, and "+", which reads as a blank there, are escaped.
_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_IN_PATH = _UNRESERVED + b"/:@!$&'()*+,;="
_IN_QUERY = _UNRESERVED + b"/:@!$'()*,"


def _escapes(safe: bytes) -> list[bytes]:
    return [bytes((byte,)) if byte in safe else b"%%%02X" % byte for byte in range(256)]


def _only(safe: bytes) -> bytes:
    """Return a translation table that maps every string of safe bytes to itself."""
    return bytes(byte if byte in safe else safe[0] for byte in range(256))


_PATH_ESCAPES, _QUERY_ESCAPES = _escapes(_IN_PATH), _escapes(_IN_QUERY)
_ONLY_PATH = _only(_IN_PATH)
# Marks with "=" what stands between the parts of a query, and what must be escaped in them, but for blanks.
_MARKS = bytes(46 if byte in _IN_QUERY + b" " else 61 for byte in range(256))


def _escape(text: bytes, escapes: list[bytes]) -> bytes:
    """Return `text` percent-encoded. `escapes` holds what each byte becomes."""
    return b"".join([escapes[byte] for byte in text])


def encode_query(args: Args) -> bytes:
    """Return decoded arguments as a query string. An argument whose value is None has no ``=``."""
    try:
        query = b"&".join(map(b"=".join, args))  # type: ignore[arg-type]
    except TypeError:  # a None
        pass
    else:
        # nothing needs escaping, and the only separators are those between the parts
        if query.translate(_MARKS).count(b"=") == 2 * len(args) - 1:
            return query.replace(b" ", b"%20")
    parts = []
    for name, value in args:
        part = _escape(name, _QUERY_ESCAPES)
        parts.append(part if value is None else part + b"=" + _escape(value, _QUERY_ESCAPES))
    return b"&".join(parts)


FORWARDED = (b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port")
"""Headers that APISIX 3.x adds: scheme, host and port that the client used."""

_LOOKED_AT = frozenset((*FORWARDED, b"transfer-encoding"))


def forwarded_origin(index: Mapping[bytes, bytes]) -> tuple[str, tuple[str, int]] | None:
    """Return scheme and server that the client used, out of ``FORWARDED``; None: one of these headers is missing.

    Args:
        index: The request's headers.
    """
    proto = index.get(b"x-forwarded-proto")
    host = index.get(b"x-forwarded-host")
    if proto is None or host is None:
        return None
    port = index.get(b"x-forwarded-port", b"")
    if len(proto) + len(host) + len(port) > _CACHED_LENGTH:
        return _origin(proto, host, port)
    return _cached_origin(proto, host, port)


_CACHED_LENGTH = 256
"""Maximum length of an origin in the cache, in bytes. Clients make up hosts of any length."""


def _origin(proto: bytes, host: bytes, forwarded_port: bytes) -> tuple[str, tuple[str, int]] | None:
    scheme = proto.decode("latin-1").lower()
    if scheme not in ("http", "https"):
        return None
    name, port = _split_host(host)
    port = _port(forwarded_port) or port
    return scheme, (name.decode("latin-1"), port or (443 if scheme == "https" else 80))


_cached_origin = lru_cache(maxsize=1024)(_origin)


def _split_host(host: bytes) -> tuple[bytes, int | None]:
    name, colon, port = host.rpartition(b":")
    number = _port(port) if colon and not name.endswith(b":") else None
    if number is None:
        name = host
    return name[1:-1] if name.startswith(b"[") and name.endswith(b"]") else name, number


def _port(text: bytes) -> int | None:
    return int(text) if 0 < len(text) <= 5 and text.isdigit() and 0 < int(text) <= 65535 else None


def needs_escaping(path: bytes) -> bool:
    """Return whether a decoded path must be percent-encoded before it goes upstream."""
    return path.translate(_ONLY_PATH) != path


def _address(packed: bytes | None) -> str:
    # looked at before the cache, which would keep what is no address too, of any length
    return _cached_address(packed) if packed is not None and len(packed) in (4, 16) else ""


@lru_cache(maxsize=1024)
def _cached_address(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def checked_fields(message: HTTPReqCallReq) -> tuple[Headers, Args, dict[bytes, bytes]]:
    """Return the headers and arguments of a request, and the headers that decide how to go on, by name.

    Args:
        message: The request.

    Raises:
        RemoteProtocolError: A header or an argument has no name, or a header has no value.
    """
    args, headers = message.args or [], message.headers or []
    for name, _ in args:
        if name is None:
            raise RemoteProtocolError("an argument without a name")
    index: dict[bytes, bytes] = {}
    for name, value in headers:
        if name is None or value is None:
            raise RemoteProtocolError("a header without a name or value")
        if name in _LOOKED_AT:
            index[name] = value
    return headers, args, index  # type: ignore[return-value]


def build_scope(
    message: HTTPReqCallReq, headers: Headers, args: Args, origin: tuple[str, tuple[str, int]], app: Any
) -> dict[str, Any]:
    """Return the scope of a request, but for what each layer adds (``extensions.apisix``, ``state``).

    ``raw_path`` and ``query_string`` are rebuilt from what APISIX decoded: equal in meaning, not in bytes.

    Args:
        message: The request.
        headers: Its headers, checked to be complete.
        args: Its arguments, checked likewise.
        origin: Scheme and server.
        app: The host application.
    """
    path = message.path or b"/"
    safe = path.translate(_ONLY_PATH) == path  # `needs_escaping`, without the call
    host = _address(message.src_ip)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": message.method,
        "scheme": origin[0],
        "path": path.decode("utf-8", "replace"),
        "raw_path": path if safe else _escape(path, _PATH_ESCAPES),
        "query_string": encode_query(args) if args else b"",
        "root_path": "",
        "headers": headers,
        "client": (host, 0) if host else None,
        "server": origin[1],
        "extensions": {},
        "app": app,
    }
