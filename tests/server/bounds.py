"""Plugins whose checks of a configuration may take long."""

import threading
import time
from typing import Annotated, Any

from asgi_bridge_apps import bridge as apps
from pydantic import AfterValidator, BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_bridge import Bridge, upstream

bridge = Bridge()
bridge.include(apps)


async def passing(scope: Scope, receive: Receive, send: Send) -> None:
    await upstream(scope, receive, send)


bridge.mount("passing", passing)


def _sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


class Slow(BaseModel):
    seconds: Annotated[float, AfterValidator(_sleep)]


@bridge.plugin("slow")
def slow(conf: Slow) -> ASGIApp:
    return passing


def _hang(value: Any) -> Any:
    threading.Event().wait()


class Hanging(BaseModel):
    value: Annotated[int, AfterValidator(_hang)]


@bridge.plugin("hanging")
def hanging(conf: Hanging) -> ASGIApp:
    return passing


class Numbers(BaseModel):
    numbers: list[int] = []
    by_name: dict[str, int] = {}
    either: list[int | float | bool | None] = []


@bridge.plugin("numbers")
def numbers(conf: Numbers) -> ASGIApp:
    return passing


class Odd(BaseException):
    pass


@bridge.plugin("raises")
def raises(conf: dict[str, Any]) -> ASGIApp:
    """Raises the error that its configuration names, at once or in its lifespan."""
    exception = {"KeyboardInterrupt": KeyboardInterrupt, "SystemExit": SystemExit, "Odd": Odd}[conf["raises"]]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise exception("no")

    if conf.get("lifespan"):
        return app
    raise exception("no")
