"""Requests, answers and what an upstream sees: the parts that have to be alike with and without a gateway."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import unquote_to_bytes

__all__ = [
    "GATEWAYS_OWN",
    "Answer",
    "Request",
    "Result",
    "Seen",
    "alike",
    "arguments",
    "by_name",
    "get",
    "sent",
    "write_arguments",
]


@dataclass(frozen=True)
class Request:
    """One request of a client. Texts are latin-1, one character a byte.

    Attributes:
        target: path and query, or a URL.
        headers: names and values. A client adds ``host`` where there is none.
        chunked: the body is sent in chunks, without its length.
        limit: name of the limit that this request meets; empty: none.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    chunked: bool = False
    limit: str = ""

    def __str__(self) -> str:
        headers = " ".join(f"{name}:{value}" for name, value in self.headers if not value.startswith("session="))
        return f"{self.method} {self.target} {headers}".strip().replace("[", "(").replace("]", ")")[:110]


def get(target: str, limit: str = "", **headers: str) -> Request:
    """Return a GET. A ``_`` in the name of a header stands for ``-``."""
    return Request("GET", target, _headers(headers), limit=limit)


def sent(method: str, target: str, body: bytes = b"", limit: str = "", **headers: str) -> Request:
    """Return a request. A ``_`` in the name of a header stands for ``-``."""
    return Request(method, target, _headers(headers), body, limit=limit)


def _headers(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name.replace("_", "-"), value) for name, value in headers.items())


@dataclass(frozen=True)
class Answer:
    """What the client got, as far as it has to be alike.

    Attributes:
        headers: values by name; repeated ones in their order.
        length: the content-length of an answer to HEAD. Elsewhere it only says how the body is framed.
        body: the decoded body: a compressed stream has more than one spelling.
    """

    status: int
    headers: Mapping[str, Sequence[str]]
    length: str | None
    body: bytes

    @classmethod
    def of(cls, request: Request, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> "Answer":
        """Make an answer of what a client got.

        Args:
            request: the request that was answered.
            status: status of the response.
            headers: all headers of the response.
            body: body of the response, decoded.
        """
        # blanks around a value are no part of it (RFC 9110, 5.5)
        got = by_name((name.lower(), value.strip(" \t")) for name, value in headers)
        length = got.get("content-length", [None])[0] if request.method == "HEAD" else None
        kept = {name: values for name, values in got.items() if name not in _NOT_COMPARED}
        return cls(status, kept, length, body)


_NOT_COMPARED = frozenset((
    "server", "date",
    # of the connection
    "connection", "keep-alive", "transfer-encoding", "content-length",
))  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What the upstream got. Texts are latin-1, one character a byte.

    Attributes:
        path: the decoded path.
        query: the query string as it came.
        headers: names and values as they came.
    """

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


GATEWAYS_OWN = frozenset((
    # nginx's proxy module sets them or leaves them out
    "connection", "content-length", "expect", "keep-alive", "te", "transfer-encoding", "upgrade",
    "x-forwarded-for", "x-real-ip",
    # APISIX sets them for each request
    "forwarded", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto",
))  # fmt: skip
"""Request headers that the gateway sets. An upstream without a gateway gets others."""

Name = TypeVar("Name")
Value = TypeVar("Value")


def by_name(pairs: Iterable[tuple[Name, Value]]) -> dict[Name, list[Value]]:
    """Group pairs by their name; the values of a name keep their order."""
    groups: dict[Name, list[Value]] = {}
    for name, value in pairs:
        groups.setdefault(name, []).append(value)
    return groups


def alike(seen: Seen) -> Seen:
    """Return the part of `seen` that has to be alike: sorted by names, without the headers that the gateway sets."""
    headers = sorted((pair for pair in seen.headers if pair[0] not in GATEWAYS_OWN), key=lambda pair: pair[0])
    query = write_arguments(sorted(arguments(seen.query), key=lambda pair: pair[0]))
    return replace(seen, query=query, headers=tuple(headers))


def arguments(query: str) -> list[tuple[bytes, bytes | None]]:
    """Return names and values of a query as APISIX reads them. An argument without ``=`` has the value None."""
    found: list[tuple[bytes, bytes | None]] = []
    for part in query.encode("latin-1").split(b"&"):
        name, equals, value = (unquote_to_bytes(text.replace(b"+", b" ")) for text in part.partition(b"="))
        if name:
            found.append((name, value if equals else None))
    return found


def write_arguments(pairs: Iterable[tuple[bytes, bytes | None]]) -> str:
    """Return the query of `pairs`, with each byte escaped."""
    return "&".join(_quote(name) + ("" if value is None else "=" + _quote(value)) for name, value in pairs)


def _quote(text: bytes) -> str:
    return "".join(f"%{byte:02X}" for byte in text)


@dataclass(frozen=True)
class Result:
    """What came of one request on one side.

    Attributes:
        answer: what the client got.
        seen: what the upstream got: one request, or none.
    """

    answer: Answer
    seen: tuple[Seen, ...] = ()
