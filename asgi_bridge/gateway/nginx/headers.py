"""The headers of one request and of one response, in nginx's lists and in APISIX's Lua table.

APISIX keeps the request's headers twice: nginx's list goes upstream, the Lua table goes to the runner, and (trap) a
header set to an empty value leaves the list but stays in the table.
"""

import re
from collections.abc import Iterable, Iterator

from .uri import escape_header_name, escape_header_value, host_name

__all__ = ["Header", "LuaError", "RequestHeaders", "ResponseHeaders"]

Header = tuple[bytes, bytes]

# Request headers for which nginx has a field of its own (``ngx_http_lua_headers_in.c``). Trap: lua-nginx-module writes
# a value into the first line of such a name only. Further lines of the client stay, and to add means to replace. The
# list holds the names that a client may send more than once; Cookie and X-Forwarded-For are lists for nginx.
_FIRST_LINE_ONLY = frozenset(
    b"user-agent referer content-type range accept-encoding via depth destination overwrite date connection upgrade "
    b"keep-alive x-real-ip".split()
)
# nginx refuses a request that has one of these twice
_ONE_LINE = frozenset(
    b"host authorization expect if-match if-none-match if-modified-since if-unmodified-since if-range content-length "
    b"transfer-encoding".split()
)

# get_cookie_table of lua-resty-cookie: a space ends a value too
_COOKIE = re.compile(rb"([^=]*)=([^; \t]*)(?:[; \t][ \t]*)?")

MAX_HEADERS = 100
"""``ngx.req.get_headers`` shows the first 100 (entries, not names) unless told otherwise."""


class LuaError(Exception):
    """APISIX's Lua code raises an error here: the client gets 500, also with ``allow_degradation``."""


def _is_length(value: bytes) -> bool:
    """Whether nginx accepts a length (``ngx_atoof``): digits, and no more than the largest file has."""
    return value.isdigit() and len(value) < 20 and int(value) < 1 << 63


def _put(items: list[Header], name: bytes, entry: Header | None, *, first_only: bool = False) -> list[Header]:
    """Replace the headers of a lower-case name by one, or only the first of them; None: by nothing."""
    place = next((number for number, item in enumerate(items) if item[0].lower() == name), len(items))
    rest = items[place + 1 :]
    if not first_only:
        rest = [item for item in rest if item[0].lower() != name]
    return [*items[:place], *([] if entry is None else [entry]), *rest]


class RequestHeaders:
    """The request's headers. Names keep the case they came in; look-ups ignore it."""

    def __init__(self, headers: Iterable[Header]) -> None:
        self.nginx: list[Header] = list(headers)
        self._table: dict[bytes, list[bytes]] | None = None
        self._cookies: dict[bytes, bytes] | None = None

    @property
    def table(self) -> dict[bytes, list[bytes]]:
        """The Lua table (``core.request.headers``): lower-case names, of the first hundred headers."""
        if self._table is None:
            self._table = {}
            for name, value in self.nginx[:MAX_HEADERS]:
                self._table.setdefault(name.lower(), []).append(value)
        return self._table

    def values(self, name: bytes) -> list[bytes]:
        """Give the values of a lower-case name, as nginx has them."""
        return [value for key, value in self.nginx if key.lower() == name]

    @property
    def content_length(self) -> int | None:
        """The number in Content-Length; None: there is none."""
        values = self.values(b"content-length")
        return int(values[-1]) if values and values[-1].isdigit() else None

    def cookie(self, name: bytes) -> bytes | None:
        """Give the value of a cookie, the last of its name; None: there is none.

        APISIX parses the cookies once. What a plugin makes of the header later does not count.
        """
        if self._cookies is None:
            lines = self.values(b"cookie")
            if not lines:
                return None
            self._cookies = dict(_COOKIE.findall(b"; ".join(lines).lstrip(b" \t")))
        return self._cookies.get(name)

    def set(self, name: bytes, value: bytes | None) -> None:
        """``core.request.set_header``: replace the headers of a name.

        None or an empty value deletes them in nginx's list. Trap: of nginx's built-in fields it replaces only the first
        line.

        Raises:
            LuaError: A Content-Length is no number, or a Host is no host.
        """
        lower = name.lower()
        if value and (
            (lower == b"content-length" and not _is_length(value))
            or (lower == b"host" and host_name(escape_header_value(value), rewritten=True) is None)
        ):
            raise LuaError("failed to set header")
        if self._table is None:
            # nobody has asked for it, so it will be made of the list
            pass
        elif value is None:
            self._table.pop(lower, None)
        else:
            self._table[lower] = [value]
        entry = (escape_header_name(name), escape_header_value(value)) if value and name else None
        self.nginx = _put(self.nginx, lower, entry, first_only=bool(value) and lower in _FIRST_LINE_ONLY)

    def add(self, name: bytes, value: bytes) -> None:
        """``core.request.add_header``: add a header; earlier ones of the name stay.

        Trap: it replaces the headers for which nginx has a field of its own, while the Lua table has both.

        Raises:
            LuaError: As `set`.
        """
        lower = name.lower()
        values = [] if self._table is None else self._table.get(lower, [])
        if lower in _FIRST_LINE_ONLY | _ONE_LINE:
            self.set(name, value)
        else:
            self.nginx = [*self.nginx, (escape_header_name(name), escape_header_value(value))]
        if self._table is not None:
            self._table[lower] = [*values, value]


