"""The event loops that a runner works on."""

import asyncio
from collections.abc import Callable
from importlib.util import find_spec

import pytest

__all__ = ["LOOPS", "loop_factory"]

_without = pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not installed (the extra fast)")
LOOPS = ["asyncio", pytest.param("uvloop", marks=_without)]
"""Their names, as parameters of tests."""


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes a loop of that name."""
    if name == "asyncio":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop
