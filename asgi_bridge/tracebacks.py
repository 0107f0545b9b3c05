"""Tracebacks for authors of plugins: only the lines of their own files."""

import sysconfig
from pathlib import Path
from traceback import FrameSummary, StackSummary, TracebackException, extract_tb
from types import TracebackType
from typing import TypeVar

from .errors import BridgeError

__all__ = ["calling_line", "own_frames", "own_lines", "shorten"]

Raised = TypeVar("Raised", bound=BaseException)

_HERE = str(Path(__file__).parent)
_PATHS = sysconfig.get_paths()
_LIBRARY = tuple({_HERE, *(_PATHS[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))})
_INSTALLED = ("/site-packages/", "/dist-packages/")


def _is_own(filename: str) -> bool:
    """Whether a file is the user's: not of this package, the standard library, or an installed package."""
    if filename.startswith("<"):
        return False
    inside = (filename.startswith(f"{folder}/") for folder in _LIBRARY)
    return not any(inside) and not any(part in filename for part in _INSTALLED)


def _calls(filename: str) -> bool:
    """Whether a file belongs to this package or to the import system, which import and call the user's code."""
    return filename.startswith(("<frozen ", f"{_HERE}/", f"{_PATHS['stdlib']}/importlib/"))


def shorten(exc: Raised | None) -> Raised | None:
    """Keep only the user's own frames in the tracebacks of `exc` and of the exceptions that led to it.

    If there are none (the plugin is an installed package), remove only the frames of this package and of the import
    system. The tracebacks are changed in place, so use this for an exception that is about to be shown.

    Args:
        exc: The exception; None does nothing.

    Returns:
        `exc`.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [exc]
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        each.__traceback__ = _own(each.__traceback__)
        pending += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            pending += each.exceptions
    return exc


def _own(traceback: TracebackType | None) -> TracebackType | None:
    """Copy a traceback with the user's frames only."""
    frames: list[TracebackType] = []
    while traceback is not None:
        frames.append(traceback)
        traceback = traceback.tb_next
    kept = [each for each in frames if _is_own(each.tb_frame.f_code.co_filename)]
    kept = kept or [each for each in frames if not _calls(each.tb_frame.f_code.co_filename)]
    shortened: TracebackType | None = None
    for each in reversed(kept):
        shortened = TracebackType(shortened, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return shortened


def own_lines(exc: BaseException) -> str:
    """Return the traceback of the user's error that led to `exc`, with the user's own frames only.

    Args:
        exc: An error of this package that was raised from the user's, or the user's error.

    Returns:
        Lines with their ends, as Python prints them; empty if no error of the user's led to `exc`.
    """
    error = shorten(exc.__cause__ if isinstance(exc, BridgeError) else exc)
    return "" if error is None else "".join(TracebackException.from_exception(error).format())


def own_frames(exc: BaseException) -> str:
    """Return the traceback of `exc` with the user's own frames only, and leave `exc` as it is.

    Args:
        exc: An exception that others will show too. Its ``__str__`` may raise.

    Returns:
        Lines with their ends, as Python prints them.
    """
    try:
        whole = TracebackException.from_exception(exc)
        pending = [whole]
        while pending:
            each = pending.pop()
            kept = [frame for frame in each.stack if _is_own(frame.filename)]
            kept = kept or [frame for frame in each.stack if not _calls(frame.filename)]
            each.stack = StackSummary.from_list(kept)
            pending += [more for more in (each.__cause__, each.__context__, *(each.exceptions or ())) if more]
        return "".join(whole.format())
    except Exception as failed:  # the exception's own code has raised this
        return f"{type(exc).__name__}: (it cannot be shown: {type(failed).__name__})\n"


def calling_line(exc: BaseException) -> FrameSummary | None:
    """Return the user's line that called this package; None: `exc` was not raised in this package.

    Args:
        exc: The exception, with its traceback.
    """
    frames = extract_tb(exc.__traceback__)
    own = [frame for frame in frames if _is_own(frame.filename)]
    return own[-1] if own and frames[-1].filename.startswith(f"{_HERE}/") else None
