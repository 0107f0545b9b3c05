"""The variables of nginx and of APISIX. Runners ask for them (ExtraInfo Var), routes and filters compare them.

`variable` keeps what it finds in `Exchange.variables`, as ``core/ctx.lua`` does.
"""

import base64
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from ..exchange import Exchange
from ..routes.expressions import Lookup
from .headers import Header
from .uri import parse_args, raw

__all__ = ["VARIABLES", "lookup", "variable"]

# These are read each time. All others keep the first value that they had. Trap: core/ctx.lua also keeps arg_NAME and
# the like, even if a plugin has changed the query since.
_NOT_CACHED = frozenset({"args", "is_args", "upstream_uri", "upstream_host", "upstream_scheme"})

# nginx's own names ignore case, APISIX's do not
_OF_APISIX = (
    "method route_id route_name service_id service_name consumer_name balancer_ip balancer_port resp_body "
    "real_request_uri graphql_name graphql_operation graphql_root_fields"
).split()

# an operation and the first field of its selection; in JSON a quoted name stands there
_GRAPHQL = re.compile(r"\s*(?:(query|mutation|subscription)\b)?\s*(\w+)?[^{]*\{\s*(?:\w|\.\.\.)")

# client_body_buffer_size; a body of known length may be a quarter longer (ngx_http_read_client_request_body)
_BODY_BUFFER = 16 * 1024


def _request_body(exchange: Exchange) -> bytes | None:
    # Only a body that has been read and is not empty. Trap: nginx writes one that fills the buffer to a file.
    body = exchange.body.content or b""
    in_memory = exchange.body.replaced or len(body) < _BODY_BUFFER * (1.0 if exchange.request.chunked else 1.25)
    return (body or None) if in_memory else None


def _joined(exchange: Exchange, name: bytes, separator: bytes = b", ") -> bytes | None:
    values = [value for key, value in exchange.headers.nginx if key.lower().replace(b"-", b"_") == name]
    return separator.join(values) if values else None


def _remote_user(exchange: Exchange) -> bytes | None:
    # ngx_http_auth_basic_user: nginx reads it even if nobody asks for a password
    scheme, _, encoded = (exchange.headers.values(b"authorization") or [b""])[0].partition(b" ")
    encoded = encoded.lstrip(b" ").rstrip(b"=")
    try:
        user, colon, _ = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True).partition(b":")
    except ValueError:
        return None
    return user if user and colon and scheme.lower() == b"basic" else None


def _protocol(exchange: Exchange) -> str:
    version = exchange.request.http_version
    return f"HTTP/{version}" if "." in version else f"HTTP/{version}.0"


VARIABLES: dict[str, Callable[[Exchange], bytes | str | int | None]] = {
    # the request line
    "request": lambda e: b"%s %s %s" % (e.request.method.encode(), e.request.target, _protocol(e).encode()),
    "request_method": lambda e: e.request.method,
    "method": lambda e: e.outgoing.method,
    "uri": lambda e: e.path,
    "document_uri": lambda e: e.path,
    "request_uri": lambda e: e.path + (b"?" + e.request.args if e.request.args else b""),
    "real_request_uri": lambda e: e.request.target,
    "args": lambda e: e.outgoing.args,
    "query_string": lambda e: e.outgoing.args,
    "is_args": lambda e: b"?" if e.outgoing.args else b"",
    "server_protocol": _protocol,
    # headers and body
    "host": lambda e: e.request.host,
    "http_host": lambda e: e.request.http_host,
    "content_length": lambda e: _joined(e, b"content_length"),
    "content_type": lambda e: _joined(e, b"content_type"),
    "http_cookie": lambda e: _joined(e, b"cookie", b"; "),
    "remote_user": _remote_user,
    "request_body": _request_body,
    "request_length": lambda e: sum(e.request.head_lines) + len(e.body.content or b""),
    # both ends of the connection
    "scheme": lambda e: e.request.scheme,
    "https": lambda e: "on" if e.request.scheme == "https" else "",
    "remote_addr": lambda e: e.request.remote[0],
    "remote_port": lambda e: e.request.remote[1] or "",
    "realip_remote_addr": lambda e: e.request.client[0],
    "realip_remote_port": lambda e: e.request.client[1],
    "binary_remote_addr": lambda e: e.client_address,
    "server_addr": lambda e: e.request.server[0],
    "server_port": lambda e: e.request.server[1],
    "server_name": lambda e: "_",
    "hostname": lambda e: socket.gethostname(),
    "connection": lambda e: id(e) % 100000,
    "pid": lambda e: os.getpid(),
    "nginx_version": lambda e: "1.27.1",
    "proxy_add_x_forwarded_for": lambda e: b", ".join(
        [*e.headers.values(b"x-forwarded-for"), e.request.remote[0].encode()]
    ),
    "var_x_forwarded_host": lambda e: e.request.forwarded_host,
    "var_x_forwarded_proto": lambda e: e.request.scheme,
    "var_x_forwarded_port": lambda e: e.request.forwarded_port,
    # what APISIX has found
    "route_id": lambda e: getattr(e.route, "id", None),
    "route_name": lambda e: getattr(e.route, "name", None),
    "service_id": lambda e: getattr(e.route, "service_id", None),
    "service_name": lambda e: getattr(e.route, "service_name", None),
    "consumer_name": lambda e: getattr(e.consumer, "username", None),
    # the balancer picks a server after the request phases
    "balancer_ip": lambda e: getattr(e.node, "host", None),
    "balancer_port": lambda e: getattr(e.node, "port", None),
    "upstream_unresolved_host": lambda e: getattr(e.node, "host", None),
    "upstream_host": lambda e: e.outgoing.host,
    "upstream_scheme": lambda e: e.upstream.scheme if e.upstream else "http",
    "upstream_uri": lambda e: e.outgoing.uri,
    "request_type": lambda e: "traditional_http",
    "status": lambda e: 0,
    "resp_body": lambda e: "",
    # numbers and times
    "request_id": lambda e: e.request.id,
    "apisix_request_id": lambda e: e.request.id,
    "request_time": lambda e: f"{time.monotonic() - e.request.clock:.3f}",
    "msec": lambda e: f"{time.time():.3f}",
    "time_iso8601": lambda e: time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
    "time_local": lambda e: time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime()),
}
"""Variables by their names in lower case, but for those such as ``arg_NAME``. To add one, put it in here."""


