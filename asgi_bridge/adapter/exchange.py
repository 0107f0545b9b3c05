"""What a call needs of the connection that it came over."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ..wire import ErrResp, HTTPReqCallResp, HTTPRespCallResp, Info

if TYPE_CHECKING:
    import asyncio

__all__ = ["Answer", "Exchange"]

Answer: TypeAlias = HTTPReqCallResp | HTTPRespCallResp | ErrResp


class Exchange(Protocol):
    """One call's side of a connection to the gateway."""

    def ask(self, infos: Sequence[Info]) -> "asyncio.Future[list[bytes | None]]":
        """Asks the gateway, all at once: one round trip. The future fails when the gateway does."""

    def answer(self, message: Answer, said: str) -> None:
        """Ends the call.

        Args:
            message: the answer.
            said: the answer in a word or two, for the access log.

        Raises:
            LocalProtocolError: the answer does not fit into a frame; nothing was sent.
        """
