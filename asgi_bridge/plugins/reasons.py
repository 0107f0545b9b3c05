"""Why something was refused, short enough for one line of a log, whatever an exception says."""

import asyncio

__all__ = ["MAX_REASON", "ends_task", "reason_of", "shortened", "text_of"]

MAX_REASON = 1500
"""Characters of a reason: with four bytes each they still leave room for the rest of a line of 8 KiB."""


def shortened(text: str, limit: int = MAX_REASON) -> str:
    """`text`, without its middle if it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]} … {text[-(limit - limit // 2) :]}"


def text_of(exc: BaseException) -> str:
    """The text of an exception, whatever its ``__str__`` does."""
    try:
        return shortened(str(exc))
    except BaseException as failed:  # code of a plugin's author, as the exception is
        return f"(its text cannot be had: {type(failed).__name__})"


def reason_of(exc: BaseException) -> str:
    """Type and text of an exception."""
    return f"{type(exc).__name__}: {text_of(exc)}"


def ends_task(exc: BaseException, task: "asyncio.Task[object] | None") -> bool:
    """Whether `exc` came from whoever ends `task`; else the code that runs in it raised it.

    Args:
        exc: caught in `task`.
        task: whose code caught it.
    """
    if isinstance(exc, asyncio.CancelledError):
        return task is not None and task.cancelling() > 0
    if isinstance(exc, GeneratorExit):  # its coroutine may be closed by anybody
        try:
            return asyncio.current_task() is not task
        except RuntimeError:
            return True
    return False
