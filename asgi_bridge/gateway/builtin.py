"""Those of APISIX's own plugins that the stand-in emulates, with the commonest part of their configuration.

A configuration that goes further is refused when the routes are read.
"""

import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from .exchange import Exchange
from .nginx.uri import escape_controls, escape_uri, raw
from .routes.places import shown
from .routes.route import Consumer

__all__ = ["BUILTIN", "Builtin", "Refusal", "Unsupported", "check_builtin", "finish", "with_error_response"]

Conf: TypeAlias = Mapping[str, Any]
Consumers: TypeAlias = Mapping[str, Consumer]
"""Consumers by their key."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer of a plugin that ends the request.

    Attributes:
        status: Of the response.
        body: None: the plugin gives none.
    """

    status: int
    body: bytes | None = None


def with_error_response(refusal: Refusal, error_response: str | Conf | None) -> Refusal:
    """Put ``_meta.error_response`` in place of the body of an error (``run_plugin`` in plugin.lua).

    Args:
        refusal: What the plugin answers.
        error_response: Of its ``_meta``; None: there is none.
    """
    if error_response is None or refusal.status < 400:
        return refusal
    if isinstance(error_response, str):
        return Refusal(refusal.status, raw(error_response))
    # lua-cjson escapes slashes
    text = json.dumps(error_response, ensure_ascii=False, separators=(",", ":")).replace("/", "\\/")
    return Refusal(refusal.status, raw(text) + b"\n")


class Unsupported(ValueError):
    """A configuration that is valid in APISIX, and that the stand-in does not emulate."""


@dataclass(frozen=True, slots=True)
class Builtin:
    """A plugin of APISIX that the stand-in emulates.

    Attributes:
        priority: In a phase the plugin with the greater one runs first.
        fields: Those of its configuration that the stand-in understands.
        further: Those that APISIX knows beside them. Any other field is ignored, as in APISIX.
        check: Raises ValueError for a wrong configuration, `Unsupported` for one that goes too far.
        rewrite: Its rewrite phase; None: it has none.
        finish: Its header filter; None: it has none.
    """

    priority: int
    fields: str = ""
    further: str = ""
    check: Callable[[Conf], object] | None = None
    rewrite: Callable[[Exchange, Conf, Consumers], Refusal | None] | None = None
    finish: Callable[[Exchange, Conf], None] | None = None


def check_builtin(name: str, conf: Conf) -> None:
    """Check the configuration of an emulated plugin.

    Raises:
        ValueError: It is wrong.
        Unsupported: It is more than the stand-in does.
    """
    plugin = BUILTIN[name]
    more = sorted(set(map(str, conf)) & set(plugin.further.split()))
    if more:
        known = f"only {', '.join(plugin.fields.split())}" if plugin.fields else "only an empty configuration"
        raise Unsupported(f"the stand-in understands {known} here, not {', '.join(more)}")
    if plugin.check is not None:
        plugin.check(conf)


def finish(exchange: Exchange, running: Mapping[str, Conf]) -> None:
    """Run the header filters of plugins, which are given by name with their configurations."""
    for name, plugin in BUILTIN.items():
        if name in running and plugin.finish is not None:
            plugin.finish(exchange, running[name])


# --- headers of proxy-rewrite and response-rewrite --------------------------------------------------------------------

# how response-rewrite reads an entry of headers.add
_HEADER_LINE = re.compile(r"([^:\s]+)\s*:\s*([^:]+)")


class _Change(NamedTuple):
    """A change of one header. Without a value it is removed; with `beside` the earlier ones of its name stay."""

    name: bytes
    value: bytes | None
    beside: bool = False


