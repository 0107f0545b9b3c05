"""An ASGI scope as a WSGI environ (PEP 3333), and the environ that came out of a middleware as a scope again.

Functions without state. Text in an environ is latin-1: a character for each byte.
"""

import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import quote_from_bytes
from wsgiref.util import FileWrapper, is_hop_by_hop

from starlette.types import Scope

from ..apisix_constants import TOKEN
from ..errors import PluginError

__all__ = [
    "EXTRAS",
    "Headers",
    "build_environ",
    "changed_scope",
    "may_have_untold_body",
    "parse_headers",
    "parse_status",
    "status_line",
    "text_headers",
]

Headers = list[tuple[bytes, bytes]]

EXTRAS: Final = "asgi_bridge.environ"
"""The key of a scope under which a WSGI plugin's own environ keys (a session, REMOTE_USER) reach the next ones."""

_OURS = frozenset((
    "REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "CONTENT_LENGTH", "SERVER_NAME",
    "SERVER_PORT", "SERVER_PROTOCOL", "REMOTE_ADDR", "REMOTE_PORT",
))  # fmt: skip
_BODYLESS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
"""Methods whose requests hardly ever have a body."""
_PATH_SAFE = "/:@!$&'()*+,;=~"
_SPELLED = {b"etag": "ETag", b"www-authenticate": "WWW-Authenticate", b"content-md5": "Content-MD5"}

_status = re.compile(r"([1-9][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?").fullmatch
_control = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]").search


# request


_Value = TypeVar("_Value")
_KEPT_LENGTH = 64
"""Bytes of a header name that is kept. Anybody can make up names, so their number and their lengths are bounded."""


def _by_name(function: Callable[[bytes], _Value]) -> Callable[[bytes], _Value]:
    """`function` of a header's name, with a cache for the usual ones."""
    cached = lru_cache(1024)(function)

    def of_name(name: bytes) -> _Value:
        return cached(name) if len(name) <= _KEPT_LENGTH else function(name)

    return of_name


@_by_name
def _key(name: bytes) -> str | None:
    """The environ's key for a header; None: it has none."""
    if name == b"content-type":
        return "CONTENT_TYPE"
    if name == b"content-length":
        return "CONTENT_LENGTH"
    if b"_" in name:
        # It would be the same key as that of the name with "-", which whoever set that vouches for. Web servers and
        # nginx drop such headers; here they go on, but a WSGI application does not see them.
        return None
    return "HTTP_" + name.decode("latin-1").replace("-", "_").upper()


def _name(key: str) -> bytes | None:
    """The header that a key of the environ stands for; None: none."""
    if key.startswith("HTTP_") and key not in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
        try:
            return key[5:].replace("_", "-").lower().encode("latin-1")
        except UnicodeEncodeError:
            raise PluginError(f"environ[{key!r:.200}]: that is no header name") from None
    return {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}.get(key)


def may_have_untold_body(scope: Scope) -> bool:
    """Whether a body is to be expected that no content-length tells of."""
    names = {name for name, _ in scope["headers"]}
    if b"content-length" in names:
        return False
    return (
        b"transfer-encoding" in names or scope["method"] not in _BODYLESS or scope.get("http_version", "1.1")[:1] != "1"
    )


def _split(scope: Scope) -> tuple[str, str]:
    """SCRIPT_NAME and PATH_INFO. The path of a scope begins with its root path, if it has one."""
    path = scope["path"].encode("utf-8").decode("latin-1")
    root = scope.get("root_path", "").rstrip("/").encode("utf-8").decode("latin-1")
    return root, path[len(root) :] if path == root or path.startswith(root + "/") else path