def _first(values: list[bytes | None] | None) -> bytes | None:
    # a name without a value is true in Lua, which tostring makes a word
    return (b"true" if values[0] is None else values[0]) if values else None


def lookup(exchange: Exchange, status: int | None = None, headers: Iterable[Header] = ()) -> Lookup:
    """Give the function that finds a variable of a request by its name.

    Args:
        exchange: The request.
        status, headers: Of its response, once there is one.
    """
    sent = [(name.lower().replace(b"-", b"_"), value) for name, value in headers]

    async def look(name: str) -> bytes | None:
        lower = name.lower()
        if status is not None and lower in ("status", "upstream_status"):
            return str(status).encode()
        if status is not None and lower.startswith(("sent_http_", "upstream_http_")):
            wanted = raw(lower.partition("_http_")[2])
            return next((value for each, value in sent if each == wanted), None)
        return await variable(exchange, raw(name))

    return look


async def variable(exchange: Exchange, name: bytes) -> bytes | None:
    """Give the value of a variable; None: there is none.

    Args:
        exchange: The request.
        name: Case does not matter, except in ``arg_NAME`` and ``cookie_NAME``.
    """
    text = name.decode("latin-1")
    lower = text.lower()
    if text in exchange.variables:
        return exchange.variables[text]
    value = await _value(exchange, text, lower)
    if value is not None and lower not in _NOT_CACHED:
        exchange.variables[text] = value
    return value


async def _value(exchange: Exchange, text: str, lower: str) -> bytes | None:
    if text != lower and (lower in _OF_APISIX or lower.startswith("post_arg")) and not text.startswith("post_arg"):
        return None
    if text != lower == "request_uri":
        # APISIX replaces nginx's by the decoded one, in lower case only
        return exchange.request.target
    if lower in VARIABLES:
        value = VARIABLES[lower](exchange)
        return value if value is None or isinstance(value, bytes) else raw(str(value))
    if lower.startswith("http_"):
        wanted = lower.removeprefix("http_").replace("-", "_")
        return _joined(exchange, wanted.encode("latin-1")) if wanted else None
    if lower.startswith("arg_"):
        return _first(exchange.outgoing.uri_args().get(text[len("arg_") :].encode("latin-1")))
    if lower.startswith("cookie_"):
        return exchange.headers.cookie(text[len("cookie_") :].encode("latin-1"))
    if lower.startswith("post_arg"):
        return await _post_arg(exchange, text[len("post_arg") :])
    if lower.startswith("graphql_"):
        return await _graphql(exchange, lower.removeprefix("graphql_"))
    return None


async def _json(exchange: Exchange) -> Any:
    try:
        return json.loads(await exchange.body.read())
    except (ValueError, RecursionError):
        # lua-cjson does not read JSON that is nested too deeply either
        return None


async def _post_arg(exchange: Exchange, rest: str) -> bytes | None:
    """Read ``post_arg_NAME`` of a form, or ``post_arg.a.b`` of JSON or a form."""
    content_type = b",".join(exchange.headers.values(b"content-type")).lower()
    path = rest[1:]
    if not path or rest[0] not in "._":
        return None
    if b"application/x-www-form-urlencoded" in content_type:
        return _first(parse_args(await exchange.body.read()).get(path.encode("latin-1")))
    if rest[0] == "_" or b"application/json" not in content_type:
        return None
    value = await _json(exchange)
    for step in path.split("."):
        if step.endswith("[*]"):
            # a list of all matches is a table in Lua
            return b"table: 0x7f0000000040"
        value = value.get(step) if isinstance(value, dict) else None
    return _lua_text(value)


def _lua_text(value: Any) -> bytes | None:
    """Return what Lua's ``tostring`` makes of a decoded JSON value; None: APISIX sends nothing, for false neither."""
    if value is None or value is False:
        return None
    if value is True:
        return b"true"
    if isinstance(value, dict | list):
        return b"table: 0x7f0000000050"
    if isinstance(value, float):
        return b"%.14g" % value
    return raw(str(value))


async def _graphql(exchange: Exchange, what: str) -> bytes | None:
    if what not in ("name", "operation", "root_fields"):
        return None
    body = await exchange.body.read()
    if exchange.outgoing.method == "GET":
        query = (_first(exchange.outgoing.uri_args().get(b"query")) or b"").decode(errors="replace")
    elif exchange.outgoing.method != "POST":
        return None
    elif exchange.headers.values(b"content-type")[:1] == [b"application/json"]:
        # trap: with a parameter, "; charset=utf-8", the JSON itself would be the query
        decoded = await _json(exchange)
        query = decoded.get("query", "") if isinstance(decoded, dict) else ""
    else:
        query = body.decode(errors="replace")
    match = _GRAPHQL.match(query) if isinstance(query, str) else None
    if match is None:
        return None
    if what == "root_fields":
        return b"table: 0x7f0000000060"
    return (match[2] or "").encode() if what == "name" else (match[1] or "query").encode()
