"""The tracing headers of a request (W3C Trace Context, Baggage and others), as far as a propagator may read them.

OpenTelemetry itself reads lists of any length, and logs each malformed member in full. Clients write these headers.
"""

import re
from collections.abc import Collection, Iterable

__all__ = ["carrier"]

_SIZES = {b"baggage": (8192, 64), b"tracestate": (2048, 32)}
"""Header that is a list → its maximum length in bytes and in members (W3C Baggage, 3.3.2; Trace Context, 3.3.1.1)."""
_SIZE = 512
"""Maximum length of the other headers, in bytes."""

_name = rb"[!#$%&'*+.^_`|~0-9A-Za-z/@-]+"
_value = rb"[\x21-\x2b\x2d-\x3a\x3c-\x7e]*"
_member = re.compile(rb"[ \t]*" + _name + rb"[ \t]*=[ \t]*" + _value + rb"[ \t]*(;[\t\x20-\x2b\x2d-\x7e]*)?")
_one = re.compile(rb"[\x21-\x7e]*")


def carrier(headers: Iterable[tuple[bytes | None, bytes | None]], fields: Collection[bytes]) -> dict[str, str]:
    """Return the headers for a propagator.

    Malformed and overlong headers are left out, and so is a repeated header, because it is ambiguous. Only the headers
    that are lists may have several lines (W3C Baggage, 3.1).

    Args:
        headers: Of the request, names in any case.
        fields: Names of the headers that the propagator reads, in lower case.
    """
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name is not None and value is not None and name.lower() in fields:
            found.setdefault(name.lower(), []).append(value)
    joined = {name: b",".join(values) for name, values in found.items() if len(values) == 1 or name in _SIZES}
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in joined.items() if _readable(name, value)}


def _readable(name: bytes, value: bytes) -> bool:
    """Return whether a propagator may read a header."""
    size, members = _SIZES.get(name, (_SIZE, 0))
    if len(value) > size or value.count(b",") >= max(members, 1):
        return False
    return all(map(_member.fullmatch, value.split(b","))) if members else bool(_one.fullmatch(value))
