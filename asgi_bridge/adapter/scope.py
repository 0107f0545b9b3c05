"""A request message as an ASGI scope (ASGI HTTP spec 2.4), and the encodings that go with it.

Plain functions. Those that make the scope of a request call are in ``request_scope.py``, and in C.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

from ..compiled import twin
from ..plugins import Chain
from ..wire import HTTPReqCallReq, HTTPRespCallReq
from .request_scope import (
    FORWARDED,
    Args,
    Headers,
    build_scope,
    checked_fields,
    encode_query,
    forwarded_origin,
    needs_escaping,
)

__all__ = [
    "EXACT_VARIABLES",
    "FORWARDED",
    "PARKED_VARIABLES",
    "RESPONSE_VARIABLES",
    "RESUMING_VARIABLES",
    "Args",
    "Headers",
    "build_scope",
    "checked_fields",
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

_compiled = twin("adapter._request_scope")
if _compiled is not None:
    # in place of the pure functions of the same names
    globals().update({name: getattr(_compiled, name) for name in _compiled.__all__})

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


def parse_query(query: bytes) -> Args:
    """Return the decoded arguments of a query string as APISIX reads it: ``+`` is a blank, empty names are dropped."""
    args: Args = []
    for part in query.split(b"&"):
        name, equals, value = part.partition(b"=")
        name = unquote_to_bytes(name.replace(b"+", b" "))
        if name:
            args.append((name, unquote_to_bytes(value.replace(b"+", b" ")) if equals else None))
    return args


def origin_of_variables(found: Mapping[str, bytes | None]) -> tuple[str, tuple[str, int]]:
    """Return scheme and server of the client's connection to the gateway, out of ``ORIGIN_VARIABLES``."""
    scheme = (found.get("scheme") or b"http").decode("latin-1").lower()
    address = (found.get("server_addr") or b"").decode("latin-1")
    port = found.get("server_port") or b""
    return scheme, (address, int(port) if port.isdigit() else (443 if scheme == "https" else 80))


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
        origin = forwarded_origin({b"x-forwarded-proto": found["scheme"] or b"http", b"x-forwarded-host": host})
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
