"""The errors of one call that went to a plugin, which may catch them."""

import asyncio

from ..errors import PluginError
from ..plugins.reasons import reason_of, text_of

__all__ = ["Faults", "reason_for_refusal"]

MAX_CAUGHT = 8
"""Maximum number of errors of one call that are logged although the plugin has caught them."""


class Faults:
    """The errors that a call has raised in a plugin's code.

    Attributes:
        first: The first one after which the request must not go upstream; None: there is none.
        logged: The one that came after the answer, and is in the log; None: there is none.
    """

    __slots__ = ("_caught", "first", "logged")

    def __init__(self) -> None:
        self.first: PluginError | None = None
        self.logged: PluginError | None = None
        self._caught: dict[str, None] = {}

    def note(self, exc: BaseException) -> None:
        """Note that `exc` went to a plugin."""
        if len(self._caught) < MAX_CAUGHT:
            self._caught[text_of(exc)] = None

    def came_out(self, exc: BaseException) -> None:
        """Note that `exc` came out of the plugin: it has not caught it."""
        self._caught.pop(text_of(exc), None)

    def take_caught(self) -> list[str]:
        """Return the texts of the errors that did not come out of the plugin, and forget them."""
        caught = list(self._caught)
        self._caught.clear()
        return caught


def reason_for_refusal(exc: BaseException) -> str:
    """Return why a call is refused that ended with `exc`. Call it in the call's own task."""
    if isinstance(exc, PluginError):
        return text_of(exc)
    if isinstance(exc, asyncio.CancelledError):
        task = asyncio.current_task()
        return "it was cut off by the shutdown" if task and task.cancelling() else "CancelledError"
    return reason_of(exc)
