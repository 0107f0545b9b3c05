"""What the plugins that check credentials share: reading credentials, refusing a request, naming the client upstream.

A refusal names the rule that was broken. It never repeats what the client sent, and never says what would be right.
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
"""Headers that cannot carry the client's identity, in lower case."""


class Refused(Exception):
    """The credentials are refused. The client gets 401, with the text of this error.

    Attributes:
        error: The error code of RFC 6750; None if the client sent no credentials.
    """

    def __init__(self, reason: str, error: str | None = "invalid_token") -> None:
        super().__init__(reason)
        self.error = error


class Unavailable(Exception):
    """The credentials cannot be checked now. The client gets 503, with the text of this error.

    Attributes:
        seconds: The client may try again after this time.
    """

    def __init__(self, reason: str, seconds: int) -> None:
        super().__init__(reason)
        self.seconds = seconds


def _identity(name: str) -> str:
    if name.lower().replace("_", "-") in _NOT_AN_IDENTITY:
        raise ValueError(f"{name.lower()} has another meaning: it cannot carry the identity of the client")
    return name


IdentityName = Annotated[EndToEndName, AfterValidator(_identity)]
"""The name of a header that tells the upstream who the client is."""

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
"""Checks a request. Returns the headers that tell the upstream who the client is, and a callable that receives the
body from now on. Raises Refused or Unavailable."""


def guard(
    check: Check, *, challenge: Callable[[Refused], str], identity_names: Collection[bytes], hide_credentials: bool
) -> ASGIApp:
    """Return an application that lets a request pass if `check` accepts it.

    Args:
        check: Checks the request.
        challenge: Returns the WWW-Authenticate header of a refusal.
        identity_names: Names of all headers that `check` can return, in lower case. A client's own headers of these
            names are removed.
        hide_credentials: Remove the Authorization header, too.
    """
    removed = {*identity_names, b"authorization"} if hide_credentials else identity_names

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
    """Return what follows `scheme` in the Authorization header; None if it is missing or has another scheme.

    Args:
        scope: The request.
        scheme: In lower case, such as ``b"basic"``.

    Raises:
        Refused: There are several Authorization headers. The upstream might use another one than we do.
    """
    lines = [value for name, value in scope["headers"] if dashed(name.lower()) == b"authorization"]
    if len(lines) > 1:
        raise Refused("more than one Authorization header", "invalid_request")
    if not lines:
        return None
    found, _, rest = lines[0].strip().partition(b" ")
    return rest.strip() if found.lower() == scheme else None


def as_value(text: str) -> bytes | None:
    """Encode `text` as the value of a header, in UTF-8; None if no header can hold it.

    That includes text that begins or ends with blanks. HTTP drops them, so ``" admin"`` would arrive as ``admin``.
    """
    if text != text.strip() or any(character < " " or character == "\x7f" for character in text):
        return None
    try:
        return text.encode()
    except UnicodeEncodeError:  # an unpaired surrogate
        return None
