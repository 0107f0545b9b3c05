"""A filter on our loggers: one line for each message, of bounded length, and repeated messages are counted.

Much of what is logged comes from others: names of plugins from routes, paths and headers from clients, texts from
exceptions. Such a text must not look like a log line of its own, and must not hold a secret of a route's
configuration. The filter is set on the loggers and not on a handler, so it works with any logging configuration.
"""

import contextlib
import functools
import logging
import sys
import traceback
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Any

from .hiding import SECRETS

__all__ = [
    "BURST",
    "GUARD",
    "LOGGERS",
    "MAX_LINE",
    "MAX_TRACEBACK",
    "Guard",
    "guard",
    "handler_raised",
    "one_line",
    "traceback_text",
]

LOGGERS = tuple(
    f"asgi_bridge.{room}"
    for room in ("access", "adapter", "apps", "gateway", "plugins", "server", "shadow", "testing", "tracing", "wsgi")
)
"""All loggers of the package."""
COUNTED = "asgi_bridge.shadow"
"""The logger of which all lines are counted, not only warnings and errors: it may have one for each request."""
MAX_LINE = 8192
"""Maximum length of a logged line, in bytes."""
MAX_TRACEBACK = 8 * MAX_LINE
"""Maximum length of a traceback with all its lines, in characters."""
BURST = 20
"""Maximum number of lines of one kind that are logged in WINDOW_SECONDS. Further ones are counted."""
WINDOW_SECONDS = 10.0
"""Seconds for which the lines of one kind are counted together."""
MAX_KINDS = 1024
"""Maximum number of kinds for which the first value counts. Others can make up any number of values. Beyond this number
all lines with the same message are one kind, and beyond twice this number all lines of a logger."""

_ROOM = 1024
"""Bytes of a line that are reserved for what a log format adds (time, level, the call that the line is about), and for
the note of a cut text."""
_LEFT_OUT = "and %d more like it in %g s: %s"
"""The log line for the lines of one kind that were counted only."""


def one_line(text: str) -> str:
    """Return `text` as one line of at most MAX_LINE bytes.

    Characters that are not printable, such as the ends of lines, are escaped. A longer text is cut off, and a note says
    how long it was.
    """
    most = MAX_LINE - _ROOM
    short, cut = text[:most], len(text) > most
    if not short.isprintable():
        short = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in short)
    data = short.encode()
    if len(data) > most:
        short, cut = data[:most].decode(errors="ignore"), True
    return f"{short}… ({len(text)} characters in all)" if cut else short


def traceback_text(exc: BaseException) -> str:
    """Return the traceback of `exc`. The text of each exception in it is made one line.

    Args:
        exc: The exception. Its ``__str__`` may raise.
    """
    try:
        formatted = _formatted(exc)
    except BaseException as failed:  # the exception's own code has raised this
        formatted = (
            f"Traceback (most recent call last):\n{''.join(traceback.format_tb(exc.__traceback__))}"
            f"{type(exc).__name__}: (it cannot be shown: {type(failed).__name__})"
        )
    text = "\n".join(map(one_line, SECRETS.taken_out(formatted).rstrip("\n").split("\n")))
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
    """Do what ``TracebackException.format_exception_only`` does, with one line for each text.

    Args:
        lines: That method.
        options: Its arguments.
    """
    after_text = False
    for line in lines(**options):
        text = one_line(line.removesuffix("\n"))
        yield f"    {text}\n" if after_text else f"{text}\n"  # notes are indented, below the exception's text
        after_text = after_text or not text.startswith(" ")


def handler_raised(exc: Exception) -> None:
    """Say on stderr what a log handler of somebody else's has raised. A call goes on without its line.

    Args:
        exc: What it has raised.
    """
    with contextlib.suppress(Exception):  # stderr may be what is broken
        print("A log handler raised:", traceback_text(exc), sep="\n", file=sys.stderr)


class _Kind:
    """Lines of one kind in the current window.

    Attributes:
        logger: Name of the logger.
        level: Level of the lines.
        since: When the window began, in monotonic seconds.
        text: One of the lines that were logged.
        logged: Number of lines that were logged.
        left_out: Number of lines that were counted only.
    """

    __slots__ = ("left_out", "level", "logged", "logger", "since", "text")

    def __init__(self, logger: str, level: int, since: float) -> None:
        self.logger = logger
        self.level = level
        self.since = since
        self.text = ""
        self.logged = 1
        self.left_out = 0


class Guard(logging.Filter):
    """The filter of our loggers.

    Attributes:
        counts: True: warnings and errors of one kind, and all lines of COUNTED, are logged BURST times in
            WINDOW_SECONDS, and then only counted. Lines are of one kind if they have the same message, before its
            values are filled in, and the same first value. Whoever sets this calls :meth:`sweep` from time to time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts = False
        self._kinds: dict[tuple[Any, ...], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Make one line of the record's message, without secrets. Returns False if the record is only counted."""
        kind = None
        counted = record.levelno >= logging.WARNING or record.name == COUNTED
        if self.counts and counted and record.msg is not _LEFT_OUT:
            key = self._key(record)
            kind = self._kinds.get(key)
            now = monotonic()
            if kind is not None and now >= kind.since + WINDOW_SECONDS:
                self._close(key, now)
                kind = None
            if kind is None:
                kind = self._kinds[key] = _Kind(record.name, record.levelno, now)
            elif kind.logged < BURST:
                kind.logged += 1
            else:
                kind.left_out += 1
                return False
        try:
            message = record.getMessage()
        except BaseException as exc:  # a value may be an exception whose __str__ raises
            message = f"{record.msg} (the values cannot be shown: {type(exc).__name__})"
            record.msg, record.args = message, ()
        text = one_line(SECRETS.taken_out(message))
        if text != message:
            record.msg, record.args = text, ()
        if kind is not None:
            kind.text = text
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = traceback_text(record.exc_info[1])
        return True

    def sweep(self, now: float) -> None:
        """Log how many lines were only counted, for all windows that are over.

        Args:
            now: The time, in monotonic seconds; infinity: all windows are over.
        """
        for key in [key for key, kind in list(self._kinds.items()) if now >= kind.since + WINDOW_SECONDS]:
            self._close(key, min(now, monotonic()))

    def _close(self, key: tuple[Any, ...], now: float) -> None:
        kind = self._kinds.pop(key, None)  # another thread may have closed it
        if kind is not None and kind.left_out:
            seconds = round(now - kind.since, 1)
            logging.getLogger(kind.logger).log(kind.level, _LEFT_OUT, kind.left_out, seconds, kind.text)

    def _key(self, record: logging.LogRecord) -> tuple[Any, ...]:
        """Return what lines of one kind have in common."""
        args = record.args
        first = args[0] if isinstance(args, tuple) and args and isinstance(args[0], str) else ""
        # asyncio puts its values into the message, in lines of their own
        message = record.msg.partition("\n")[0] if isinstance(record.msg, str) else type(record.msg).__name__
        key = record.name, message, first[:MAX_LINE]
        if key in self._kinds or len(self._kinds) < MAX_KINDS:
            return key
        return key[:2] if key[:2] in self._kinds or len(self._kinds) < 2 * MAX_KINDS else key[:1]


def guard(names: Iterable[str]) -> None:
    """Set the filter on loggers.

    Args:
        names: Names of the loggers.
    """
    for name in names:
        logging.getLogger(name).addFilter(GUARD)


GUARD = Guard()
"""The one filter of this process."""
guard(LOGGERS)
