"""Put the compiled way through the layers in the place of the pure one."""

import asyncio
import inspect
from collections.abc import Callable
from functools import partial
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


def _marked_next(make: Callable[[], Any]) -> Any:
    app = mark_async(make())
    app.is_asgi_bridge_upstream = True
    return app


def use_compiled() -> None:
    """Use the compiled twins, where they are there."""
    compiled = twin("plugins._layers")
    if compiled is not None:
        Layer.begin = compiled.begin  # type: ignore[method-assign]
        extension.pass_on = compiled.pass_on
        extension.make_next = partial(_marked_next, compiled.new_upstream)
