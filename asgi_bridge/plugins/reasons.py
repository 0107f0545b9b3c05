"""Why something was refused, short enough for one line of a log, whatever an exception says."""

import asyncio

__all__ = ["MAX_REASON", "ends_task", "reason_of", "shortened"]

MAX_REASON = 1500
"""Characters of a reason: with four bytes each they still leave room for the rest of a line of 8 KiB."""


def shortened(text: str, limit: int = MAX_REASON) -> str:
    """`text`, without its middle if it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]} … {text[-(limit - limit // 2) :]}"


def reason_of(exc: BaseException) -> str:
    """Type and text of an exception."""
    try:
        text = str(exc)
    except Exception as failed:
        text = f"(its text cannot be had: {type(failed).__name__})"
    return f"{type(exc).__name__}: {shortened(text)}"


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
