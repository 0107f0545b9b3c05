"""Status and headers of a response, between WSGI's text and ASGI's bytes. Text is latin-1."""

import re
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, TypeAlias, TypeVar
from wsgiref.util import is_hop_by_hop

from ..apisix_constants import TOKEN
from ..errors import PluginError

__all__ = ["Headers", "cached_by_name", "parse_headers", "parse_status", "status_line", "text_headers"]

Headers: TypeAlias = list[tuple[bytes, bytes]]

_Value = TypeVar("_Value")

_CACHED_LENGTH = 64
"""Maximum length of a cached header name, in bytes. Anybody can make up names, so their number is bounded too."""
_SPELLED = {b"etag": "ETag", b"www-authenticate": "WWW-Authenticate", b"content-md5": "Content-MD5"}
"""Names that `str.title` would spell in another way than most servers do."""

_status = re.compile(r"([1-9][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?").fullmatch
_control = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]").search


def cached_by_name(function: Callable[[bytes], _Value]) -> Callable[[bytes], _Value]:
    """Decorate a function of a header's name with a cache for names of usual length."""
    cached = lru_cache(1024)(function)

    def of_name(name: bytes) -> _Value:
        return cached(name) if len(name) <= _CACHED_LENGTH else function(name)

    return of_name


def parse_status(status: object) -> int:
    """Return the number of a status line such as ``200 OK``.

    Raises:
        PluginError: It is no status line.
    """
    match = _status(status) if isinstance(status, str) else None
    if match is None:
        raise PluginError(f'start_response was called with the status {status!r:.200}; one looks like "200 OK"')
    return int(match[1])


def parse_headers(headers: Iterable[Any], known: Collection[tuple[str, str]] = ()) -> Headers:
    """Return the headers that an application passed to ``start_response``, without the blanks around their values.

    Args:
        headers: What the application passed.
        known: Headers of the inner application. The outer one is not to blame for control characters in these.

    Raises:
        PluginError: An entry is no pair of str, is not latin-1, is no header at all, or belongs to one connection.
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


@cached_by_name
def _spelling(name: bytes) -> str | None:
    """Spell a name as WSGI code expects it, since some code compares the case too; None: applications never see it."""
    text = name.decode("latin-1")
    return None if is_hop_by_hop(text) else _SPELLED.get(name, text.title())


def text_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Return a response's headers for ``start_response``, without those that an application must not pass on."""
    texts: list[tuple[str, str]] = []
    for name, value in headers:
        spelling = _spelling(bytes(name))
        if spelling is not None:
            texts.append((spelling, bytes(value).decode("latin-1")))
    return texts


@lru_cache
def status_line(status: int) -> str:
    """Return a status line such as ``200 OK``."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"
