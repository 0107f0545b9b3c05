"""A request message as an ASGI scope (ASGI HTTP spec 2.4), and the encodings that go with it.

Plain functions: between calls nothing is kept but one cache of bounded size.
"""

import socket
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

from ..plugins import Chain
from ..wire import HTTPReqCallReq, HTTPRespCallReq

__all__ = [
    "EXACT_VARIABLES",
    "FORWARDED",
    "RESPONSE_VARIABLES",
    "build_scope",
    "encode_query",
    "exact_scope",
    "first_variables",
    "forwarded_origin",
    "needs_escaping",
    "origin_of_variables",
    "parse_query",
    "response_scope",
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
_ONLY_PATH, _ONLY_QUERY = _only(_IN_PATH), _only(_IN_QUERY + b" =&")


def _escape(text: bytes, escapes: list[bytes]) -> bytes:
    """Return `text` percent-encoded. `escapes` holds what each byte becomes."""
    return b"".join([escapes[byte] for byte in text])


ORIGIN_VARIABLES = ("scheme", "http_host", "server_addr", "server_port")
EXACT_VARIABLES = (*ORIGIN_VARIABLES, "server_protocol", "real_request_uri", "remote_port", "request_id")
"""Variables that a call asks for, in one round trip, if one of its plugins is mounted with ``exact``."""

RESPONSE_VARIABLES = (
    *EXACT_VARIABLES, "request_method", "uri", "remote_addr", "http_content_length", "http_transfer_encoding",
)  # fmt: skip
"""Variables that every response call asks for, beside the headers that its plugins want."""


def encode_query(args: Args) -> bytes:
    """Return decoded arguments as a query string. An argument whose value is None has no ``=``."""
    try:
        query = b"&".join(map(b"=".join, args))  # type: ignore[arg-type]
    except TypeError:  # a None
        pass
    else:
        # what needs no escaping, and of the separators no more than those between the parts
        count = len(args)
        if query.translate(_ONLY_QUERY) == query and query.count(b"=") == count and query.count(b"&") == count - 1:
            return query.replace(b" ", b"%20")
    parts = []
    for name, value in args:
        part = _escape(name, _QUERY_ESCAPES)
        parts.append(part if value is None else part + b"=" + _escape(value, _QUERY_ESCAPES))
    return b"&".join(parts)


def parse_query(query: bytes) -> Args:
    """Return the decoded arguments of a query string as APISIX reads it: ``+`` is a blank, empty names are dropped."""
    args: Args = []
    for part in query.split(b"&"):
        name, equals, value = part.partition(b"=")
        name = unquote_to_bytes(name.replace(b"+", b" "))
        if name:
            args.append((name, unquote_to_bytes(value.replace(b"+", b" ")) if equals else None))
    return args


FORWARDED = (b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port")
"""Headers that APISIX 3.x adds: scheme, host and port that the client used."""


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


def origin_of_variables(found: Mapping[str, bytes | None]) -> tuple[str, tuple[str, int]]:
    """Return scheme and server of the client's connection to the gateway, out of ``ORIGIN_VARIABLES``."""
    scheme = (found.get("scheme") or b"http").decode("latin-1").lower()
    address = (found.get("server_addr") or b"").decode("latin-1")
    port = found.get("server_port") or b""
    return scheme, (address, int(port) if port.isdigit() else (443 if scheme == "https" else 80))


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


def first_variables(message: HTTPReqCallReq | HTTPRespCallReq, chain: Chain) -> tuple[str, ...]:
    """Return what a call asks for before anything runs, if it asks: ``$request_id`` among it, and perhaps some more.

    Args:
        message: The call.
        chain: Its plugins.
    """
    if type(message) is HTTPReqCallReq:
        return (*EXACT_VARIABLES, "uri")
    return (*RESPONSE_VARIABLES, *(f"http_{name.replace('-', '_')}" for name in chain.request_headers))


def exact_scope(scope: dict[str, Any], found: Mapping[str, bytes | None]) -> None:
    """Put what the client really sent into `scope`, out of ``EXACT_VARIABLES``. ``path`` stays as APISIX has it."""
    target = found.get("real_request_uri")
    if target is not None:
        raw_path, _, query = target.partition(b"#")[0].partition(b"?")
        if raw_path.startswith(b"/"):
            scope["raw_path"] = raw_path
        scope["query_string"] = query
    protocol = found.get("server_protocol") or b""
    if protocol.startswith(b"HTTP/"):
        scope["http_version"] = protocol[5:].decode("latin-1").removesuffix(".0") if protocol != b"HTTP/1.0" else "1.0"
    scope["scheme"], scope["server"] = origin_of_variables(found)
    port = found.get("remote_port") or b""
    if scope["client"] is not None and port.isdigit():
        scope["client"] = (scope["client"][0], int(port))
    host = found.get("http_host")
    if host is not None:
        scope["headers"] = [(name, host if name == b"host" else value) for name, value in scope["headers"]]


def response_scope(found: Mapping[str, bytes | None], names: Sequence[str], app: Any) -> dict[str, Any]:
    """Return the scope of a request in the response phase, out of ``RESPONSE_VARIABLES``: no message brings it.

    Args:
        found: The variables, ``http_NAME`` for each of `names` among them.
        names: The request headers that were asked for.
        app: The host application.
    """
    headers: Headers = []
    for name in names:
        value = found["http_" + name.replace("-", "_")]
        if value is not None:
            headers.append((name.encode("latin-1"), value))
    for variable, header in (
        (b"http_content_length", b"content-length"),
        (b"http_transfer_encoding", b"transfer-encoding"),
    ):
        value = found[variable.decode()]
        if value and header.decode() not in names:
            headers.append((header, value))
    path = found["uri"] or b"/"
    address = (found["remote_addr"] or b"").decode("latin-1")
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": (found["request_method"] or b"GET").decode("latin-1"),
        "scheme": "http",
        "path": path.decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": (address, 0) if address else None,
        "server": ("", 80),
        "extensions": {},
        "app": app,
    }
    exact_scope(scope, found)
    return scope
