"""Types for the configurations of these plugins: strict, bounded, and valid in an HTTP message.

Checking a configuration blocks the runner's event loop, so it has to be quick whatever a route contains. Therefore
everything that a route can make long has a limit, and checking a list stops at its first error.
"""

from collections.abc import Callable, Sized
from typing import Annotated, Any

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

__all__ = [
    "MAX_HEADERS", "Conf", "EndToEndName", "HeaderName", "HeaderValue", "HeaderValues", "Status", "Text", "few", "most",
]  # fmt: skip

MAX_HEADERS = 99
"""Maximum number of headers. APISIX hides any further ones from plugins."""


class Conf(pydantic.BaseModel):
    """Base class of configurations: refuses unknown keys, and ``"50"`` in place of a number."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


def few(length: int) -> tuple[Any, ...]:
    """Return annotations for a list of at most `length` values. Checking stops at the first bad value."""
    return (Field(max_length=length, fail_fast=True),)


def most(length: int) -> tuple[Any, ...]:
    """Return annotations for an object of at most `length` entries.

    They are counted before they are checked. Pydantic's own ``max_length`` counts them afterwards.
    """
    return Field(max_length=length), BeforeValidator(_counted(length))


def _counted(length: int) -> Callable[[Any], Any]:
    def count(value: Any) -> Any:
        if isinstance(value, Sized) and len(value) > length:
            raise PydanticCustomError("too_long", "at most {length} entries", {"length": length})
        return value

    return count


Text = Annotated[str, Field(max_length=2**20)]
"""A body, or a part of one: at most 1 MiB of characters."""


def _possible(status: int) -> int:
    if status in (408, 444, 499):
        raise ValueError("APISIX cannot pass this status on: the client would wait for ever, or lose the connection")
    return status


Status = Annotated[int, Field(ge=200, le=999), AfterValidator(_possible)]
"""A status that APISIX can pass on to a client."""

HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=256)]
"""The name of a header: a token (RFC 9110, 5.6.2)."""

_OF_THE_CONNECTION = frozenset((
    "connection", "content-length", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
    "upgrade",
))  # fmt: skip


def _end_to_end(name: str) -> str:
    if name.lower() in _OF_THE_CONNECTION:
        raise ValueError(f"{name.lower()} belongs to one connection: the gateway sets it, a plugin cannot")
    return name


EndToEndName = Annotated[HeaderName, AfterValidator(_end_to_end)]
"""The name of a header that a plugin may set."""

HeaderValue = Annotated[str, Field(pattern=r"^[\t\x20-\x7e\x80-\xff]*$", max_length=8192)]
"""The value of a header: Latin-1 without control characters (RFC 9110, 5.5)."""

HeaderValues = Annotated[list[HeaderValue], *few(MAX_HEADERS)]
"""The values of several headers that have one name."""
