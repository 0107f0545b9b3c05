"""What the plugins that check credentials share: how they are read, refused, and what the upstream is told.

A refusal says which rule was broken, never what the client sent, and never what would have been right.
"""

from collections.abc import Collection
from typing import Annotated

from pydantic import AfterValidator, Field
from starlette.responses import PlainTextResponse, Response
from starlette.types import Scope

from .conf import EndToEndName
from .headers import Headers, dashed, without

__all__ = ["HideCredentials", "IdentityName", "Realm", "Refused", "admit", "as_value", "credentials", "unauthorized"]

_NOT_AN_IDENTITY = frozenset(("authorization", "host", "x-real-ip"))


class Refused(Exception):
    """The credentials do not do; the text says why, to the client.

    Attributes:
        error: RFC 6750's word for it.
    """

    def __init__(self, reason: str, error: str = "invalid_token") -> None:
        super().__init__(reason)
        self.error = error


def _identity(name: str) -> str:
    if name.lower().replace("_", "-") in _NOT_AN_IDENTITY:
        raise ValueError(f"{name.lower()} has a meaning of its own: it cannot tell who the client is")
    return name


IdentityName = Annotated[EndToEndName, AfterValidator(_identity)]
"""A header that tells the upstream who the client is."""

Realm = Annotated[
    str,
    Field(pattern=r"^[\x20\x21\x23-\x5b\x5d-\x7e]{1,128}$", description="Realm of the challenge that a refusal holds."),
]

HideCredentials = Annotated[bool, Field(description="True: the upstream does not get the Authorization header.")]


def credentials(scope: Scope, scheme: bytes) -> bytes | None:
    """What follows `scheme` in the Authorization header; None: there is no such header, or it is of another scheme.

    Raises:
        Refused: there are several. Which of them the upstream would take nobody knows.
    """
    lines = [value for name, value in scope["headers"] if dashed(name.lower()) == b"authorization"]
    if len(lines) > 1:
        raise Refused("more than one Authorization header", "invalid_request")
    if not lines:
        return None
    given, _, rest = lines[0].strip().partition(b" ")
    return rest.strip() if given.lower() == scheme else None


def unauthorized(challenge: str, reason: str) -> Response:
    """401 with `challenge` (RFC 9110, 11.6.1)."""
    return PlainTextResponse(reason + "\n", 401, {"www-authenticate": challenge, "cache-control": "no-store"})


def as_value(text: str) -> bytes | None:
    """`text` as the value of a header, in UTF-8; None: it cannot be one.

    A value with blanks around it is none either: they are lost on the way, and ``" admin"`` would arrive as ``admin``.
    """
    if text != text.strip() or any(character < " " or character == "\x7f" for character in text):
        return None
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return None


def admit(scope: Scope, identity: Headers, told: Collection[bytes], hide: bool) -> None:
    """Changes the request of a client whose credentials do.

    Args:
        scope: the request.
        identity: headers that tell the upstream who the client is.
        told: all names that could be among these: the client's own of these names are removed.
        hide: whether the Authorization header is removed.
    """
    removed = {*told, b"authorization"} if hide else told
    if removed:
        scope["headers"] = without(scope["headers"], removed) + identity
