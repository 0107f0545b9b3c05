"""``cors``: Starlette's CORSMiddleware, with limits on what a route may give.

A pattern of origins is a regular expression of RE2. Starlette would compile it with Python's ``re``. Then one short
Origin header could hold up all routes.
"""

from typing import Annotated, Any

from pydantic import Field
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from ._shared.conf import HeaderName, few
from ._shared.patterns import Pattern

__all__ = ["cors"]

MAX_ORIGIN = 300
"""Maximum length of an Origin header, in characters. A host name alone has at most 253."""

Origins = Annotated[
    list[Annotated[str, Field(pattern=r"^[!-~]*$", max_length=MAX_ORIGIN)]], *few(1000),
]  # fmt: skip
Methods = Annotated[list[Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=64)]], *few(100)]
Names = Annotated[list[HeaderName], *few(100)]


class _OriginPattern:
    """Regular expression of RE2 with the one method that Starlette calls on a compiled pattern."""

    def __init__(self, regex: Any) -> None:
        self._regex = regex

    def fullmatch(self, origin: str) -> Any:
        return self._regex.fullmatch(origin.encode()) if len(origin) <= MAX_ORIGIN else None


def cors(
    app: ASGIApp,
    allow_origins: Annotated[
        Origins, Field(description='Origins that may call; ["*"]: all.', examples=[["https://shop.test"]])
    ] = [],  # noqa: B006  # never changed, here and below
    allow_methods: Annotated[Methods, Field(description='Methods that they may use; ["*"]: all.')] = ["GET"],  # noqa: B006
    allow_headers: Annotated[
        Names, Field(description='Headers that they may send, besides the simple ones; ["*"]: all.')
    ] = [],  # noqa: B006
    allow_credentials: Annotated[bool, Field(description="True: they may send cookies and credentials.")] = False,
    allow_origin_regex: Annotated[
        Pattern | None, Field(description="Origins that may call, besides allow_origins: a regular expression of RE2.")
    ] = None,
    allow_private_network: Annotated[
        bool, Field(description="True: pages of the public network may call a server in a private one.")
    ] = False,
    expose_headers: Annotated[
        Names, Field(description="Headers of the response that their scripts may read, besides the simple ones.")
    ] = [],  # noqa: B006
    max_age: Annotated[
        int, Field(ge=0, le=2**31, description="Seconds that a browser may remember the answer to a preflight.")
    ] = 600,
) -> ASGIApp:
    """Wrap `app` in Starlette's CORSMiddleware, which describes the arguments."""
    made = CORSMiddleware(
        app,
        allow_origins=allow_origins,
        allow_methods=allow_methods,
        allow_headers=allow_headers,
        allow_credentials=allow_credentials,
        allow_private_network=allow_private_network,
        expose_headers=expose_headers,
        max_age=max_age,
    )
    if allow_origin_regex is not None:
        made.allow_origin_regex = _OriginPattern(allow_origin_regex)  # type: ignore[assignment]
    return made
