"""Checks of configurations on threads: code of a plugin's author runs in them, and may take long or never end.

One check runs at a time, so that many of them do not share the interpreter with the calls. One that takes longer than a
turn goes on, and the next begins beside it. A thread cannot be ended from outside: one that never ends is left behind,
and a plugin that has left too many is refused until one of them has ended.
"""

import asyncio
import contextlib
import contextvars
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import ConfigurationError

__all__ = ["MAX_CHECKS", "TURN_SECONDS", "Checks"]

T = TypeVar("T")

TURN_SECONDS = 1.0
"""Seconds that a check runs alone. Then the next one begins beside it."""
MAX_CHECKS = 4
"""Maximum number of checks of one plugin that run at once."""


class Checks:
    """The checks of one process."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._running: Counter[str] = Counter()

    async def run(self, name: str, check: Callable[[], T]) -> T:
        """Run `check` on a thread. Return what it returns, raise what it raises.

        Args:
            name: of the plugin whose code it runs.

        Raises:
            ConfigurationError: too many checks of this plugin have not ended.
        """
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        # not in a future: it would hold an exception, whose traceback holds the frame that holds the future
        outcome: list[tuple[Any, BaseException | None]] = []

        def end(result: Any, raised: BaseException | None) -> None:
            self._running[name] -= 1
            outcome.append((result, raised))
            ended.set()

        def work() -> None:
            result: Any = None
            raised: BaseException | None = None
            try:
                result = context.run(check)
            except BaseException as exc:
                raised = exc
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
                loop.call_soon_threadsafe(end, result, raised)

        context = contextvars.copy_context()
        async with self._turn:
            if self._running[name] >= MAX_CHECKS:
                raise ConfigurationError(
                    f"{MAX_CHECKS} checks of its configurations run and do not end: its validators take too long"
                )
            # a daemon: the end of the process does not wait for it
            threading.Thread(target=work, name=f"check of {name}", daemon=True).start()
            self._running[name] += 1  # not if there is no thread to be had; end() runs later in any case
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), TURN_SECONDS)
        await ended.wait()
        result, raised = outcome.pop()
        if raised is not None:
            try:
                raise raised
            finally:
                del raised
        return result  # type: ignore[no-any-return]
