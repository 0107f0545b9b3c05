"""Says which plugin keeps the event loop from turning, and in which line.

While a plugin computes, sleeps or waits for a blocking library on the event loop, the calls of all routes wait. Nothing
is noted for each call: a thread looks whether a timer of the loop still fires, and if not, at the stack of the loop's
thread.
"""

import asyncio
import contextvars
import itertools
import linecache
import logging
import os
import sys
import sysconfig
import threading
import time
from types import FrameType
from typing import Any, TypeAlias

from ..adapter import Call
from ..plugins import Apisix, Layer, Plugin
from ..plugins.build import Build
from ..plugins.lifespan import Lifespan

__all__ = ["HangWatch"]

logger = logging.getLogger("asgi_bridge.server")

HANG_SECONDS = 0.5
"""The event loop hangs once it has not turned for so long."""
LOOK_SECONDS = 0.1
"""How often the thread looks."""
QUIET_SECONDS = 60.0
"""At most one line in this time."""
MAX_FRAMES = 12
"""Places of a stack in the line."""

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_SERVE = f"{__package__}.serve"
_LIBRARIES = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})
Place: TypeAlias = tuple[FrameType, int]
"""A frame, and the line that it was at."""


class HangWatch:
    """Watches the event loop of the thread that makes it, from :meth:`start` to :meth:`stop`.

    :meth:`turned` is to be called by a timer of the loop, much more often than each HANG_SECONDS.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ident = threading.get_ident()
        self._turned = time.monotonic()
        self._stopped = threading.Event()

    def start(self) -> None:
        """Starts the thread."""
        self.turned()
        threading.Thread(target=self._watch, name="hang watch", daemon=True).start()

    def turned(self) -> None:
        """Notes that the loop turns."""
        self._turned = time.monotonic()

    def stop(self) -> None:
        """Ends the thread. It is not waited for: it may be blocked in writing the log."""
        self._stopped.set()

    def _watch(self) -> None:
        quiet_until = float("-inf")
        now, used = time.monotonic(), time.process_time()
        step: FrameType | None = None
        while not self._stopped.wait(LOOK_SECONDS):
            before, used_before, step_before = now, used, step
            now, used, step = time.monotonic(), time.process_time(), None
            late = now - before - LOOK_SECONDS
            if late > HANG_SECONDS and used - used_before < late / 10:
                self._turned = now  # the whole process did not run, as after SIGSTOP
            if now - self._turned <= HANG_SECONDS or now < quiet_until:
                continue
            stack = self._stack()
            step = stack[-1][0] if stack else None
            # A busy loop may take long for a turn of many short steps. One step hangs if two looks have found it, or if
            # it held the interpreter's lock, so that this thread could not look.
            if step is not None and (step is step_before or late > HANG_SECONDS):
                line = self._line(stack, now - self._turned)
                if line is not None:
                    quiet_until = now + QUIET_SECONDS
                    logger.error("%s", line)
            # frames keep alive what they work on
            del stack, step_before

    def _stack(self) -> list[Place]:
        """What the loop runs now, innermost first; empty: it waits, or works for itself."""
        frame = sys._current_frames().get(self._ident)  # noqa: SLF001  # public in all but its name
        stack = []
        while frame is not None and not _is_loop(frame):
            stack.append((frame, frame.f_lineno or 0))  # now: the frame may go on at any time
            frame = frame.f_back
        return stack

    def _line(self, stack: list[Place], seconds: float) -> str | None:
        """What to log; None: there is nothing but our own code, and it works for no plugin."""
        owner = _owner([frame for frame, _ in stack], asyncio.current_task(self._loop))
        theirs = [place for place in stack if not _file(place).startswith(_OURS)]
        if not theirs:
            if owner is None:
                return None
            theirs = stack
        own = next((place for place in theirs if not _file(place).startswith(_LIBRARIES)), theirs[0])
        code = linecache.getline(_file(own), own[1]).strip()
        places = " < ".join(map(_named, theirs[:MAX_FRAMES]))
        return (
            f"{owner or 'a task of an unknown plugin'} blocks the event loop: no call of any route has gone on for "
            f"{seconds:.1f} s. It is at {_named(own)}: {code!r}. Let it await, or call it in a thread "
            f"(asyncio.to_thread). Its stack, innermost first: {places}"
        )


def _file(place: Place) -> str:
    return place[0].f_code.co_filename


def _is_loop(frame: FrameType) -> bool:
    """Whether it is of the event loop, or of what runs it; uvloop has no frames."""
    module = frame.f_globals.get("__name__")
    return module in ("asyncio.base_events", "asyncio.events", "asyncio.runners", "selectors", _SERVE, "threading")


def _named(place: Place) -> str:
    return f"{_file(place)}:{place[1]} in {place[0].f_code.co_name}"


def _owner(stack: list[FrameType], task: "asyncio.Task[Any] | None") -> str | None:
    """The plugin whose code runs, and its route, from the values on the stack; None: not known."""
    values = itertools.chain.from_iterable(map(_values, stack))
    name = route = None
    for value in itertools.chain(values, _context_values(stack[-1], task)):
        found = _identity(value)
        if found is not None:
            name = name or found[0]
            route = route or found[1]
            if name and route:
                break
    return name and f"plugin {name}, route {route or '?'},"


def _values(frame: FrameType) -> list[Any]:
    return [] if frame.f_locals is frame.f_globals else list(frame.f_locals.values())


def _context_values(step: FrameType, task: "asyncio.Task[Any] | None") -> list[Any]:
    """What context variables hold: a task that a plugin has made knows the plugin by them alone."""
    context = None
    if task is not None and sys.version_info >= (3, 12):
        context = task.get_context()
    elif step.f_back is not None:  # the loop's handle has it, on asyncio
        context = getattr(step.f_back.f_locals.get("self"), "_context", None)
    return list(context.values()) if isinstance(context, contextvars.Context) else []


def _identity(value: Any) -> tuple[str | None, str | None] | None:
    """Name and route of a plugin, if `value` tells.

    The type is asked and not the value, which may be a proxy that does something when it is asked.
    """
    kind = type(value)
    if issubclass(kind, Apisix):
        return dict.get(value, "plugin"), dict.get(value, "route_id")
    if issubclass(kind, dict):
        extensions = dict.get(value, "extensions")
        return _identity(dict.get(extensions, "apisix")) if isinstance(extensions, dict) else None
    if issubclass(kind, Call):
        return value.plugins, value.route_id
    if issubclass(kind, Plugin | Layer):
        return value.name, None
    if issubclass(kind, Build):
        return None, value.route_id
    if issubclass(kind, Lifespan):
        return value._name, None  # noqa: SLF001  # found in a frame: the log needs the name alone
    return None
