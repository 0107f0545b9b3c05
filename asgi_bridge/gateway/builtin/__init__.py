"""APISIX's own plugins that the stand-in emulates: as much of each as the recorded cases use, and no more.

A configuration that goes further is not understood, which is said when the routes are read. What these plugins do to a
response is in `asgi_bridge.gateway.nginx.answer`, where the other filters are.
"""

import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from asgi_bridge.gateway.exchange import Exchange
from asgi_bridge.gateway.nginx.uri import escape_controls, escape_uri, raw
from asgi_bridge.gateway.routes.places import shown
from asgi_bridge.gateway.routes.route import Consumer

__all__ = [
    "BUILTIN",
    "FIELDS",
    "Refusal",
    "Unsupported",
    "check_builtin",
    "header_operations",
    "rewrite",
    "with_error_response",
]

BUILTIN: Mapping[str, int] = {
    "request-id": 12015,
    "serverless-pre-function": 10000,
    "cors": 4000,
    "key-auth": 2500,
    "proxy-rewrite": 1008,
    "response-rewrite": 899,
}
"""Name and priority: in a phase the plugin with the greater one runs first."""

# how response-rewrite reads an entry of headers.add
_HEADER_LINE = re.compile(r"([^:\s]+)\s*:\s*([^:]+)")

# the schema of proxy-rewrite
_REWRITTEN_HOST = re.compile(r"[0-9a-zA-Z\-.]+(:\d{1,5})?", re.ASCII)
_REWRITTEN_METHODS = (
    "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "MKCOL", "COPY", "MOVE", "PROPFIND", "LOCK", "UNLOCK", "PATCH",
    "TRACE",
)  # fmt: skip

