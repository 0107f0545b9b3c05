"""The headers that plugins set, of requests and of responses: what is checked before the gateway gets them.

Plain functions: between calls nothing is kept but one cache of bounded size.
"""

from collections.abc import Iterable
from typing import Any

from ..apisix_constants import TOKEN_BYTES
from ..errors import PluginError
from .scope import Headers

__all__ = ["BLANKS", "CONTROLS", "checked_headers", "group", "shown"]

_token = TOKEN_BYTES.fullmatch

BLANKS = b" \t"
"""What may stand around a header's value without being part of it (RFC 9110, 5.6.3)."""
CONTROLS = bytes(byte for byte in (*range(0x20), 0x7F) if byte != 0x09)
"""Bytes that no header's value may hold (RFC 9110, 5.5)."""
# Maps every string without these to itself. A table is ready at each use; bytes to delete are made into one each time.
_WITHOUT_CONTROLS = bytes(0x20 if byte in CONTROLS else byte for byte in range(256))


def shown(name: bytes) -> str:
    """Return a header's name for a log line. It is cut short, because clients make up names of any length."""
    return name[:64].decode("latin-1") + ("..." if len(name) > 64 else "")


_KEPT_NAMES = 1024
"""Maximum number of header names in the cache. Clients make up names, so their number and lengths are bounded."""
_KEPT_LENGTH = 64
"""Maximum length of such a name, in bytes."""


class _Names(dict[Any, bytes]):
    """Cache: a header name → the name in lower case. Most headers have one of few names, so these are checked once."""

    def __missing__(self, name: Any) -> bytes:
        if type(name) is not bytes:
            raise TypeError
        if not _token(name):
            raise PluginError(f"header {name!r:.200}: that is no header name")
        lower = name.lower()
        if len(name) <= _KEPT_LENGTH and len(self) < _KEPT_NAMES:
            self[name] = lower
        return lower


_names = _Names()


def checked_headers(headers: Iterable[Any], before: Iterable[tuple[bytes, bytes]] = ()) -> Headers:
    """Return `headers` as lower-case pairs of bytes, without the blanks around the values.

    Args:
        headers: That a plugin has set.
        before: That the plugin got. A control character in one of these is not the plugin's doing.

    Raises:
        PluginError: A name is no token, or a value holds a control character. APISIX would send something else.
    """
    pairs = list(headers)
    checked: Headers = []
    try:
        for name, value in pairs:  # as nearly all are
            if type(value) is not bytes:
                break
            value = value.strip(BLANKS)
            if value.translate(_WITHOUT_CONTROLS) != value:
                break
            checked.append((_names[name], value))
        else:
            return checked
    except (TypeError, ValueError):  # something unusual: see below
        pass
    try:
        checked = [(_names[name], value.strip(BLANKS)) for name, value in pairs if type(value) is bytes]
    except (TypeError, ValueError):  # a name that cannot be a key: a bytearray, a memoryview of one
        checked = []
    if len(checked) != len(pairs):
        return checked_headers([_as_bytes(pair) for pair in pairs], before)
    values = b"".join([value for _, value in checked])
    if values.translate(_WITHOUT_CONTROLS) != values:
        known = {(name, value.strip(BLANKS)) for name, value in before}
        for name, value in checked:
            if value.translate(_WITHOUT_CONTROLS) != value and (name, value) not in known:
                splits = value.translate(None, b"\r\n\0") != value
                what = "a CR, LF or NUL" if splits else "a control character"
                raise PluginError(f"header {shown(name)}: its value holds {what}")
    return checked


def _as_bytes(pair: Any) -> tuple[bytes, bytes]:
    try:
        name, value = pair
    except (TypeError, ValueError):
        raise PluginError(f"header {pair!r:.200}: a header is a pair of name and value") from None
    try:
        return bytes(memoryview(name)), bytes(memoryview(value))
    except TypeError:
        raise PluginError(f"header {name!r:.200}: name and value must be bytes") from None


def group(pairs: Iterable[tuple[bytes, Any]]) -> dict[bytes, list[Any]]:
    """Return the values of each name, in order."""
    groups: dict[bytes, list[Any]] = {}
    for name, value in pairs:
        groups.setdefault(name, []).append(value)
    return groups
