"""A request message as an ASGI scope (ASGI HTTP spec 2.4), and the encodings that go with it.

Plain functions. Those that make the scope of a request call are in ``request_scope.py``, and in C.
"""

from collections.abc import Mapping, Sequence
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
    "RESPONSE_VARIABLES",
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
]

_compiled = twin("adapter._request_scope")
if _compiled is not None:
    # in place of the pure functions of the same names
    globals().update({name: getattr(_compiled, name) for name in _compiled.__all__})

ORIGIN_VARIABLES = ("scheme", "http_host", "server_addr", "server_port")
EXACT_VARIABLES = (*ORIGIN_VARIABLES, "server_protocol", "real_request_uri", "remote_port", "request_id")
"""Variables that a call asks for, in one round trip, if one of its plugins is mounted with ``exact``."""

RESPONSE_VARIABLES = (
    *EXACT_VARIABLES, "request_method", "uri", "remote_addr", "http_content_length", "http_transfer_encoding",
)  # fmt: skip
"""Variables that every response call asks for, beside the headers that its plugins want."""


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