def _header_changes(conf: Conf, *, lines: bool) -> list[_Change]:
    """Read ``headers`` of proxy-rewrite or response-rewrite (``create_header_operation``).

    Args:
        conf: Of the plugin.
        lines: ``headers.add`` is a list of lines, not a mapping.

    Raises:
        ValueError, Unsupported: As `check_builtin`.
    """
    headers = conf.get("headers", {"set": {}})
    if not isinstance(headers, Mapping) or not headers:
        raise ValueError("headers has to be a mapping of names to strings, or one of set, add and remove")
    # is_new_headers_conf: a header may be called set, as long as its value is a string
    if not any(isinstance(headers.get(name), Mapping | list) for name in ("set", "add", "remove")):
        return [_Change(*pair) for pair in _pairs(headers, "headers")]
    more = sorted(set(map(str, headers)) - {"set", "add", "remove"})
    if more:
        raise ValueError(f"the stand-in understands set, add and remove in headers, not {', '.join(more)}")
    removed = headers.get("remove", [])
    if not isinstance(removed, list) or not all(isinstance(name, str) for name in removed):
        raise ValueError("headers.remove has to be a list of names")
    for place in ("add", "set"):
        values = headers.get(place)
        if not lines and isinstance(values, Mapping) and any(isinstance(each, list) for each in values.values()):
            raise Unsupported(f"the stand-in understands no lists of values in headers.{place}")
    changed = _pairs(headers.get("set", {}), "headers.set")
    added = headers.get("add", [] if lines else {})
    if lines:
        if not isinstance(added, list) or not all(isinstance(e, str) and _HEADER_LINE.fullmatch(e) for e in added):
            raise ValueError("headers.add has to be a list of strings like 'Name: value', with one colon each")
        matches = [match for line in added if (match := _HEADER_LINE.fullmatch(line)) is not None]
        entries = [_pairs({match[1]: match[2]}, "headers.add")[0] for match in matches]
    else:
        entries = _pairs(added, "headers.add")
    return [
        *(_Change(*pair, beside=True) for pair in entries),
        *(_Change(*pair) for pair in changed),
        *(_Change(raw(name), None) for name in removed),
    ]


def _pairs(value: Any, what: str) -> list[tuple[bytes, bytes]]:
    _check_strings(value, what)
    if any(name.replace("_", "-").lower() == "content-length" for name in value):
        raise Unsupported("a Content-Length in headers would not fit the body; take it out")
    return [(raw(name), raw(str(text))) for name, text in value.items()]


def _check_strings(value: Any, what: str) -> None:
    if not isinstance(value, Mapping) or not all(
        isinstance(name, str) and isinstance(v, str | int | float) and not isinstance(v, bool)
        for name, v in value.items()
    ):
        raise ValueError(f"{what} has to be a mapping of names to strings")
    if any("$" in str(v) for v in value.values()):
        raise Unsupported(f"the stand-in puts no variables into headers; take the $ out of {what}")


# --- proxy-rewrite ----------------------------------------------------------------------------------------------------

_REWRITTEN_HOST = re.compile(r"[0-9a-zA-Z\-.]+(:\d{1,5})?", re.ASCII)
_REWRITTEN_METHODS = (
    "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "MKCOL", "COPY", "MOVE", "PROPFIND", "LOCK", "UNLOCK", "PATCH",
    "TRACE",
)  # fmt: skip
# $1 or ${1} in what takes a match's place (ngx.re.sub); $$ is a dollar
_GROUP = re.compile(rb"\$(?:\$|(\d+)|\{(\d+)\})")


