"""What a connection does with its session all the time: `receive` and `send`.

This is the one place that names both implementations. All other code takes the functions from here.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from ..compiled import twin
from .frames import Buffer
from .messages import Message
from .session import Session

__all__ = ["DIALOGUES", "Dialogue", "receive", "send"]

Receive: TypeAlias = Callable[[Session, Buffer], Message | None]
Send: TypeAlias = Callable[[Session, Message], bytes]


class Dialogue(NamedTuple):
    """An implementation of the two.

    Attributes:
        name: Name of the implementation, for test reports.
        receive: As `Session.receive`.
        send: As `Session.send`.
    """

    name: str
    receive: Receive
    send: Send


DIALOGUES: tuple[Dialogue, ...] = (Dialogue("python", Session.receive, Session.send),)
"""All implementations on this machine. The first one is used."""
_compiled = twin("wire._session")
if _compiled is not None:
    DIALOGUES = (Dialogue("compiled", _compiled.receive, _compiled.send), *DIALOGUES)

receive = DIALOGUES[0].receive
send = DIALOGUES[0].send
