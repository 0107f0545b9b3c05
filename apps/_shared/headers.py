"""Names of request headers, and how to remove a client's own headers of some names."""

from collections.abc import Collection, Iterable

__all__ = ["Headers", "dashed", "encoded", "without"]

Headers = list[tuple[bytes, bytes]]
"""Names in lower case, and values, as in a scope."""


def dashed(name: bytes) -> bytes:
    """Write ``-`` for ``_``. CGI and WSGI treat both alike, and APISIX lets both pass."""
    return name.replace(b"_", b"-")


def encoded(names: Iterable[str]) -> frozenset[bytes]:
    """Return header names as a scope has them: bytes in lower case."""
    return frozenset(name.lower().encode("ascii") for name in names)


def without(headers: Iterable[tuple[bytes, bytes]], names: Collection[bytes]) -> Headers:
    """Return `headers` without those of `names`, in any case, and with ``_`` for ``-`` too."""
    removed = {dashed(name) for name in names}
    return [header for header in headers if dashed(header[0].lower()) not in removed]
