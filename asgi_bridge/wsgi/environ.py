"""An ASGI scope as a WSGI environ (PEP 3333), and the environ that a middleware passes on as a scope again.

Text in an environ is latin-1: a character for each byte.
"""

import sys
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote_from_bytes
from wsgiref.util import FileWrapper

from starlette.types import Scope

from ..errors import PluginError
from .headers import Headers, cached_by_name

__all__ = ["EXTRAS", "build_environ", "changed_scope", "may_have_unannounced_body"]

EXTRAS: Final = "asgi_bridge.environ"
"""Key of a scope for the environ keys that a WSGI plugin made (a session, REMOTE_USER), for the plugins inside."""

_OURS = frozenset((
    "REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "CONTENT_LENGTH", "SERVER_NAME",
    "SERVER_PORT", "SERVER_PROTOCOL", "REMOTE_ADDR", "REMOTE_PORT",
))  # fmt: skip
"""Keys of an environ that stand for a part of the scope."""
_BODYLESS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
"""Methods whose requests hardly ever have a body."""
_PATH_SAFE = "/:@!$&'()*+,;=~"
"""Characters of a path that need no escaping in ``raw_path``."""


@cached_by_name
def _key(name: bytes) -> str | None:
    """Return the environ's key for a header; None: it has none."""
    if name == b"content-type":
        return "CONTENT_TYPE"
    if name == b"content-length":
        return "CONTENT_LENGTH"
    if b"_" in name:
        # It would have the same key as the name with "-", which a proxy may have set and an application trusts. Web
        # servers and nginx drop such headers. Here they reach the upstream, but no WSGI application sees them.
        return None
    return "HTTP_" + name.decode("latin-1").replace("-", "_").upper()


def _name(key: str) -> bytes | None:
    """Return the header that a key of the environ stands for; None: it stands for none."""
    if key.startswith("HTTP_") and key not in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
        try:
            return key[5:].replace("_", "-").lower().encode("latin-1")
        except UnicodeEncodeError:
            raise PluginError(f"environ[{key!r:.200}]: that is no header name") from None
    return {"CONTENT_TYPE": b"content-type", "CONTENT_LENGTH": b"content-length"}.get(key)


def may_have_unannounced_body(scope: Scope) -> bool:
    """Return whether the request may have a body although it has no content-length."""
    names = {name for name, _ in scope["headers"]}
    if b"content-length" in names:
        return False
    return (
        b"transfer-encoding" in names or scope["method"] not in _BODYLESS or scope.get("http_version", "1.1")[:1] != "1"
    )


def _split(scope: Scope) -> tuple[str, str]:
    """Return SCRIPT_NAME and PATH_INFO. The path of a scope begins with its root path, if it has one."""
    path = scope["path"].encode("utf-8").decode("latin-1")
    root = scope.get("root_path", "").rstrip("/").encode("utf-8").decode("latin-1")
    return root, path[len(root) :] if path == root or path.startswith(root + "/") else path


def build_environ(scope: Scope, body: object) -> dict[str, Any]:
    """Return the environ of a request.

    Args:
        scope: The ASGI scope.
        body: The ``wsgi.input``.
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
                # repeated request headers can be joined (RFC 9110, 5.3), cookies by "; " (RFC 9113, 8.2.3)
                text = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + text
            environ[key] = text
    server = scope.get("server") or ("", None)
    # SERVER_NAME is never empty (PEP 3333); the scope has no name where nobody asked the gateway for it
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
    """Return `scope` with what a WSGI application changed, and nothing else; the same object if it changed nothing.

    Args:
        scope: The scope that `before` was made of.
        before: The environ as the application got it.
        after: The environ as the application passed it on.

    Raises:
        PluginError: A value is no latin-1 text, or a path is not UTF-8.
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
        # an application that changes the address alone does not know the port
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
    if isinstance(value, int):  # a length or a port: servers accept that, so applications do it
        value = str(value)
    if not isinstance(value, str):
        raise PluginError(f"environ[{key!r:.200}] was changed to {type(value).__name__}; it must be a str")
    return value


def _bytes(environ: Mapping[str, Any], key: str) -> bytes:
    try:
        return _text(environ, key).encode("latin-1")
    except UnicodeEncodeError:
        raise PluginError(f"environ[{key!r:.200}] was changed to text that is not latin-1 (PEP 3333)") from None


def _change_path(changed: Scope, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Make root path and path of SCRIPT_NAME and PATH_INFO.

    A dispatcher moves a part from one to the other, and SCRIPT_NAME alone may be set to a prefix that a proxy has
    stripped. Both say where the application is mounted. The request stays the same.
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
    """Put each changed header where its first line stood. Unchanged headers keep their repeats.

    A changed header also replaces the client's lines that have ``_`` in place of ``-``. In CGI and WSGI these are the
    same header, and the upstream may take the client's for the application's.
    """
    entries: dict[bytes, bytes | None] = {}
    for key in before.keys() | after.keys():
        if after.get(key) != before.get(key):
            name = _name(key)
            if name is not None:
                # in CGI an absent value may also be an empty one
                gone = key not in after or (not after[key] and not key.startswith("HTTP_"))
                entries[name] = None if gone else _bytes(after, key)
    if not entries:
        return
    headers: Headers = []
    placed: set[bytes] = set()
    for spelled, value in changed["headers"]:
        name = spelled.replace(b"_", b"-")
        if name not in entries:
            headers.append((spelled, value))
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
