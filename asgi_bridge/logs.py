"""What our loggers write: a text cannot forge a line, no line is too long, and lines that repeat are counted.

Much of what is logged comes from others: plugin names and keys from routes, paths and headers from clients, texts from
exceptions. So this stands on the loggers and not on a handler: it holds with any logging configuration.
"""

import functools
import logging
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

__all__ = ["BURST", "GUARD", "LOGGERS", "MAX_LINE", "MAX_TRACEBACK", "Guard", "guard", "one_line", "traceback_text"]

LOGGERS = tuple(
    f"asgi_bridge.{room}" for room in ("access", "adapter", "apps", "gateway", "plugins", "server", "testing", "wsgi")
)
"""All loggers of the package."""
MAX_LINE = 8192
"""Bytes of a logged line."""
MAX_TRACEBACK = 8 * MAX_LINE
"""Bytes of a traceback, in all its lines."""
BURST = 20
"""Lines of one kind that are logged in WINDOW_SECONDS; further ones are counted."""
WINDOW_SECONDS = 10.0
MAX_KINDS = 1024
"""Kinds of lines that are told apart. A peer can make up names, so beyond these all names are one, and beyond twice as
many all messages of a logger."""

_ROOM = 256
"""Bytes of a line that are left for what a format puts in front, and for the note that a text was cut."""
_LEFT_OUT = "and %d more like it in %g s: %s"


def one_line(text: str) -> str:
    """`text` as one line of at most MAX_LINE bytes: what is not printable is escaped, and the end is cut off."""
    most = MAX_LINE - _ROOM
    short, cut = text[:most], len(text) > most
    if not short.isprintable():
        short = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in short)
    data = short.encode()
    if len(data) > most:
        short, cut = data[:most].decode(errors="ignore"), True
    return f"{short}… ({len(text)} characters in all)" if cut else short


def traceback_text(exc: BaseException) -> str:
    """The traceback of `exc`, where the text of no exception makes a line of its own."""
    try:
        formatted = _formatted(exc)
    except BaseException as failed:  # of attributes that only the exception's own code can give
        formatted = (
            f"Traceback (most recent call last):\n{''.join(traceback.format_tb(exc.__traceback__))}"
            f"{type(exc).__name__}: (it cannot be shown: {type(failed).__name__})"
        )
    text = "\n".join(map(one_line, formatted.rstrip("\n").split("\n")))
    if len(text) > MAX_TRACEBACK:
        start, end = text[: MAX_TRACEBACK // 4], text[-MAX_TRACEBACK // 2 :]
        text = start.rpartition("\n")[0] + "\n  … (lines left out)\n" + end.partition("\n")[2]
    return text


def _formatted(exc: BaseException) -> str:
    whole = traceback.TracebackException.from_exception(exc)
    pending = [whole]
    while pending:
        each = pending.pop()
        vars(each)["format_exception_only"] = functools.partial(_exception_only, each.format_exception_only)
        pending += [more for more in (each.__cause__, each.__context__, *(each.exceptions or ())) if more is not None]
    return "".join(whole.format())


def _exception_only(lines: Any, **options: Any) -> Iterator[str]:
    said = False
    for line in lines(**options):
        text = one_line(line.removesuffix("\n"))
        yield f"    {text}\n" if said else f"{text}\n"  # below the exception's own line: its notes
        said = said or not text.startswith(" ")


@dataclass(slots=True)
class _Kind:
    """Lines of one kind in the current window.

    Attributes:
        since: monotonic seconds.
        logged: how many were.
        left_out: how many were not.
        text: of one that was logged.
    """

    logger: str
    level: int
    since: float
    text: str
    logged: int = 1
    left_out: int = 0


class Guard(logging.Filter):
    """The filter of our loggers.

    Attributes:
        counts: warnings and errors of one kind are logged BURST times in WINDOW_SECONDS, then counted. A kind is a
            message, up to the end of its first line, and the first name in it. Needs somebody to call :meth:`sweep`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts = False
        self._kinds: dict[tuple[Any, ...], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = None
        if self.counts and record.levelno >= logging.WARNING and record.msg is not _LEFT_OUT:
            key = self._key(record)
            kind = self._kinds.get(key)
            now = monotonic()
            if kind is not None and now >= kind.since + WINDOW_SECONDS:
                self._close(key, now)
                kind = None
            if kind is None:
                kind = self._kinds[key] = _Kind(record.name, record.levelno, now, "")
            elif kind.logged < BURST:
                kind.logged += 1
            else:
                kind.left_out += 1
                return False
        try:
            message = record.getMessage()
        except BaseException as exc:  # of an exception that has no text, for example
            message = f"{record.msg} (the values cannot be shown: {type(exc).__name__})"
            record.msg, record.args = message, ()
        text = one_line(message)
        if text != message:
            record.msg, record.args = text, ()
        if kind is not None:
            kind.text = text
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = traceback_text(record.exc_info[1])
        return True

    def sweep(self, now: float) -> None:
        """Logs how many lines were left out, in windows that are over.

        Args:
            now: monotonic seconds; infinity: closes all windows.
        """
        for key in [key for key, kind in list(self._kinds.items()) if now >= kind.since + WINDOW_SECONDS]:
            self._close(key, min(now, monotonic()))

    def _close(self, key: tuple[Any, ...], now: float) -> None:
        kind = self._kinds.pop(key, None)  # another thread may have been here
        if kind is not None and kind.left_out:
            seconds = round(now - kind.since, 1)
            logging.getLogger(kind.logger).log(kind.level, _LEFT_OUT, kind.left_out, seconds, kind.text)

    def _key(self, record: logging.LogRecord) -> tuple[Any, ...]:
        args = record.args
        first = args[0] if isinstance(args, tuple) and args and isinstance(args[0], str) else ""
        # asyncio puts its values into the message, in lines of their own
        message = record.msg.partition("\n")[0] if isinstance(record.msg, str) else type(record.msg).__name__
        key = record.name, message, first[:MAX_LINE]
        if key in self._kinds or len(self._kinds) < MAX_KINDS:
            return key
        return key[:2] if key[:2] in self._kinds or len(self._kinds) < 2 * MAX_KINDS else key[:1]


def guard(names: Iterable[str]) -> None:
    """Sets the filter on loggers."""
    for name in names:
        logging.getLogger(name).addFilter(GUARD)


GUARD = Guard()
guard(LOGGERS)
