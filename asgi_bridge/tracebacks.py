"""Tracebacks for people who write plugins: the lines of their own files, without what called those."""

import sysconfig
from pathlib import Path
from traceback import FrameSummary, TracebackException, extract_tb
from types import TracebackType
from typing import TypeVar

from .errors import BridgeError

__all__ = ["calling_line", "own_lines", "shorten"]

Raised = TypeVar("Raised", bound=BaseException)

_HERE = str(Path(__file__).parent)
_PATHS = sysconfig.get_paths()
_LIBRARY = tuple({_HERE, *(_PATHS[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))})
_INSTALLED = ("/site-packages/", "/dist-packages/")


def _is_own(filename: str) -> bool:
    """Whether a file is the user's: none of this package, of the standard library, or of an installed package."""
    if filename.startswith("<"):
        return False
    inside = (filename.startswith(f"{folder}/") for folder in _LIBRARY)
    return not any(inside) and not any(part in filename for part in _INSTALLED)


def _calls(filename: str) -> bool:
    """Whether a file is of what imports and calls a user's code: this package and the import system."""
    return filename.startswith(("<frozen ", f"{_HERE}/", f"{_PATHS['stdlib']}/importlib/"))


def shorten(exc: Raised | None) -> Raised | None:
    """Leave the user's own frames only in the tracebacks of `exc`, and of the exceptions that led to it.

    Where none are the user's (a plugin of an installed package), what stays is all but this package's frames and those
    of the import system. The tracebacks are changed in place: this is for an exception that is about to be shown.

    Returns:
        `exc`; None is for callers that have none.
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
    frames: list[TracebackType] = []
    while traceback is not None:
        frames.append(traceback)
        traceback = traceback.tb_next
    kept = [each for each in frames if _is_own(each.tb_frame.f_code.co_filename)]
    kept = kept or [each for each in frames if not _calls(each.tb_frame.f_code.co_filename)]
    following: TracebackType | None = None
    for each in reversed(kept):
        following = TracebackType(following, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return following


def own_lines(exc: BaseException) -> str:
    """The traceback of the user's error behind `exc`, as Python prints it, with the user's own frames only.

    Returns:
        Lines with their ends; empty where no error of the user's is behind `exc`.
    """
    error = shorten(exc.__cause__ if isinstance(exc, BridgeError) else exc)
    return "" if error is None else "".join(TracebackException.from_exception(error).format())


def calling_line(exc: BaseException) -> FrameSummary | None:
    """The user's line that called what raised `exc` in this package; None: it was raised elsewhere."""
    frames = extract_tb(exc.__traceback__)
    own = [frame for frame in frames if _is_own(frame.filename)]
    return own[-1] if own and frames[-1].filename.startswith(f"{_HERE}/") else None
