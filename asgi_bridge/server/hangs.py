"""Logs which plugin blocks the event loop, and in which line.

While a plugin computes, sleeps or waits for a blocking library on the event loop, the calls of all routes wait. The
watch costs a call nothing: a thread checks whether a timer of the loop still fires. If it does not, the thread looks at
the stack of the loop's thread.
"""

import asyncio
import contextvars
import functools
import itertools
import linecache
import logging
import os
import sys
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
"""The event loop counts as blocked after this many seconds without a turn."""
LOOK_SECONDS = 0.1
"""Seconds between two looks of the thread."""
QUIET_SECONDS = 60.0
"""Seconds between two log lines, at least."""
MAX_FRAMES = 12
"""Maximum number of a stack's places in the log line."""

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_STARTERS = f"{__package__}.process", f"{__package__}.call_tasks"
"""The modules that start the event loop, and calls: each call is a step of its own."""
Place: TypeAlias = tuple[FrameType, int]
"""A frame, and the number of the line that it was at."""


class HangWatch:
    """Watches the event loop that runs when it is created, from :meth:`start` to :meth:`stop`.

    A timer of the loop has to call :meth:`turned`, much more often than every HANG_SECONDS.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ident = threading.get_ident()
        self._turned = time.monotonic()
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start the thread that watches the loop."""
        self.turned()
        threading.Thread(target=self._watch, name="hang watch", daemon=True).start()

    def turned(self) -> None:
        """Note that the loop turns."""
        self._turned = time.monotonic()

    def stop(self) -> None:
        """End the thread, without waiting for it: it may block in writing the log."""
        self._stopped.set()

    def _watch(self) -> None:
        quiet_until = float("-inf")
        now, used = time.monotonic(), time.process_time()
        step: FrameType | None = None
        while not self._stopped.wait(LOOK_SECONDS):
            before, used_before, step_before = now, used, step
            now, used, step = time.monotonic(), time.process_time(), None
            delay = now - before - LOOK_SECONDS
            if delay > HANG_SECONDS and used - used_before < delay / 10:
                self._turned = now  # the whole process did not run, as after SIGSTOP
            if now - self._turned <= HANG_SECONDS or now < quiet_until:
                continue
            stack = self._stack()
            step = stack[-1][0] if stack else None
            # A turn of many short steps may take long when the loop is busy. A step blocks the loop if two looks have
            # found the same one, or if it held the interpreter's lock, so that this thread could not look.
            if step is not None and (step is step_before or delay > HANG_SECONDS):
                line = self._line(stack, now - self._turned)
                if line is not None:
                    quiet_until = now + QUIET_SECONDS
                    logger.error("%s", line)
            # frames keep their local variables alive
            del stack, step_before

    def _stack(self) -> list[Place]:
        """Return the stack of the step that the loop runs now, innermost place first; empty: it runs none."""
        frame = sys._current_frames().get(self._ident)  # noqa: SLF001  # public in all but its name
        stack = []
        while frame is not None and not _is_loop(frame):
            stack.append((frame, frame.f_lineno or 0))  # read the line now: the frame may go on at any time
            frame = frame.f_back
        return stack

    def _line(self, stack: list[Place], seconds: float) -> str | None:
        """Write the log line; None: the stack has our own code only, and that works for no plugin."""
        owner = _owner([frame for frame, _ in stack], asyncio.current_task(self._loop))
        theirs = [place for place in stack if not _file(place).startswith(_OURS)]
        if not theirs:
            if owner is None:
                return None
            theirs = stack
        libraries = _libraries()
        own = next((place for place in theirs if not _file(place).startswith(libraries)), theirs[0])
        code = linecache.getline(_file(own), own[1]).strip()
        places = " < ".join(map(_named, theirs[:MAX_FRAMES]))
        return (
            f"{owner or 'a task of an unknown plugin'} blocks the event loop: no call of any route has gone on for "
            f"{seconds:.1f} s. It is at {_named(own)}: {code!r}. Let it await, or call it in a thread "
            f"(asyncio.to_thread). Its stack, innermost first: {places}"
        )


@functools.cache
def _libraries() -> tuple[str, ...]:
    """Return the folders of Python's own modules, and of installed packages."""
    import sysconfig

    return tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def _file(place: Place) -> str:
    return place[0].f_code.co_filename


def _is_loop(frame: FrameType) -> bool:
    """Whether a frame belongs to the event loop, or to the code that runs the loop. uvloop has no frames."""
    module = frame.f_globals.get("__name__")
    return module in ("asyncio.base_events", "asyncio.events", "asyncio.runners", "selectors", "threading", *_STARTERS)


def _named(place: Place) -> str:
    return f"{_file(place)}:{place[1]} in {place[0].f_code.co_name}"


def _owner(stack: list[FrameType], task: "asyncio.Task[Any] | None") -> str | None:
    """Find the plugin whose code runs, and its route, by the values on the stack; None: there is no such value."""
    values = itertools.chain.from_iterable(map(_values, stack))
    name = route = None
    for value in itertools.chain(values, _context_values(stack[-1], task)):
        try:
            found = _identity(value)
        except AttributeError:  # the loop's thread is making it at this moment
            continue
        if found is not None:
            name = name or found[0]
            route = route or found[1]
            if name and route:
                break
    return name and f"plugin {name}, route {route or '?'},"


def _values(frame: FrameType) -> list[Any]:
    return [] if frame.f_locals is frame.f_globals else list(frame.f_locals.values())


def _context_values(step: FrameType, task: "asyncio.Task[Any] | None") -> list[Any]:
    """Return the values of context variables: in a task that a plugin has started only they name the plugin."""
    context = None
    if task is not None and sys.version_info >= (3, 12):
        context = task.get_context()
    elif step.f_back is not None:  # with asyncio the handle of the callback has it
        context = getattr(step.f_back.f_locals.get("self"), "_context", None)
    return list(context.values()) if isinstance(context, contextvars.Context) else []


def _identity(value: Any) -> tuple[str | None, str | None] | None:
    """Return the name and the route of a plugin, as far as `value` has them; None: it has neither.

    This asks the type and not the value. The value may be a proxy that does something when it is asked.
    """
    kind = type(value)
    if issubclass(kind, Apisix):
        return dict.get(value, "plugin"), dict.get(value, "route_id")
    if issubclass(kind, dict):
        extensions = dict.get(value, "extensions")
        return _identity(dict.get(extensions, "apisix")) if isinstance(extensions, dict) else None
    if issubclass(kind, Call):
        return value.plugins, value.route_id
    if issubclass(kind, Plugin | Layer | Lifespan):
        return value.name, None
    if issubclass(kind, Build):
        return None, value.route_id
    return None
