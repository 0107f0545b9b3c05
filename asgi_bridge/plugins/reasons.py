"""Reasons for the log: short enough for one line, whatever an exception says."""

import asyncio

__all__ = ["MAX_REASON", "ends_task", "reason_of", "shortened", "text_of"]

MAX_REASON = 1500
"""Maximum length of a reason, in characters. Even with four bytes each, it leaves room in a log line of 8 KiB."""


def shortened(text: str, limit: int = MAX_REASON) -> str:
    """Return `text`, without its middle if it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]} … {text[-(limit - limit // 2) :]}"


def text_of(exc: BaseException) -> str:
    """Return the text of an exception, whatever its ``__str__`` does."""
    try:
        return shortened(str(exc))
    except BaseException as failed:  # code of a plugin's author, as the exception is
        return f"(its text cannot be had: {type(failed).__name__})"


def reason_of(exc: BaseException) -> str:
    """Return type and text of an exception."""
    return f"{type(exc).__name__}: {text_of(exc)}"


def ends_task(exc: BaseException, task: "asyncio.Task[object] | None") -> bool:
    """Return whether an exception was sent into `task` to end it. Otherwise the code in the task raised it itself.

    Args:
        exc: The exception, which was caught in `task`.
        task: The task.
    """
    if isinstance(exc, asyncio.CancelledError):
        return task is not None and task.cancelling() > 0
    if isinstance(exc, GeneratorExit):  # anybody may close the coroutine of a task
        try:
            return asyncio.current_task() is not task
        except RuntimeError:
            return True
    return False
