"""Checks of configurations on threads. Code of a plugin's author runs in them, and may take long or never end.

One check runs at a time, so that many checks do not compete with the calls for the interpreter. When a check has taken
longer than its turn, the next one begins beside it. A thread cannot be ended from outside, so a check that never ends
keeps its thread. A plugin with too many such checks is refused until one of them has ended.
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
"""Seconds that a check runs alone. After that the next one begins beside it."""
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
            name: Name of the plugin whose code it runs.
            check: The check.

        Raises:
            ConfigurationError: Too many checks of this plugin have not ended.
        """
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        # no future: it would hold an exception, whose traceback holds this frame, and with it the future
        outcome: list[tuple[Any, BaseException | None]] = []

        def note(result: Any, raised: BaseException | None) -> None:
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
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile, so nobody waits
                loop.call_soon_threadsafe(note, result, raised)

        context = contextvars.copy_context()
        async with self._turn:
            if self._running[name] >= MAX_CHECKS:
                raise ConfigurationError(
                    f"{MAX_CHECKS} checks of its configurations run and do not end: its validators take too long"
                )
            # a daemon thread, so that the process can end without waiting for it
            threading.Thread(target=work, name=f"check of {name}", daemon=True).start()
            self._running[name] += 1  # only if the thread could start; note() runs later in any case
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
