"""The differences between the request that came in and the one a chain passed on, as parts of a Rewrite.

What APISIX does with each part, and what it cannot be told, is measured on APISIX 3.18 (docs/mapping.md). A change
that would be lost is either an error or a warning; docs/mapping.md names the few that are not. Plain functions.
"""

from collections.abc import Callable
from typing import Any, cast

from starlette.types import Scope

from ..apisix_constants import HOP_BY_HOP
from ..errors import PluginError
from ..wire import Rewrite, TextEntry
from .headers import BLANKS, checked_headers, group, shown
from .scope import Args, Headers, parse_query

__all__ = [
    "GATEWAYS_OWN",
    "Warn",
    "changed_args",
    "changed_headers",
    "changed_path",
    "differences",
    "encoding_args",
]

Warn = Callable[[str, str], None]
"""Logs a warning: what it is about (a second warning about the same is not logged), and its text."""

_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
"""Headers that say how long a request body is. The gateway sets them."""
GATEWAYS_OWN = _FRAMING | HOP_BY_HOP | {b"x-real-ip"}
"""Headers that a runner cannot set."""


def _differing(before: Headers, after: list[Any]) -> tuple[dict[bytes, list[bytes]], dict[bytes, list[bytes]]]:
    """Return the values of each name of which any entry differs, before and after, without the blanks around them.

    The entries that a middleware leaves alone are the same objects, and mostly come first. These are neither checked
    nor grouped.
    """
    same = len(before)
    if after[:same] != before:  # else entries were added only
        same = 0
        for entry, other in zip(before, after, strict=False):
            if entry is not other:
                break
            same += 1
    rest = before[same:]
    old = group([(name, value.strip(BLANKS)) for name, value in rest]) if rest else {}
    new = group(checked_headers(after[same:], rest))
    touched = {*old, *new}
    for name, value in reversed(before[:same]):
        if name in touched:
            value = value.strip(BLANKS)
            old.setdefault(name, []).insert(0, value)
            new.setdefault(name, []).insert(0, value)
    return old, new


def differences(
    before: Scope, after: Scope, args: list[TextEntry] | None, body: bytes | None, warn: Warn
) -> Rewrite | None:
    """Return what makes of the request as it came the request that the chain passed on; None: they are the same.

    Args:
        before: The scope of the request.
        after: The scope that the chain passed on.
        args: The arguments of the request.
        body: The request body, if the chain changed it.
        warn: Logs what is lost.

    Raises:
        PluginError: Something was changed that the protocol cannot express.
    """
    if after["method"] != before["method"]:
        raise PluginError(f"the method was changed to {after['method']!r:.200}, which the protocol cannot express")
    path = None if after["path"] == before["path"] else changed_path(before["path"], after["path"])
    if path is not None and "\ufffd" in after["path"]:
        warn("path", "a path that is not UTF-8 was changed: what is not goes upstream as U+FFFD")
    if path is None and after.get("raw_path") not in (before["raw_path"], None):
        warn("raw_path", "a change of raw_path alone is dropped: change path")
    query, changes = after["query_string"], None
    if query != before["query_string"]:
        changes = changed_args(cast("Args", args or []), query, warn) or None
    headers = None
    if after["headers"] != before["headers"]:
        headers = changed_headers(before["headers"], list(after["headers"]), body is not None, warn) or None
    if path is None and headers is None and changes is None and body is None:
        return None
    return Rewrite(path, headers, changes, None, body)


def changed_path(before: str, after: object) -> bytes | None:
    """Return the path to rewrite to, decoded, as APISIX wants it; None: it is unchanged.

    Args:
        before: The path of the request.
        after: The path that the chain passed on.

    Raises:
        PluginError: It is no path. APISIX would answer 502 or 500.
    """
    if after == before:
        return None
    if not isinstance(after, str) or not after.startswith("/"):
        raise PluginError(f'the path was changed to {after!r:.200}; a path begins with "/"')
    try:
        return after.encode()
    except UnicodeEncodeError:
        raise PluginError(f"the path was changed to {after!r:.200}, which is not UTF-8") from None


