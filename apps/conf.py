"""What the configurations of these plugins share: strictness, and types that an HTTP message can hold."""

from typing import Annotated

import pydantic

__all__ = ["Conf", "EndToEndName", "HeaderName", "HeaderValue", "Status"]


class Conf(pydantic.BaseModel):
    """A route's configuration: no unknown keys, and no ``"50"`` where a number belongs."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


def _possible(status: int) -> int:
    if status in (408, 444, 499):
        raise ValueError("APISIX never ends a response of this status, or closes the connection without a byte")
    return status


Status = Annotated[int, pydantic.Field(ge=200, le=999), pydantic.AfterValidator(_possible)]
"""A status that a client can get through APISIX."""

HeaderName = Annotated[str, pydantic.Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
"""A token (RFC 9110, 5.6.2)."""

_OF_THE_CONNECTION = frozenset((
    "connection", "content-length", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
    "upgrade",
))  # fmt: skip


def _end_to_end(name: str) -> str:
    if name.lower() in _OF_THE_CONNECTION:
        raise ValueError(f"{name.lower()} belongs to one connection: the gateway sets it, a plugin cannot")
    return name


EndToEndName = Annotated[HeaderName, pydantic.AfterValidator(_end_to_end)]
"""The name of a header that a plugin can set."""

HeaderValue = Annotated[str, pydantic.Field(pattern=r"^[\t\x20-\x7e\x80-\xff]*$")]
"""Latin-1 without control characters (RFC 9110, 5.5)."""