def _check_proxy_rewrite(conf: Conf) -> None:
    if not set(conf) - {"_meta"}:
        raise ValueError("APISIX wants one field at least; give it a uri, or take the plugin out")
    for field in ("uri", "method", "host"):
        if not isinstance(conf.get(field, ""), str):
            raise ValueError(f"{field} has to be a string without variables")
    if "method" in conf and conf["method"] not in _REWRITTEN_METHODS:
        raise ValueError(f"method is one of {', '.join(_REWRITTEN_METHODS)}")
    if "$" in conf.get("host", "") + conf.get("uri", ""):
        field = "uri" if "$" in conf.get("uri", "") else "host"
        raise Unsupported(f"the stand-in puts no variables in: {field} has to be a string without variables")
    if "host" in conf and not _REWRITTEN_HOST.fullmatch(conf["host"]):
        raise ValueError("host has to be a name, or one with a port: letters, digits, - and .")
    if not conf.get("uri", "/").startswith("/"):
        raise ValueError("uri has to begin with a slash")
    if len(conf.get("uri", "")) > 4096:
        raise ValueError(f"uri has {len(conf['uri'])} characters; APISIX takes 4096 at most")
    _check_patterns(conf.get("regex_uri", ["", ""]))
    _header_changes(conf, lines=False)


def _check_patterns(value: Any) -> None:
    if not isinstance(value, list) or not value or len(value) % 2 or not all(isinstance(text, str) for text in value):
        raise ValueError("regex_uri has to be a list of patterns, each with what takes the place of its match")
    for pattern in value[::2]:
        try:
            re.compile(raw(pattern))
        except (re.error, OverflowError, RecursionError) as exc:
            raise ValueError(f"regex_uri: {shown(pattern)} is no regular expression: {exc}") from exc


def _substituted(path: bytes, patterns: list[str]) -> bytes:
    """Apply ``regex_uri``: replace the first match of the first pattern that matches.

    APISIX does not switch on UTF-8 in PCRE, so a dot matches one byte.
    """
    for pattern, text in zip(patterns[::2], patterns[1::2], strict=True):
        found = re.search(raw(pattern), path)
        if found is not None:

            def group(named: re.Match[bytes], found: re.Match[bytes] = found) -> bytes:
                number = int(named[1] or named[2] or -1)
                if number < 0:
                    return b"$"
                return (found[number] or b"") if number <= len(found.groups()) else b""

            return path[: found.start()] + _GROUP.sub(group, raw(text)) + path[found.end() :]
    return path


def _proxy_rewrite(exchange: Exchange, conf: Conf, consumers: Consumers) -> None:
    # proxy-rewrite.lua sets the URI even when only the method changes, so a later Rewrite.args is lost
    outgoing = exchange.outgoing
    path, question, query = raw(conf.get("uri", "")).partition(b"?")
    if not path and "regex_uri" in conf:
        path = _substituted(exchange.path, conf["regex_uri"])
        if b"?" not in exchange.path:
            path, question, query = path.partition(b"?")
    uri = escape_uri(path or exchange.path) + question + escape_controls(query)
    if outgoing.args:
        uri += (b"&" if question else b"?") + outgoing.args
    outgoing.uri = uri
    for name, value, beside in _header_changes(conf, lines=False):
        if beside:
            exchange.add_header(name, value or b"")
        else:
            exchange.set_header(name, value)
    outgoing.host = raw(conf["host"]) if "host" in conf else outgoing.host
    outgoing.method = conf.get("method", outgoing.method)


# --- response-rewrite -------------------------------------------------------------------------------------------------


def _check_response_rewrite(conf: Conf) -> None:
    status = conf.get("status_code", 200)
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 598:
        raise ValueError("status_code has to be a number from 200 to 598")
    if not isinstance(conf.get("body", ""), str):
        raise ValueError("body has to be a string")
    _header_changes(conf, lines=True)


def _response_rewrite(exchange: Exchange, conf: Conf) -> None:
    response = exchange.response
    response.status = conf.get("status_code", response.status)
    if "body" in conf:
        # the old length and encoding belong to the old body
        response.remove(b"content-length", b"content-encoding", b"last-modified", b"etag")
        response.content_length = None
        response.body = raw(conf["body"])
    for name, value, beside in _header_changes(conf, lines=True):
        if beside:
            response.add(name, value or b"")
        else:
            response.set(name, value)
    if conf.get("status_code") == 204:
        # for a status that Lua has set, not for the upstream's own (ngx_http_header_filter_module.c, status_line)
        response.content_type, response.content_length, response.chunked = None, None, False