# Headers for which nginx has a place of its own: a second value replaces the first, where others add up
# (``ngx_http_lua_headers_out.c``, ngx_http_set_builtin_header).
_SINGLE = frozenset(
    b"server date content-encoding refresh last-modified content-range accept-ranges www-authenticate expires "
    b"etag".split()
)


def _hyphenated(name: bytes) -> bytes:
    # lua_transform_underscores_in_response_headers, which is on by default
    return name.replace(b"_", b"-")


class ResponseHeaders:
    """Status and headers of the response, as nginx and plugins have made them (``r->headers_out``).

    Args:
        sent: The client has the head already, so to set a header is an error in Lua.

    Attributes:
        status: 0: not known yet.
        content_type: None: not set, so nginx writes its default; empty: deleted, so there is none.
        content_length: In bytes; nginx believes a plugin that sets it. None: unknown.
        chunked: nginx writes ``Transfer-Encoding: chunked``.
        close: The connection ends with this response.
        body: A plugin's body, which replaces the response's; None: no plugin gives one.
        date_set: nginx adds no Date then. Trap: to delete it is to set it too (ngx_http_set_builtin_header).
    """

    def __init__(self, *, sent: bool = False) -> None:
        self._sent = sent
        self.items: list[Header] = []
        self.content_type: bytes | None = None
        self.content_length: int | None = None
        self.date_set = False
        self.status = 0
        self.chunked = False
        self.close = False
        self.body: bytes | None = None

    def __iter__(self) -> Iterator[Header]:
        return iter(self.items)

    def values(self, name: bytes) -> list[bytes]:
        """Give the values of a lower-case name."""
        return [value for key, value in self.items if key.lower() == name]

    def get(self, name: bytes) -> bytes | None:
        """Give the first value of a lower-case name."""
        return next(iter(self.values(name)), None)

    def remove(self, *names: bytes) -> None:
        """Delete all headers of some lower-case names."""
        self.items = [item for item in self.items if item[0].lower() not in names]

    def _special(self, lower: bytes, value: bytes) -> bool:
        if self._sent:
            raise LuaError("headers have already been sent")
        if lower == b"content-type":
            self.content_type = value
        elif lower == b"content-length":
            if value and not _is_length(value):
                raise LuaError("failed to set header")
            self.content_length = int(value) if value else None
        else:
            self.date_set = self.date_set or lower == b"date"
            return not lower
        return True

    def set(self, name: bytes, value: bytes | None) -> None:
        """``core.response.set_header``: replace the headers of a name; None or an empty value deletes them."""
        name = _hyphenated(name)
        lower = name.lower()
        value = escape_header_value(value or b"")
        if self._special(lower, value):
            return
        name = escape_header_name(name)
        lower = name.lower()
        # the spelling of the first stays
        spelling = next((key for key, _ in self.items if key.lower() == lower), name)
        self.items = _put(self.items, lower, (spelling, value) if value else None)

    def add(self, name: bytes, value: bytes) -> None:
        """``core.response.add_header``: add a header; earlier ones of the name stay, unless nginx knows only one."""
        name = _hyphenated(name)
        lower = name.lower()
        value = escape_header_value(value)
        if self._special(lower, value):
            return
        old = self.get(lower)
        # Location: nginx forgets its place for one that begins with a slash, so only an absolute one is replaced.
        if old is not None and (lower in _SINGLE or (lower == b"location" and not old.startswith(b"/"))):
            self.set(name, value)
        elif value:
            self.items.append((escape_header_name(name), value))

    def take_entries(
        self,
        entries: Iterable[tuple[bytes | None, bytes | None]],
        *,
        drop: frozenset[bytes] = frozenset(),
        lower: bool = True,
    ) -> None:
        """Put a runner's entries on the response: the first of a name replaces, further ones add.

        Args:
            entries: What the runner sent.
            drop: Lower-case names that are left out.
            lower: Write names in lower case, as those of a runner are.

        Raises:
            LuaError: An entry has no name, or a Content-Length is no number.
        """
        seen: set[bytes] = set()
        for name, value in entries:
            if name is None:
                raise LuaError("bad argument #1 to 'str_lower' (string expected, got no value)")
            key = name.lower()
            if key in drop:
                continue
            if key in seen and value is not None:
                self.add(key if lower else name, value)
            else:
                # a further entry without a value deletes the earlier ones
                self.set(key if lower else name, value)
                seen.add(key)
