"""A receive that can begin again, for a layer whose plugin reads the body and then lets the request go on."""

from collections import deque
from collections.abc import Iterable

from starlette.types import Message, Receive

__all__ = ["Replay"]


class Replay:
    """A receive that remembers what it gave.

    Args:
        receive: Where its messages come from.
        first: Messages that it gives before those of `receive`.

    Attributes:
        failed: True: `receive` has raised.
    """

    __slots__ = ("_first", "_receive", "_seen", "failed")

    def __init__(self, receive: Receive, first: Iterable[Message] = ()) -> None:
        self._receive = receive
        self._first = deque(first)
        self._seen: list[Message] | None = []
        self.failed = False

    async def __call__(self) -> Message:
        if self._first:
            message = self._first.popleft()
        else:
            try:
                message = await self._receive()
            except Exception:
                self.failed = True
                raise
        if self._seen is not None:
            self._seen.append(dict(message))
        return message

    def forget(self) -> None:
        """Drop what was received: the call may wait for a long time, and nobody begins again."""
        self._seen = None

    def again(self) -> Receive:
        """Return a receive that gives what was received so far, then the rest.

        It is this object if nothing was received. Otherwise this object forgets what it gave.
        """
        seen = self._seen
        if not seen:
            return self
        self._seen = None
        return Replay(self._receive, [*seen, *self._first])