# --- the others -------------------------------------------------------------------------------------------------------


def _request_id(exchange: Exchange, conf: Conf, consumers: Consumers) -> None:
    sent = exchange.headers.values(b"x-request-id")
    exchange.plugin_request_id = sent[0] if sent and sent[0] else str(uuid.uuid4()).encode()
    if exchange.plugin_request_id not in sent:
        exchange.set_header(b"X-Request-Id", exchange.plugin_request_id)
    exchange.variables["apisix_request_id"] = exchange.plugin_request_id


def _request_id_of_response(exchange: Exchange, conf: Conf) -> None:
    # an id that the response has already stays
    if exchange.response.get(b"x-request-id") is None:
        exchange.response.set(b"X-Request-Id", exchange.plugin_request_id)


def _cors(exchange: Exchange, conf: Conf, consumers: Consumers) -> Refusal | None:
    return Refusal(200) if exchange.request.method == "OPTIONS" else None


def _cors_of_response(exchange: Exchange, conf: Conf) -> None:
    for name in (b"Origin", b"Methods", b"Headers"):
        exchange.response.set(b"Access-Control-Allow-" + name, b"*")
    exchange.response.set(b"Access-Control-Max-Age", b"5")


def _check_key_auth(conf: Conf) -> None:
    _check_strings({field: conf.get(field, "") for field in ("header", "query")}, "header or query")
    if not isinstance(conf.get("hide_credentials", False), bool):
        raise ValueError("hide_credentials has to be true or false")


def _key_auth(exchange: Exchange, conf: Conf, consumers: Consumers) -> Refusal | None:
    header, query = raw(conf.get("header", "apikey")), raw(conf.get("query", "apikey"))
    args = exchange.outgoing.uri_args()
    in_header = exchange.headers.table.get(header.lower(), [])
    keys: list[bytes | None] = [*in_header, *args.get(query, [])]
    consumer = consumers.get((keys[0] or b"").decode("utf-8", "surrogateescape")) if keys else None
    if consumer is None:
        exchange.response.set(b"WWW-Authenticate", b'apikey realm="key"')
        why = b"Invalid API key in request" if keys else b"Missing API key in request"
        return Refusal(401, b'{"message":"%s"}\n' % why)
    if conf.get("hide_credentials") and in_header:
        exchange.set_header(header, None)
    elif conf.get("hide_credentials"):
        exchange.outgoing.set_args({name: values for name, values in args.items() if name != query})
    exchange.consumer = consumer
    exchange.set_header(b"X-Consumer-Username", raw(consumer.username))
    return None


BUILTIN: dict[str, Builtin] = {
    "request-id": Builtin(
        12015,
        further="header_name include_in_response algorithm range_id",
        rewrite=_request_id,
        finish=_request_id_of_response,
    ),
    "cors": Builtin(
        4000,
        further="allow_origins allow_methods allow_headers expose_headers max_age allow_credential "
        "allow_origins_by_regex allow_origins_by_metadata timing_allow_origins timing_allow_origins_by_regex",
        rewrite=_cors,
        finish=_cors_of_response,
    ),
    "key-auth": Builtin(2500, "header query hide_credentials", "realm anonymous_consumer", _check_key_auth, _key_auth),
    "proxy-rewrite": Builtin(
        1008,
        "uri regex_uri method host headers",
        "use_real_request_uri_unsafe scheme",
        _check_proxy_rewrite,
        _proxy_rewrite,
    ),
    "response-rewrite": Builtin(
        899,
        "status_code headers body",
        "body_base64 vars filters max_resp_body_size",
        _check_response_rewrite,
        finish=_response_rewrite,
    ),
}
"""The emulated plugins by name. To add one, put it in here before the routes are read."""
