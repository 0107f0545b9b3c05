"""Plugins whose configurations the tests of this folder get wrong."""

import time
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge


class Rate(BaseModel):
    per: int
    burst: int = 1


class Limit(BaseModel):
    rate: Rate
    names: list[str] = Field(default_factory=list)
    either: int | list[int] = 3


def raise_value_error(value: str) -> str:
    if value == "wait":
        time.sleep(3600)
    raise RuntimeError("no such thing")


class Odd(BaseModel):
    value: Annotated[str, AfterValidator(raise_value_error)] = ""


class Session:
    def __init__(self, app: ASGIApp, max_age: int = 3) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def limit(conf: Limit) -> ASGIApp:
    return PlainTextResponse("limited")


def odd(conf: Odd) -> ASGIApp:
    return PlainTextResponse("odd")


def make_bridge(**more: Any) -> Bridge:
    bridge = Bridge()
    bridge.plugin("limit")(limit)
    bridge.plugin("per-minute", defaults={"rate": {"per": 60}})(limit)
    bridge.plugin("odd")(odd)
    bridge.add_middleware("session", Session, phase="both")
    for name, application in more.items():
        bridge.mount(name, application)
    return bridge
