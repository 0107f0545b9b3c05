"""URIs and query strings as nginx and OpenResty read and write them.

The tables are those of nginx (``ngx_escape_uri``) and of lua-nginx-module (``ngx_http_lua_escape_uri``), not those of
an RFC: they decide what a plugin sees and what the upstream gets.
"""

import re
from collections.abc import Iterable
from typing import TypeAlias

__all__ = [
    "Args",
    "encode_args",
    "escape_controls",
    "escape_header_name",
    "escape_header_value",
    "escape_uri",
    "host_name",
    "normalise_path",
    "parse_args",
    "raw",
    "split_authority",
    "split_target",
]

Args: TypeAlias = dict[bytes, list[bytes | None]]
"""A decoded query: for each name its values in order. None: the name stood without ``=`` (``true`` in Lua)."""

_HEX = b"0123456789abcdefABCDEF"


def _table(escaped: Iterable[int]) -> list[bytes]:
    escaped = frozenset(escaped)
    return [b"%%%02X" % code if code in escaped else bytes((code,)) for code in range(256)]


_NOT_IN_HOST = re.compile(rb"[\x00-\x20\x7f/]")
_NOT_IN_REWRITTEN_HOST = re.compile(rb"[\x00/]")
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
_CONTROLS = frozenset(range(0x20)) | {0x7F}
_HIGH = frozenset(range(0x80, 0x100))
# NGX_ESCAPE_URI of nginx 1.27; ``core.utils.uri_safe_encode`` of APISIX uses the same one
_URI = _table(_CONTROLS | _HIGH | frozenset(b' "#%<>?\\^`{|}'))
# lua-nginx-module, uri_component: the characters of encodeURIComponent stay
_COMPONENT = _table(_CONTROLS | _HIGH | frozenset(b' "#$%&+,/:;<=>?@[\\]^`{|}'))
# lua-nginx-module, header_name and header_value: this is what keeps a line break of a plugin out of the head
_HEADER_NAME = _table(_CONTROLS | _HIGH | frozenset(b' "(),/:;<=>?@[\\]{}'))
_HEADER_VALUE = _table(_CONTROLS - {0x09})
_CONTROL = _table(_CONTROLS)


def _escape(text: bytes, table: list[bytes]) -> bytes:
    return b"".join(map(table.__getitem__, text))


def escape_uri(path: bytes) -> bytes:
    """Escape a decoded path. A ``%`` and a ``?`` are characters of the path like others, so they are escaped too."""
    return _escape(path, _URI)


def escape_controls(query: bytes) -> bytes:
    """Escape nothing but control characters (``core.utils.escape_uri_control_chars``)."""
    return _escape(query, _CONTROL)


def escape_header_name(name: bytes) -> bytes:
    """Escape what cannot stand in a header's name."""
    return _escape(name, _HEADER_NAME)


def escape_header_value(value: bytes) -> bytes:
    """Escape control characters, line breaks first of all."""
    return _escape(value, _HEADER_VALUE)


def raw(text: str) -> bytes:
    """Give a text of the route file as the bytes that APISIX compares and sends: UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def host_name(value: bytes, *, rewritten: bool = False) -> bytes | None:
    """Give the name in a Host header, in lower case and without a port or a final dot (``ngx_http_validate_host``).

    Args:
        value: Of the header.
        rewritten: True: a plugin has set it. Lua uses an older check, which accepts blanks.

    Returns:
        None where nginx answers 400, or Lua fails.
    """
    if b".." in value or (_NOT_IN_REWRITTEN_HOST if rewritten else _NOT_IN_HOST).search(value):
        return None
    if value.startswith(b"["):
        name = value.partition(b"]")[0] + b"]" if b"]" in value else value
    else:
        name = value.partition(b":")[0]
    if name.endswith(b".") and value.rfind(b".") == len(name) - 1:
        name = name[:-1]
    return name.lower() or None


def split_authority(target: bytes) -> tuple[bytes | None, bytes]:
    """Give the authority and the rest of a request target in absolute form; None: it is in origin form."""
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        return None, target
    rest = target[absolute.end() :]
    return absolute[1], rest if rest.startswith(b"/") else b"/" + rest


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Give the raw path and the raw query of a request target. A fragment belongs to neither."""
    path, _, query = target.partition(b"#")[0].partition(b"?")
    return path, query


def normalise_path(path: bytes) -> bytes | None:
    """Decode a raw path, merge slashes and resolve dots (``ngx_http_parse_complex_uri``).

    Returns:
        The decoded path; None where nginx answers 400: not absolute, above the root, ``%00``, a ``%`` without two
        hexadecimal digits.
    """
    decoded = bytearray()
    position = 0
    while (found := path.find(b"%", position)) >= 0:
        digits = path[found + 1 : found + 3]
        if len(digits) < 2 or digits[0] not in _HEX or digits[1] not in _HEX:
            return None
        decoded += path[position:found]
        decoded.append(int(digits, 16))
        position = found + 3
    decoded += path[position:]
    if not decoded.startswith(b"/") or 0 in decoded:
        return None
    # escaped dots and slashes count too: %2F is a slash, %2e%2e goes up
    segments: list[bytes] = []
    parts = bytes(decoded).split(b"/")[1:]
    for part in parts:
        if part == b"..":
            if not segments:
                return None
            segments.pop()
        elif part not in (b"", b"."):
            segments.append(part)
    if segments and parts[-1] in (b"", b".", b".."):
        segments.append(b"")
    return b"/" + b"/".join(segments)


def _unescape(text: bytes) -> bytes:
    text = text.replace(b"+", b" ")
    first, *rest = text.split(b"%")
    out = bytearray(first)
    for part in rest:
        # a % without two hexadecimal digits is an ordinary character
        if len(part) >= 2 and part[0] in _HEX and part[1] in _HEX:
            out.append(int(part[:2], 16))
            out += part[2:]
        else:
            out += b"%" + part
    return bytes(out)


def parse_args(query: bytes) -> Args:
    """Decode a query as ``ngx.req.get_uri_args`` does: empty names are dropped, ``;`` separates nothing."""
    args: Args = {}
    for pair in query.split(b"&"):
        name, equals, value = pair.partition(b"=")
        name = _unescape(name)
        if name:
            args.setdefault(name, []).append(_unescape(value) if equals else None)
    return args


def encode_args(args: Args) -> bytes:
    """Encode a query as ``ngx.req.set_uri_args`` does with a table."""
    return b"&".join(
        _escape(name, _COMPONENT) + (b"" if value is None else b"=" + _escape(value, _COMPONENT))
        for name, values in args.items()
        for value in values
    )
