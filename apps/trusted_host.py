"""``trusted-host``: Starlette's TrustedHostMiddleware, with limits on what a route may give."""

from typing import Annotated

from pydantic import AfterValidator, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from ._shared.conf import few

__all__ = ["trusted_host"]


def _host(host: str) -> str:
    if host != "*" and "*" in host.removeprefix("*."):
        raise ValueError('a host has to be a name, "*.example.com" for all names in a domain, or "*" for all')
    return host


def trusted_host(
    app: ASGIApp,
    allowed_hosts: Annotated[list[Annotated[str, Field(max_length=256), AfterValidator(_host)]], *few(1000)]
    | None = None,
    www_redirect: bool = True,
) -> ASGIApp:
    """Wrap `app` in Starlette's TrustedHostMiddleware, which describes the arguments."""
    return TrustedHostMiddleware(app, allowed_hosts, www_redirect)
