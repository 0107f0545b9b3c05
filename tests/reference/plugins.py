"""Plugins with configurations of many kinds."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, upstream

__all__ = ["bridge"]


class Rate(BaseModel):
    """How often."""

    per: Literal["second", "minute"] = "minute"
    count: int = Field(ge=1, le=100, description="How many.")


class Rule(BaseModel):
    paths: list[str] = Field(description="Paths\n   that it is for.", examples=[["/a", "/b"]])
    rate: Rate
    inner: list["Rule"] = []


class Strict(BaseModel, strict=True):
    name: str = Field(description='Its "name".', examples=["it's $1"])
    rules: list[Rule] = []
    weight: float | None = None
    mode: Literal["on", "off", None] = "on"
    labels: dict[str, str] = {}
    either: int | str = 0
    anything: Any = None


class Open(BaseModel, extra="allow"):
    size: Annotated[int, Field(gt=0)]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    await upstream(scope, receive, send)


class Middleware:
    """Counts.

    More about it.
    """

    def __init__(self, app: ASGIApp, limit: int = 10) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


bridge = Bridge()
bridge.mount("plain", application)
bridge.add_middleware("counts", Middleware, phase="response")


@bridge.plugin("strict", phase="request")
def strict(conf: Strict) -> ASGIApp:
    """Do something
    to a request."""
    return application


@bridge.plugin("open", phase="both")
def open_(conf: Open) -> ASGIApp:
    return application