def build_environ(scope: Scope, body: object) -> dict[str, Any]:
    """The environ of a request.

    Args:
        scope: of ASGI.
        body: its ``wsgi.input``.
    """
    script_name, path_info = _split(scope)
    scheme = scope.get("scheme", "http")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": script_name,
        "PATH_INFO": path_info,
        "QUERY_STRING": scope.get("query_string", b"").decode("latin-1"),
        "SERVER_PROTOCOL": "HTTP/" + scope.get("http_version", "1.1"),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
    }
    for name, value in scope["headers"]:
        key = _key(name)
        if key is not None:
            text = value.decode("latin-1")
            if key in environ:
                # of a request the repeats can be joined (RFC 9110, 5.3); cookies by "; " (RFC 9113, 8.2.3)
                text = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + text
            environ[key] = text
    server = scope.get("server") or ("", None)
    # never empty (PEP 3333); in the bridge a server without a name is one that nobody asked for
    environ["SERVER_NAME"] = server[0] or _host_name(environ.get("HTTP_HOST", "")) or "localhost"
    environ["SERVER_PORT"] = str(server[1] or (443 if scheme == "https" else 80))
    client = scope.get("client")
    if client:
        environ["REMOTE_ADDR"] = client[0]
        if client[1]:
            environ["REMOTE_PORT"] = str(client[1])
    extras = scope.get(EXTRAS)
    if extras:
        environ.update(extras)
    return environ


