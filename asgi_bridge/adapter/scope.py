"""A request message as an ASGI scope (ASGI HTTP spec 2.4), and the encodings that go with it.

Plain functions: between calls nothing is kept but one cache of bounded size.
"""

import re
import socket
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

from ..plugins import Chain
from ..wire import HTTPReqCallReq, HTTPRespCallReq

__all__ = [
    "EXACT_VARIABLES",
    "FORWARDED",
    "PARKED_VARIABLES",
    "RESPONSE_VARIABLES",
    "RESUMING_VARIABLES",
    "build_scope",
    "encode_query",
    "exact_scope",
    "first_variables",
    "forwarded_origin",
    "needs_escaping",
    "origin_of_variables",
    "parse_query",
    "response_scope",
    "response_variables",
    "split_request_line",
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


# Each variable costs nginx and the runner some microseconds, so calls ask for few. $request is the request line as the
# client sent it, whatever plugins of APISIX have made of the request. It gives method, target and HTTP version at once,
# in HTTP/2 too.
ORIGIN_VARIABLES = ("scheme", "http_host", "server_addr", "server_port")
EXACT_VARIABLES = (*ORIGIN_VARIABLES, "request", "remote_port", "request_id")
"""Variables that a request call asks for, in one round trip, if one of its plugins is mounted with ``exact``."""

PARKED_VARIABLES = ("request_id", "request")
"""Variables that every other request call asks for if it will be parked."""

RESPONSE_VARIABLES = ("request_id", "request", "uri", "remote_addr", "scheme")
"""Variables that a response call asks for, beside the headers that its plugins want. $uri is the path as nginx decodes
it, which only nginx can make of the request line."""

EXACT_RESPONSE_VARIABLES = ("http_host", "server_addr", "server_port", "remote_port")
"""Variables that it asks for as well, if one of its plugins is mounted with ``exact``."""

RESUMING_VARIABLES = ("request_id",)
"""Variables that it asks for if all of its plugins run in both phases, and so should be parked already."""


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


def first_variables(message: HTTPReqCallReq | HTTPRespCallReq, chain: Chain, ask_origin: bool) -> tuple[str, ...]:
    """Return what a call asks for before anything runs, if it asks: ``$request_id`` among it, and perhaps some more.

    Args:
        message: The call.
        chain: Its plugins.
        ask_origin: True: scheme and server are not read from the ``x-forwarded-*`` headers.
    """
    if type(message) is not HTTPReqCallReq:
        return RESUMING_VARIABLES if chain.resumes else response_variables(chain)
    names: tuple[str, ...] = EXACT_VARIABLES
    if not (ask_origin or chain.exact):
        # of a call that nobody has checked yet
        index = {name: value for name, value in message.headers or () if name is not None and value is not None}
        if forwarded_origin(index) is not None:
            same_host = index.get(b"host") == index[b"x-forwarded-host"]
            names = PARKED_VARIABLES if same_host else (*PARKED_VARIABLES, "http_host")
    # where the path needs escaping, a parked call has to know whether it is the client's own
    return (*names, "uri") if chain.both and needs_escaping(message.path or b"/") else names


def response_variables(chain: Chain) -> tuple[str, ...]:
    """Return the variables that make the scope of a response call."""
    return _response_variables(chain.request_headers, chain.exact)


@lru_cache(maxsize=256)
def _response_variables(headers: tuple[str, ...], exact: bool) -> tuple[str, ...]:
    wanted = [variable for variable, _ in _header_variables(headers)]
    return tuple(dict.fromkeys((*RESPONSE_VARIABLES, *(EXACT_RESPONSE_VARIABLES if exact else ()), *wanted)))


@lru_cache(maxsize=256)
def _header_variables(headers: tuple[str, ...]) -> list[tuple[str, bytes]]:
    """Return the variable of each header, and its name in a scope."""
    return [("http_" + name.replace("-", "_"), name.encode("latin-1")) for name in headers]


def split_request_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Return method, target and protocol of ``$request``. HTTP/0.9 has no protocol, which is empty then.

    Older versions of nginx take a target with blanks, so the protocol is what stands behind the last of them. A target
    that is a whole URL is cut down to what stands behind its host, as nginx does for ``$request_uri``.
    """
    method, _, rest = line.strip(b" ").partition(b" ")
    target, _, protocol = rest.rpartition(b" ")
    if not protocol.startswith(b"HTTP/"):
        target, protocol = rest, b""
    target = target.strip(b" ")
    if not target.startswith(b"/"):
        behind_host = _is_url(target)
        if behind_host is not None:
            target = behind_host[1] or b"/"
    return method, target, protocol


_is_url = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*(.*)", re.DOTALL).fullmatch


def exact_scope(scope: dict[str, Any], found: Mapping[str, bytes | None]) -> tuple[bytes, bytes]:
    """Put what the client really sent into `scope`, as far as it was asked for. ``path`` stays as APISIX has it.

    Args:
        scope: The scope.
        found: Variables, of those in ``EXACT_VARIABLES``.

    Returns:
        Method and protocol, empty where they are not known.
    """
    method, target, protocol = split_request_line(found.get("request") or b"")
    if target:
        raw_path, _, query = target.partition(b"#")[0].partition(b"?")
        if raw_path.startswith(b"/"):
            scope["raw_path"] = raw_path
        scope["query_string"] = query
    if protocol:
        scope["http_version"] = protocol[5:].decode("latin-1").removesuffix(".0") if protocol != b"HTTP/1.0" else "1.0"
    if "server_addr" in found:
        scope["scheme"], scope["server"] = origin_of_variables(found)
    port = found.get("remote_port") or b""
    if scope["client"] is not None and port.isdigit():
        scope["client"] = (scope["client"][0], int(port))
    host = found.get("http_host")
    if host is not None:
        scope["headers"] = [(name, host if name == b"host" else value) for name, value in scope["headers"]]
    return method, protocol


def response_scope(found: Mapping[str, bytes | None], names: tuple[str, ...], app: Any) -> tuple[dict[str, Any], bytes]:
    """Make the scope of a request in the response phase, out of `response_variables`: no message brings it.

    Args:
        found: The variables, ``http_NAME`` for each of `names` among them.
        names: The request headers that were asked for.
        app: The host application.

    Returns:
        The scope, and the protocol; empty: it is not known.
    """
    headers: Headers = []
    for variable, name in _header_variables(names):
        value = found[variable]
        if value is not None:
            headers.append((name, value))
    path = found["uri"] or b"/"
    address = (found["remote_addr"] or b"").decode("latin-1")
    scheme = (found["scheme"] or b"http").decode("latin-1").lower()
    host = found.get("http_host")
    origin = None
    if host is not None:
        split = _origin if len(host) > _CACHED_LENGTH else _cached_origin
        origin = split(found["scheme"] or b"http", host, b"")
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": scheme,
        "path": path.decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": (address, 0) if address else None,
        "server": None if origin is None else origin[1],
        "extensions": {},
        "app": app,
    }
    method, protocol = exact_scope(scope, found)
    if method:
        scope["method"] = method.decode("latin-1")
    return scope, protocol
