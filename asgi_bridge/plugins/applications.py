"""Applications of any ASGI version, called as ASGI 3."""

import inspect
import weakref
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import PluginError
from .kinds import Kind, judge
from .signatures import attribute_of, is_routine, spelled

__all__ = ["WrongApplication", "asgi3"]


class WrongApplication(PluginError):
    """An object was taken for an ASGI application, and its call showed that it is none."""


class _Called:
    """Calls an ASGI 3 application that is no coroutine function, but returns an awaitable."""

    __slots__ = ("__weakref__", "_app")

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        running = self._app(scope, receive, send)
        if not inspect.isawaitable(running):
            if scope["type"] == "lifespan" and running is None:  # as with uvicorn: it does not know lifespan
                raise NotImplementedError("no lifespan")
            raise WrongApplication(
                f"{spelled(self._app)} returned {type(running).__name__}, which cannot be awaited: write async def for "
                "the function of (scope, receive, send), and await in it what it calls"
            )
        await running


class _Double(_Called):
    """Calls an ASGI 2 application."""

    __slots__ = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        instance = self._app(scope)
        if inspect.iscoroutine(instance):
            instance.close()
        if not callable(instance) or not judge(instance).shape.takes(2):
            raise WrongApplication(
                f"{spelled(self._app)} has one parameter, so it was called as an ASGI 2 application, and returned "
                f"{type(instance).__name__}, not a function of (receive, send): write (scope, receive, send) if it is "
                'an application, bridge.add_middleware("name", ...) if it takes one, '
                'bridge.plugin("name") if it takes a configuration'
            )
        await instance(receive, send)


_called: weakref.WeakValueDictionary[int, _Called] = weakref.WeakValueDictionary()


def asgi3(found: Any) -> ASGIApp:
    """Return `found` as an ASGI 3 application.

    The same object gives the same application, so that its lifespan runs once however often it is mounted.

    Args:
        found: An object for which ``judge(found).may_be_application`` is true.
    """
    verdict = judge(found)
    if verdict.is_class and verdict.kind is Kind.APPLICATION:
        return found  # type: ignore[no-any-return]
    three = verdict.shape.takes(3) or verdict.kind is Kind.UNCLEAR
    if verdict.is_class and verdict.kind is Kind.DOUBLE:
        three = False
    function = found if is_routine(found) else attribute_of(type(found), "__call__")
    if three and inspect.iscoroutinefunction(function):
        return found  # type: ignore[no-any-return]
    called = _called.get(id(found))  # it keeps the object alive, so no other object has its id
    if called is None or called._app is not found:
        called = _called[id(found)] = _Called(found) if three else _Double(found)
    return called
