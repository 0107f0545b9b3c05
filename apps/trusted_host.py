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


Hosts = Annotated[list[Annotated[str, Field(max_length=256), AfterValidator(_host)]], *few(1000)]


def trusted_host(
    app: ASGIApp,
    allowed_hosts: Annotated[
        Hosts | None,
        Field(
            description='Hosts that requests may be for; "*.shop.test": all in this domain. Left out: all.',
            examples=[["shop.test", "*.shop.test"]],
        ),
    ] = None,
    www_redirect: Annotated[
        bool, Field(description="True: a host that is known with www. before it is redirected there.")
    ] = True,
) -> ASGIApp:
    """Wrap `app` in Starlette's TrustedHostMiddleware, which describes the arguments."""
    return TrustedHostMiddleware(app, allowed_hosts, www_redirect)
