"""``gzip``: Starlette's GZipMiddleware, with limits on what a route may give."""

from typing import Annotated, Any

from pydantic import Field
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp

from ._shared.conf import few

__all__ = ["gzip"]


def gzip(
    app: ASGIApp,
    minimum_size: Annotated[int, Field(ge=0, le=2**24, description="Shorter bodies stay as they are; bytes.")] = 500,
    compresslevel: Annotated[int, Field(ge=0, le=9, description="9 takes the longest, and makes it smallest.")] = 9,
    thread_minimum_size: Annotated[
        Annotated[int, Field(ge=0, le=2**24)] | None,
        Field(description="Parts of this length or more are compressed in a thread; bytes. Left out: Starlette's."),
    ] = None,
    exclude_content_types: Annotated[
        Annotated[list[Annotated[str, Field(max_length=256)]], *few(100)] | None,
        Field(description="Content types that stay as they are. Left out: Starlette's, which are compressed already."),
    ] = None,
) -> ASGIApp:
    """Wrap `app` in Starlette's GZipMiddleware, which describes the arguments."""
    # Older releases of Starlette lack these two arguments.
    more: dict[str, Any] = {}
    if thread_minimum_size is not None:
        more["thread_minimum_size"] = thread_minimum_size
    if exclude_content_types is not None:
        more["exclude_content_types"] = tuple(exclude_content_types)
    return GZipMiddleware(app, minimum_size, compresslevel, **more)
