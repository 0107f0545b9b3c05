"""The log lines and the output of a call, found by the plugin whose code runs."""

import logging
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any, TextIO

from ..adapter import Call
from ..plugins.extension import current
from .story import Story

__all__ = ["Lines"]

_LOGGING = logging.__file__


class Lines(logging.Handler):
    """Gives log lines, and what plugins print, to the stories of their calls.

    What this package logs of such a call is told to ``dev``, which shows it in one block with the request, so it does
    not go to the terminal too. Lines of the plugins' own still do.

    Args:
        story_of: Finds the story of a call.
        added: Called after a line was added to a story, in any thread.
        alone: Called with an error of this package that is about no call, in any thread.
        listens: Whether ``dev`` listens.
    """

    def __init__(
        self,
        story_of: Callable[[Call], Story],
        added: Callable[[Story], None],
        alone: Callable[[dict[str, Any]], None],
        listens: Callable[[], bool],
    ) -> None:
        super().__init__()
        self._alone = alone
        self._story_of = story_of
        self._added = added
        self._listens = listens
        self._writes: list[tuple[TextIO, Any]] = []

    def start(self) -> None:
        """Begin to listen to all loggers, to stdout and to stderr."""
        for logger in self._loggers():
            logger.handlers.insert(0, self)  # before those that `_unless_told` is a filter of
            for handler in logger.handlers[1:]:
                handler.addFilter(self._unless_told)
        for stream in (sys.stdout, sys.stderr):
            self._writes.append((stream, stream.write))
            stream.write = self._writing(len(self._writes), stream.write)  # type: ignore[method-assign]

    def stop(self) -> None:
        """Listen no longer."""
        for logger in self._loggers():
            logger.removeHandler(self)
            for handler in logger.handlers:
                handler.removeFilter(self._unless_told)
        for stream, write in self._writes:
            stream.write = write  # type: ignore[method-assign]
        self._writes.clear()

    @staticmethod
    def _loggers() -> tuple[logging.Logger, ...]:
        return logging.getLogger("asgi_bridge"), logging.getLogger()

    def emit(self, record: logging.LogRecord) -> None:
        """Give a record to the story of its call, if it has one."""
        if getattr(record, "looked_at", False):  # by the handler of another logger
            return
        record.looked_at = True
        found = self._story(record)
        if found is None:
            if record.levelno >= logging.ERROR and record.name.startswith("asgi_bridge."):
                line = {"at": monotonic(), "kind": "log", "text": record.getMessage(), "plugin": "", **_about(record)}
                self._alone(line)
            return
        story, plugin = found
        kept = story.add_line(
            "log", record.getMessage(), **_about(record), plugin=plugin,
            has_traceback=bool(record.exc_info and record.exc_info[1] is not None),
        )  # fmt: skip
        record.told = kept and record.levelno >= logging.WARNING
        self._added(story)

    def _story(self, record: logging.LogRecord) -> tuple[Story, str] | None:
        of = getattr(record, "of", None)
        call = None if of is None else of()
        if isinstance(call, Call):
            return self._story_of(call), str(getattr(record, "call", {}).get("plugin", ""))
        return self._current()

    def _current(self) -> tuple[Story, str] | None:
        extension = current.get(None)
        if extension is None or not isinstance(extension._call, Call):
            return None
        return self._story_of(extension._call), extension.plugin

    def _unless_told(self, record: logging.LogRecord) -> bool:
        ours = record.name.startswith("asgi_bridge.")
        return not (ours and getattr(record, "told", False) and self._listens())

    def _writing(self, number: int, write: Callable[[str], int]) -> Callable[[str], int]:
        def writing(content: str, /) -> int:
            found = self._current() if isinstance(content, str) else None
            # a handler of logging writes what `emit` has seen already
            if found is not None and content and sys._getframe(1).f_code.co_filename != _LOGGING:
                found[0].write(number, content, found[1])
                self._added(found[0])
            return write(content)

        return writing


def _about(record: logging.LogRecord) -> dict[str, Any]:
    return {"level": record.levelname.lower(), "logger": record.name}