# No Lua here: the one form of function that is understood.
_SET_HEADER = re.compile(
    r"return function\(conf, ctx\) require\(['\"]apisix\.core['\"]\)\.request\.set_header"
    r"\(ctx, ['\"]([^'\"]+)['\"], ['\"]([^'\"]*)['\"]\) end"
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A plugin ends the request."""

    status: int
    body: bytes | None = None


def with_error_response(refusal: Refusal, error_response: str | Mapping[str, Any] | None) -> Refusal:
    """Put ``_meta.error_response`` in place of the body of an error (``run_plugin`` in plugin.lua).

    Args:
        refusal: what the plugin answers.
        error_response: of its ``_meta``; None: there is none.
    """
    if error_response is None or refusal.status < 400:
        return refusal
    if isinstance(error_response, str):
        return Refusal(refusal.status, raw(error_response))
    # lua-cjson escapes slashes
    text = json.dumps(error_response, ensure_ascii=False, separators=(",", ":")).replace("/", "\\/")
    return Refusal(refusal.status, raw(text) + b"\n")


class Unsupported(ValueError):
    """A configuration is right for APISIX and goes further than the stand-in does."""


FIELDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "request-id": ((), ("header_name", "include_in_response", "algorithm", "range_id")),
    "serverless-pre-function": (("phase", "functions"), ()),
    "cors": (
        (),
        ("allow_origins", "allow_methods", "allow_headers", "expose_headers", "max_age", "allow_credential",
         "allow_origins_by_regex", "allow_origins_by_metadata", "timing_allow_origins",
         "timing_allow_origins_by_regex"),
    ),
    "key-auth": (("header", "query", "hide_credentials"), ("realm", "anonymous_consumer")),
    "proxy-rewrite": (
        ("uri", "regex_uri", "method", "host", "headers"),
        ("use_real_request_uri_unsafe", "scheme"),
    ),
    "response-rewrite": (
        ("status_code", "headers", "body"),
        ("body_base64", "vars", "filters", "max_resp_body_size"),
    ),
}  # fmt: skip
"""The fields of each plugin that the stand-in understands, and the further ones that APISIX knows. Any other field is
ignored, as in APISIX."""


def _only_understood(name: str, conf: Mapping[str, Any]) -> None:
    fields, further = FIELDS[name]
    more = sorted(set(map(str, conf)) & set(further))
    if more:
        known = f"only {', '.join(fields)}" if fields else "only an empty configuration"
        raise Unsupported(f"the stand-in understands {known} here, not {', '.join(more)}")


def _check_headers(headers: Any, *, add: type) -> None:
    if not isinstance(headers, Mapping) or not headers:
        raise ValueError("headers has to be a mapping of names to strings, or one of set, add and remove")
    if _is_plain(headers):
        _check_strings(headers, "headers")
        return
    more = sorted(set(map(str, headers)) - {"set", "add", "remove"})
    if more:
        raise ValueError(f"the stand-in understands set, add and remove in headers, not {', '.join(more)}")
    removed = headers.get("remove", [])
    if not isinstance(removed, list) or not all(isinstance(name, str) for name in removed):
        raise ValueError("headers.remove has to be a list of names")
    for place in ("add", "set"):
        values = headers.get(place)
        if add is dict and isinstance(values, Mapping) and any(isinstance(each, list) for each in values.values()):
            raise Unsupported(f"the stand-in understands no lists of values in headers.{place}")
    _check_strings(headers.get("set", {}), "headers.set")
    added = headers.get("add", add())
    if add is list:
        if not isinstance(added, list) or not all(isinstance(e, str) and _HEADER_LINE.fullmatch(e) for e in added):
            raise ValueError("headers.add has to be a list of strings like 'Name: value', with one colon each")
        added = dict(header_operations({"headers": headers}).add)
    _check_strings(added, "headers.add")


def _check_strings(value: Any, what: str) -> None:
    if not isinstance(value, Mapping) or not all(
        isinstance(name, str) and isinstance(v, str | int | float) and not isinstance(v, bool)
        for name, v in value.items()
    ):
        raise ValueError(f"{what} has to be a mapping of names to strings")
    if any("$" in str(v) for v in value.values()):
        raise Unsupported(f"the stand-in puts no variables into headers; take the $ out of {what}")


def _check_proxy_rewrite(conf: Mapping[str, Any]) -> None:
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


def _check_patterns(value: Any) -> None:
    if not isinstance(value, list) or not value or len(value) % 2 or not all(isinstance(text, str) for text in value):
        raise ValueError("regex_uri has to be a list of patterns, each with what takes the place of its match")
    for pattern in value[::2]:
        try:
            re.compile(raw(pattern))
        except (re.error, OverflowError, RecursionError) as exc:
            raise ValueError(f"regex_uri: {shown(pattern)} is no regular expression: {exc}") from exc


def _is_plain(headers: Mapping[str, Any]) -> bool:
    # is_new_headers_conf: a header may be called set, as long as its value is a string
    return not any(isinstance(headers.get(name), Mapping | list) for name in ("set", "add", "remove"))


@dataclass(frozen=True, slots=True)
class HeaderOperations:
    """What a rewriting plugin does to headers, in this order."""

    add: tuple[tuple[str, str], ...]
    set: tuple[tuple[str, str], ...]
    remove: tuple[str, ...]

    def apply(self, adding: Callable[[bytes, bytes], object], setting: Callable[[bytes, bytes | None], object]) -> None:
        """Do it: `adding` puts a header beside those of its name, `setting` in their place, and None removes them."""
        for name, value in self.add:
            adding(raw(name), raw(value))
        for name, value in self.set:
            setting(raw(name), raw(value))
        for name in self.remove:
            setting(raw(name), None)


def header_operations(conf: Mapping[str, Any]) -> HeaderOperations:
    """Read ``headers`` of proxy-rewrite and of response-rewrite (``create_header_operation``)."""
    headers = conf.get("headers", {})
    if _is_plain(headers):
        return HeaderOperations((), tuple((name, str(value)) for name, value in headers.items()), ())
    added = headers.get("add", {})
    if isinstance(added, Mapping):
        add = tuple((name, str(value)) for name, value in added.items())
    else:
        add = tuple((match[1], match[2]) for line in added if (match := _HEADER_LINE.fullmatch(line)) is not None)
    changed = tuple((name, str(value)) for name, value in headers.get("set", {}).items())
    return HeaderOperations(add, changed, tuple(headers.get("remove", ())))


def check_builtin(name: str, conf: Mapping[str, Any]) -> None:
    """Check the configuration of an emulated plugin.

    Raises:
        ValueError: it is wrong.
        Unsupported: it is more than the stand-in does.
    """
    _only_understood(name, conf)
    if name == "proxy-rewrite":
        _check_proxy_rewrite(conf)
    elif name == "key-auth":
        _check_strings({field: conf.get(field, "") for field in ("header", "query")}, "header or query")
        if not isinstance(conf.get("hide_credentials", False), bool):
            raise ValueError("hide_credentials has to be true or false")
    elif name == "response-rewrite":
        status = conf.get("status_code", 200)
        if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 598:
            raise ValueError("status_code has to be a number from 200 to 598")
        if not isinstance(conf.get("body", ""), str):
            raise ValueError("body has to be a string")
    elif name == "serverless-pre-function":
        functions = conf.get("functions")
        if not isinstance(functions, list) or not functions:
            raise ValueError("the stand-in understands only phase: rewrite with a list of functions")
        if conf.get("phase") != "rewrite":
            raise Unsupported("the stand-in understands only phase: rewrite with a list of functions")
        if not all(isinstance(text, str) and _SET_HEADER.fullmatch(text) for text in functions):
            raise Unsupported(
                "the stand-in runs no Lua; it understands only return function(conf, ctx) "
                "require('apisix.core').request.set_header(ctx, 'NAME', 'VALUE') end"
            )
    if "headers" in conf:
        _check_headers(conf["headers"], add=dict if name == "proxy-rewrite" else list)
        operations = header_operations(conf)
        for header, _ in (*operations.add, *operations.set):
            if header.replace("_", "-").lower() == "content-length":
                raise Unsupported("a Content-Length in headers would not fit the body; take it out")


def rewrite(
    exchange: Exchange, name: str, conf: Mapping[str, Any], consumers: Mapping[str, Consumer]
) -> Refusal | None:
    """Run the rewrite phase of one plugin.

    Args:
        exchange: the request.
        name: of the plugin.
        conf: its configuration.
        consumers: by key, for key-auth.
    """
    if name == "proxy-rewrite":
        _proxy_rewrite(exchange, conf)
    elif name == "key-auth":
        return _key_auth(exchange, conf, consumers)
    elif name == "cors":
        if exchange.request_method == "OPTIONS":
            return Refusal(200)
    elif name == "request-id":
        given = exchange.headers.values(b"x-request-id")
        exchange.plugin_request_id = given[0] if given and given[0] else str(uuid.uuid4()).encode()
        if exchange.plugin_request_id not in given:
            exchange.set_header(b"X-Request-Id", exchange.plugin_request_id)
        exchange.variables["apisix_request_id"] = exchange.plugin_request_id
    elif name == "serverless-pre-function":
        for text in conf["functions"]:
            match = _SET_HEADER.fullmatch(text)
            assert match is not None
            exchange.set_header(raw(match[1]), raw(match[2]))
    return None


# $1 or ${1} in what takes a match's place (ngx.re.sub); $$ is a dollar
_GROUP = re.compile(rb"\$(?:\$|(\d+)|\{(\d+)\})")


def _substituted(path: bytes, patterns: list[str]) -> bytes:
    """``regex_uri``: the first pattern that matches counts, and its first match is replaced.

    PCRE is told nothing of UTF-8, so a dot matches a byte.
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


def _proxy_rewrite(exchange: Exchange, conf: Mapping[str, Any]) -> None:
    # the URI is set even when only the method changes, so a later Rewrite.args is lost (proxy-rewrite.lua)
    path, question, query = raw(conf.get("uri", "")).partition(b"?")
    if not path and "regex_uri" in conf:
        path = _substituted(exchange.path, conf["regex_uri"])
        if b"?" not in exchange.path:
            path, question, query = path.partition(b"?")
    uri = escape_uri(path or exchange.path) + question + escape_controls(query)
    if exchange.args:
        uri += (b"&" if question else b"?") + exchange.args
    exchange.upstream_uri = uri
    header_operations(conf).apply(exchange.add_header, exchange.set_header)
    if "host" in conf:
        exchange.upstream_host = raw(conf["host"])
    if "method" in conf:
        exchange.method = conf["method"]


def _key_auth(exchange: Exchange, conf: Mapping[str, Any], consumers: Mapping[str, Consumer]) -> Refusal | None:
    header, query = raw(conf.get("header", "apikey")), raw(conf.get("query", "apikey"))
    in_header = exchange.headers.table.get(header.lower(), [])
    given: list[bytes | None] = [*in_header, *exchange.uri_args().get(query, [])]
    consumer = consumers.get((given[0] or b"").decode("utf-8", "surrogateescape")) if given else None
    if consumer is None:
        exchange.response.set(b"WWW-Authenticate", b'apikey realm="key"')
        why = b"Invalid API key in request" if given else b"Missing API key in request"
        return Refusal(401, b'{"message":"%s"}\n' % why)
    if conf.get("hide_credentials") and in_header:
        exchange.set_header(header, None)
    elif conf.get("hide_credentials"):
        exchange.set_args({name: values for name, values in exchange.uri_args().items() if name != query})
    exchange.consumer = consumer
    exchange.set_header(b"X-Consumer-Username", raw(consumer.username))
    return None
