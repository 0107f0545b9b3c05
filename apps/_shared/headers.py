"""Request headers that a plugin vouches for: the client's own of these names must not reach the upstream."""

from collections.abc import Collection, Iterable

__all__ = ["Headers", "dashed", "encoded", "without"]

Headers = list[tuple[bytes, bytes]]


def dashed(name: bytes) -> bytes:
    """CGI and WSGI do not tell ``_`` from ``-``, and APISIX lets both pass."""
    return name.replace(b"_", b"-")


def encoded(names: Iterable[str]) -> frozenset[bytes]:
    """Names as they stand in a scope."""
    return frozenset(name.lower().encode("ascii") for name in names)


def without(headers: Iterable[tuple[bytes, bytes]], names: Collection[bytes]) -> Headers:
    """`headers` but for those of `names`, also those written with ``_`` for ``-``, in whatever case."""
    removed = {dashed(name) for name in names}
    return [header for header in headers if dashed(header[0].lower()) not in removed]
