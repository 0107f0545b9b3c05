"""Conditional requests (``If-None-Match`` and its kin), as nginx checks them on the response that Lua has made."""

import calendar
from email.utils import parsedate

from .exchange import Exchange

__all__ = ["status_after_conditions"]


def status_after_conditions(exchange: Exchange, status: int) -> int:
    """Return the status of a response after the conditions of its request: the same, 304, or 412.

    The order of the checks is that of ``ngx_http_not_modified_filter_module.c``.

    Args:
        exchange: Request and response.
        status: Of the response so far. Only 200 can change.
    """
    if status != 200:
        return status

    def wanted(name: bytes) -> bytes | None:
        values = exchange.headers.values(name)
        return values[0] if values else None

    def tags_match(header: bytes, *, weak: bool) -> bool:
        if header == b"*":
            return True
        etag = exchange.response.get(b"etag")
        if etag is None:
            return False
        known = etag.removeprefix(b"W/") if weak else etag
        tags = [tag.strip() for tag in header.split(b",")]
        return known in [tag.removeprefix(b"W/") if weak else tag for tag in tags]

    modified = _time(exchange.response.get(b"last-modified"))
    unmodified_since, since = wanted(b"if-unmodified-since"), wanted(b"if-modified-since")
    if unmodified_since is not None:
        then = _time(unmodified_since)
        # trap: times that cannot be compared count as modified
        if modified is None or then is None or then < modified:
            return 412
    match, none_match = wanted(b"if-match"), wanted(b"if-none-match")
    if match is not None and not tags_match(match, weak=False):
        return 412
    if since is None and none_match is None:
        return status
    # nginx's "if_modified_since exact": only the very same time counts as not modified
    if since is not None and (modified is None or _time(since) != modified):
        return status
    if none_match is not None and not tags_match(none_match, weak=True):
        return status
    return 304


def _time(value: bytes | None) -> int | None:
    # ngx_parse_http_time ignores the zone too
    parsed = None if value is None else parsedate(value.decode("latin-1"))
    return None if parsed is None else calendar.timegm(parsed)