def changed_args(before: Args, query: object, warn: Warn) -> list[TextEntry]:
    """Return the arguments to set and delete so that `query` results.

    Args:
        before: The arguments of the request, decoded.
        query: The query string that the chain passed on.
        warn: Logs what is lost.

    Raises:
        PluginError: The query string is not bytes.
    """
    if not isinstance(query, bytes):
        raise PluginError(f"the query string was changed to {query!r:.200}; it is bytes")
    old, new = group(before), group(parse_query(query))
    entries: list[TextEntry] = []
    for name, values in new.items():
        if old.get(name) != values:
            if None in values:
                warn("query flag", 'the protocol has no argument without "=": a new "?name" goes upstream as "?name="')
            entries += [(name, value or b"") for value in values]
    entries += [(name, None) for name in old if name not in new]
    return entries


def encoding_args(args: Args, query: bytes) -> list[TextEntry] | None:
    """Return arguments for a Rewrite that change nothing, but make APISIX encode the query again; None: no need.

    Trap: APISIX's own fetch, in ext-plugin-post-resp, refuses a query with one of these characters as it is. With any
    argument in the Rewrite the query is put together anew, so one that is not there is deleted.

    Args:
        args: The arguments of the request, decoded.
        query: The query as the client sent it.
    """
    if not args or query.translate(None, b"<>`") == query:
        return None
    names = {name for name, _ in args}
    missing = b"_"
    while missing in names:
        missing += b"_"
    return [(missing, None)]


def changed_headers(before: Headers, after: list[Any], body_changed: bool, warn: Warn) -> list[TextEntry]:
    """Return the headers to set and delete so that `after` results.

    A Rewrite sets each name once, so repeats are joined: cookies by ``; `` (RFC 9113, 8.2.3), all others by ``, ``
    (RFC 9110, 5.3).

    Trap: of some names (user-agent, referer, content-type and others that nginx knows) a Rewrite sets the first line
    only, and the client's further lines go upstream behind it. A deletion takes all lines, so where there were several
    it comes first.

    Args:
        before: The headers of the request.
        after: The headers that the chain passed on.
        body_changed: True: the Rewrite has a body.
        warn: Logs what is lost.

    Raises:
        PluginError: A header is none, or there is not exactly one host.
    """
    old, new = _differing(before, after)
    entries: list[TextEntry] = []
    for name, values in new.items():
        if old.get(name) == values:
            continue
        if name in GATEWAYS_OWN:
            _warn_of_own(name, body_changed, warn)
            continue
        if name == b"host":
            _check_host(values)
        value = values[0] if len(values) == 1 else (b"; " if name == b"cookie" else b", ").join(values)
        if value:
            if len(old.get(name, ())) > 1:
                entries.append((name, None))
            entries.append((name, value))
        else:
            text = shown(name)
            warn("empty " + text, f"an empty header deletes it in APISIX: the upstream gets no {text}")
            if name in old:
                entries.append((name, None))
    for name in old:
        if name in new:
            continue
        if name in _FRAMING and not body_changed:
            text = shown(name)
            warn(text, f"{text} is the gateway's own: it cannot be deleted")
        elif name == b"host":
            raise PluginError("the host header was deleted; a request has one")
        elif name not in GATEWAYS_OWN:
            entries.append((name, None))
    return entries


def _check_host(values: list[bytes]) -> None:
    if len(values) != 1 or not values[0]:
        raise PluginError(f"the host header was changed to {values!r:.200}; a request has one")
    if b"/" in values[0] or b".." in values[0]:
        raise PluginError(f"the host header was changed to {values[0]!r:.200}; nginx answers 500 to a / or .. in it")


def _warn_of_own(name: bytes, body_changed: bool, warn: Warn) -> None:
    text = shown(name)
    if name in HOP_BY_HOP:
        warn(text, f"{text} is between client and gateway: a change of it is dropped")
    elif name == b"x-real-ip":
        warn(text, "x-real-ip is set by APISIX: a change of it is dropped")
    elif not body_changed:
        warn(text, f"{text} is the gateway's own: a change of it without a change of the body is dropped")
