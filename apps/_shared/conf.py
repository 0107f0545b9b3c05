"""What the configurations of these plugins share: strictness, bounds, and types that an HTTP message can hold.

Everything that a route can make long has a limit, and the first error of a list ends it: checking a configuration holds
up the runner's loop, so it has to be short whatever a route says.
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
"""APISIX hides what is beyond."""


class Conf(pydantic.BaseModel):
    """A route's configuration: no unknown keys, and no ``"50"`` where a number belongs."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


def few(length: int) -> tuple[Any, ...]:
    """Marks a list of at most `length` values, of which only the first bad one is told."""
    return (Field(max_length=length, fail_fast=True),)


def most(length: int) -> tuple[Any, ...]:
    """Marks an object of at most `length` entries. (pydantic itself counts them after it has checked them all.)"""
    return Field(max_length=length), BeforeValidator(_counted(length))


def _counted(length: int) -> Callable[[Any], Any]:
    def count(value: Any) -> Any:
        if isinstance(value, Sized) and len(value) > length:
            raise PydanticCustomError("too_long", "at most {length} entries", {"length": length})
        return value

    return count


Text = Annotated[str, Field(max_length=2**20)]
"""A body, or what stands in one."""


def _possible(status: int) -> int:
    if status in (408, 444, 499):
        raise ValueError("APISIX never ends a response of this status, or closes the connection without a byte")
    return status


Status = Annotated[int, Field(ge=200, le=999), AfterValidator(_possible)]
"""A status that a client can get through APISIX."""

HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=256)]
"""A token (RFC 9110, 5.6.2)."""

_OF_THE_CONNECTION = frozenset((
    "connection", "content-length", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
    "upgrade",
))  # fmt: skip


def _end_to_end(name: str) -> str:
    if name.lower() in _OF_THE_CONNECTION:
        raise ValueError(f"{name.lower()} belongs to one connection: the gateway sets it, a plugin cannot")
    return name


EndToEndName = Annotated[HeaderName, AfterValidator(_end_to_end)]
"""The name of a header that a plugin can set."""

HeaderValue = Annotated[str, Field(pattern=r"^[\t\x20-\x7e\x80-\xff]*$", max_length=8192)]
"""Latin-1 without control characters (RFC 9110, 5.5)."""

HeaderValues = Annotated[list[HeaderValue], *few(MAX_HEADERS)]
"""Of several headers of one name."""