def _host_name(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def changed_scope(scope: Scope, before: Mapping[str, Any], after: Mapping[str, Any]) -> Scope:
    """`scope` with what a WSGI application changed, and nothing else: the same object if it changed nothing.

    Args:
        scope: that `before` was made of.
        before: the environ as it was handed over.
        after: the environ as it came out.

    Raises:
        PluginError: a value that is no text of latin-1, or a path that is not UTF-8.
    """
    if after == before:
        return scope
    changed = dict(scope)

    def differs(*keys: str) -> bool:
        return any(after.get(key) != before.get(key) for key in keys)

    if differs("REQUEST_METHOD"):
        changed["method"] = _text(after, "REQUEST_METHOD")
    if differs("SCRIPT_NAME", "PATH_INFO"):
        _change_path(changed, before, after)
    if differs("QUERY_STRING"):
        changed["query_string"] = _bytes(after, "QUERY_STRING")
    if differs("wsgi.url_scheme"):
        changed["scheme"] = _text(after, "wsgi.url_scheme")
    if differs("SERVER_NAME", "SERVER_PORT"):
        port = _text(after, "SERVER_PORT")
        changed["server"] = (_text(after, "SERVER_NAME"), int(port) if port.isdecimal() else None)
    if differs("REMOTE_ADDR", "REMOTE_PORT"):
        # who changes the address alone knows no port of it
        port = _text(after, "REMOTE_PORT") if differs("REMOTE_PORT") or not differs("REMOTE_ADDR") else ""
        address = _text(after, "REMOTE_ADDR")
        changed["client"] = (address, int(port) if port.isdecimal() else 0) if address else None
    _change_headers(changed, before, after)
    extras = {
        key: value
        for key, value in after.items()
        if key not in _OURS and not key.startswith(("HTTP_", "wsgi.", "asgi_bridge."))
    }
    if extras:
        changed[EXTRAS] = extras
    return changed


def _text(environ: Mapping[str, Any], key: str) -> str:
    value = environ.get(key, "")
    if isinstance(value, int):  # of a length or a port; servers take it, so applications have it
        value = str(value)
    if not isinstance(value, str):
        raise PluginError(f"environ[{key!r:.200}] was changed to {type(value).__name__}; it is a str")
    return value


def _bytes(environ: Mapping[str, Any], key: str) -> bytes:
    try:
        return _text(environ, key).encode("latin-1")
    except UnicodeEncodeError:
        raise PluginError(f"environ[{key!r:.200}] was changed to text that is not latin-1 (PEP 3333)") from None


def _change_path(changed: Scope, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """SCRIPT_NAME and PATH_INFO as root path and path.

    Moving a part from one to the other (a dispatcher), or setting SCRIPT_NAME alone (a prefix that a proxy has
    stripped), says where the application is mounted; the request stays the same.
    """
    script_name, path_info = _bytes(after, "SCRIPT_NAME"), _bytes(after, "PATH_INFO")
    path = script_name + path_info
    try:
        changed["root_path"] = script_name.decode()
        if after.get("PATH_INFO") != before["PATH_INFO"] and path != _bytes(before, "SCRIPT_NAME") + _bytes(
            before, "PATH_INFO"
        ):
            changed["path"] = path.decode()
            changed["raw_path"] = quote_from_bytes(path, _PATH_SAFE).encode("ascii")
    except UnicodeDecodeError:
        raise PluginError(f"the path was changed to {path!r:.200}, which is not UTF-8") from None


def _change_headers(changed: Scope, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Headers that changed stand where their first line stood; those that did not keep their repeats.

    What changed takes the place of the client's lines with ``_`` for ``-`` too: in CGI and WSGI these are the same
    header, and the upstream may take the client's for the application's.
    """
    entries: dict[bytes, bytes | None] = {}
    for key in before.keys() | after.keys():
        if after.get(key) != before.get(key):
            name = _name(key)
            if name is not None:
                # CGI says of a missing one that it may be empty
                gone = key not in after or (not after[key] and not key.startswith("HTTP_"))
                entries[name] = None if gone else _bytes(after, key)
    if not entries:
        return
    headers: Headers = []
    placed: set[bytes] = set()
    for given, value in changed["headers"]:
        name = given.replace(b"_", b"-")
        if name not in entries:
            headers.append((given, value))
        elif name not in placed:
            placed.add(name)
            new = entries[name]
            if new is not None:
                headers.append((name, new))
    for name in sorted(entries.keys() - placed):
        new = entries[name]
        if new is not None:
            headers.append((name, new))
    changed["headers"] = headers


# response


def parse_status(status: object) -> int:
    """The number of a status line such as ``200 OK``.

    Raises:
        PluginError: it is none.
    """
    match = _status(status) if isinstance(status, str) else None
    if match is None:
        raise PluginError(f'start_response was called with the status {status!r:.200}; one looks like "200 OK"')
    return int(match[1])


def parse_headers(headers: Iterable[Any], known: Collection[tuple[str, str]] = ()) -> Headers:
    """The headers that an application gave to ``start_response``, without the blanks around their values.

    Args:
        headers: what it gave.
        known: the headers of the inner application. A control character in one of these is not its doing.

    Raises:
        PluginError: they are no pairs of str, not latin-1, no header at all, or belong to one connection.
    """
    parsed: Headers = []
    for entry in headers:
        try:
            name, value = entry
        except (TypeError, ValueError):
            raise PluginError(f"start_response was called with a header {entry!r:.200}; it is a pair") from None
        if not isinstance(name, str) or not isinstance(value, str):
            raise PluginError(
                f"start_response was called with the header {name!r:.200}: name and value are str (PEP 3333)"
            )
        if not TOKEN.fullmatch(name):
            raise PluginError(f"start_response was called with the header {name!r:.200}: that is no header name")
        if is_hop_by_hop(name):
            raise PluginError(f"start_response was called with {name:.200}, which is the server's own (PEP 3333)")
        control = _control(value)
        if control is not None and (name, value) not in known:
            what = "a CR, LF or NUL" if control[0] in "\r\n\0" else "a control character"
            raise PluginError(f"start_response was called with {what} in the value of {name:.200}")
        try:
            parsed.append((name.lower().encode("ascii"), value.strip(" \t").encode("latin-1")))
        except UnicodeEncodeError:
            raise PluginError(f"start_response was called with a value of {name:.200} that is not latin-1") from None
    return parsed


@_by_name
def _spelling(name: bytes) -> str | None:
    """A response header's name as WSGI code is used to see it, some of which compares it as it stands."""
    text = name.decode("latin-1")
    return None if is_hop_by_hop(text) else _SPELLED.get(name, text.title())


def text_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """A real response's headers for ``start_response``: without those that an application must not hand on."""
    texts: list[tuple[str, str]] = []
    for name, value in headers:
        spelling = _spelling(bytes(name))
        if spelling is not None:
            texts.append((spelling, bytes(value).decode("latin-1")))
    return texts


@lru_cache
def status_line(status: int) -> str:
    """Such as ``200 OK``."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"
