"""Request headers that note which of them a plugin looks for."""

from collections.abc import Iterable
from typing import Any

__all__ = ["Reads", "noting"]


class Reads:
    """What a plugin has looked for.

    Attributes:
        names: Names of headers that it compared with those of the request, in lower case.
        all: True: it made text or keys of all names, so nothing tells which of them it reads.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.all = False


class _Name(bytes):
    """The name of a header. It notes with which names it is compared."""

    __slots__ = ()
    reads: Reads

    def __eq__(self, other: object) -> bool:
        if isinstance(other, bytes) and not isinstance(other, _Name):
            self.reads.names.add(other.decode("latin-1").lower())
        return bytes.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        self.reads.all = True
        return bytes.__hash__(self)

    def decode(self, *arguments: Any, **options: Any) -> str:
        self.reads.all = True
        return bytes.decode(self, *arguments, **options)

    def lower(self) -> bytes:
        return self


def noting(headers: Iterable[tuple[bytes, bytes]], reads: Reads) -> list[tuple[bytes, bytes]]:
    """Return the headers, with names that note what they are compared with.

    Args:
        headers: Of a request, names in lower case.
        reads: Where it is noted.
    """
    kind = type("_Name", (_Name,), {"reads": reads})
    return [(kind(name), value) for name, value in headers]
