"""What the plugins that check credentials share: how they are read, refused, and what the upstream is told.

A refusal says which rule was broken, never what the client sent, and never what would have been right.
"""

from collections.abc import Awaitable, Callable, Collection
from typing import Annotated

from pydantic import AfterValidator, Field
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import upstream

from .conf import EndToEndName
from .headers import Headers, dashed, without

__all__ = [
    "Check", "HideCredentials", "IdentityName", "Realm", "Refused", "Unavailable", "as_value", "credentials", "guard",
]  # fmt: skip

_NOT_AN_IDENTITY = frozenset(("authorization", "host", "x-real-ip"))


class Refused(Exception):
    """The credentials do not do; the text says why, to the client. It gets 401.

    Attributes:
        error: RFC 6750's word for it; None: the client has not tried.
    """

    def __init__(self, reason: str, error: str | None = "invalid_token") -> None:
        super().__init__(reason)
        self.error = error


class Unavailable(Exception):
    """There is no telling now whether the credentials do; the text says why, to the client. It gets 503.

    Attributes:
        seconds: after which it may try again.
    """

    def __init__(self, reason: str, seconds: int) -> None:
        super().__init__(reason)
        self.seconds = seconds


def _identity(name: str) -> str:
    if name.lower().replace("_", "-") in _NOT_AN_IDENTITY:
        raise ValueError(f"{name.lower()} has a meaning of its own: it cannot tell who the client is")
    return name


IdentityName = Annotated[EndToEndName, AfterValidator(_identity)]
"""A header that tells the upstream who the client is."""

Realm = Annotated[
    str,
    Field(
        pattern=r"^[\x20\x21\x23-\x5b\x5d-\x7e]{1,128}$",
        max_length=128,
        description="Realm of the challenge that a refusal holds.",
    ),
]

HideCredentials = Annotated[bool, Field(description="True: the upstream does not get the Authorization header.")]

Check = Callable[[Scope, Receive], Awaitable[tuple[Headers, Receive]]]
"""Looks at a request: gives the headers that tell the upstream who the client is, and what receives the body from here
on. Raises Refused or Unavailable."""


def guard(
    check: Check, *, challenge: Callable[[Refused], str], told: Collection[bytes], hide_credentials: bool
) -> ASGIApp:
    """An application that lets a request pass if `check` does.

    Args:
        check: looks at the request.
        challenge: the WWW-Authenticate header of a refusal.
        told: all names that could be among the headers that `check` gives: the client's own of these are removed.
        hide_credentials: True: the Authorization header is removed.
    """
    removed = {*told, b"authorization"} if hide_credentials else told

    async def authenticate(scope: Scope, receive: Receive, send: Send) -> None:
        app: ASGIApp = upstream
        if scope["type"] == "http":
            try:
                identity, receive = await check(scope, receive)
                if removed:
                    scope["headers"] = without(scope["headers"], removed) + identity
            except Refused as exc:
                headers = {"www-authenticate": challenge(exc), "cache-control": "no-store"}  # RFC 9110, 11.6.1
                app = PlainTextResponse(f"{exc}\n", 401, headers)
            except Unavailable as exc:
                app = PlainTextResponse(f"{exc}\n", 503, {"retry-after": str(exc.seconds)})
        await app(scope, receive, send)

    return authenticate


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
