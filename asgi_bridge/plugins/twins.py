"""Put the compiled way through the layers in the place of the pure one."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from ..compiled import twin
from . import extension
from .layer import Layer

__all__ = ["mark_async", "use_compiled"]


def mark_async(function: Any) -> Any:
    """Mark a compiled function that returns an awaitable, and return it.

    Frameworks ask `inspect.iscoroutinefunction` or that of asyncio whether what they are to call is async.
    """
    if hasattr(inspect, "markcoroutinefunction"):  # from Python 3.12 on
        return inspect.markcoroutinefunction(function)
    function._is_coroutine = vars(asyncio.coroutines)["_is_coroutine"]
    return function


def _next_maker(make: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function that makes what `extension.new_next` returns, of one that makes compiled functions."""
    called = mark_async(make())

    def make_next() -> Any:
        app = mark_async(make())
        app.is_asgi_bridge_upstream = True
        app.__call__ = called  # some look at this, and not at a function that is none of Python's
        return app

    return make_next


def use_compiled() -> None:
    """Use the compiled twins, where they are there."""
    compiled = twin("plugins._layers")
    if compiled is not None:
        Layer.begin = compiled.begin  # type: ignore[method-assign]
        extension.pass_on = compiled.pass_on
        extension.make_next = _next_maker(compiled.new_upstream)
