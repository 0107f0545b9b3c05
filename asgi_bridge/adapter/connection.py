"""What a call needs of the connection that it came over."""

import asyncio
from collections.abc import Sequence
from typing import Protocol, TypeAlias

from ..errors import PluginError
from ..wire import ErrResp, HTTPReqCallResp, HTTPRespCallResp, Info, Var

__all__ = ["CLOSED", "Answer", "Connection", "asks_for"]

Answer: TypeAlias = HTTPReqCallResp | HTTPRespCallResp | ErrResp


class Connection(Protocol):
    """One call's side of a connection to the gateway."""

    def ask(self, infos: Sequence[Info]) -> "asyncio.Future[list[bytes | None]]":
        """Ask the gateway for all of `infos`, in one round trip.

        Returns:
            A future of the answers, in the order of `infos`; None: the gateway has no such thing. The future fails
            with a PluginError when the gateway answers with an error or closes the connection.
        """

    def answer(self, message: Answer, outcome: str) -> None:
        """Answer the call, which ends it for the gateway.

        Args:
            message: The answer.
            outcome: The answer in a word or two, for the access log.

        Raises:
            LocalProtocolError: The answer does not fit into a frame; nothing was sent.
        """


class _Closed:
    """The connection of a call that no gateway waits for."""

    def ask(self, infos: Sequence[Info]) -> "asyncio.Future[list[bytes | None]]":
        future: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
        future.set_exception(PluginError("the gateway cannot be asked any more: it does not wait for this call"))
        return future

    def answer(self, message: Answer, outcome: str) -> None:
        """Do nothing."""


CLOSED = _Closed()
"""The connection of all calls that no gateway waits for."""

_MAX_KEPT = 256
"""Maximum number of sets of names for which the asks are kept."""
_MAX_LENGTH = 1024
"""Maximum length of all names of such a set, in characters."""


class _Asks(dict[tuple[str, ...], tuple[Var, ...]]):
    """Cache: names of variables → an ask for each. A configuration's calls ask for the same ones again and again."""

    def __missing__(self, names: tuple[str, ...]) -> tuple[Var, ...]:
        asks = tuple([Var(name.encode()) for name in names])
        if sum(map(len, names)) <= _MAX_LENGTH:
            if len(self) >= _MAX_KEPT:
                self.clear()
            self[names] = asks
        return asks


asks_for = _Asks()
