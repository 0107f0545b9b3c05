"""The stages of a call, and what moves it from one to the next.

::

                      ┌── PARK ──▶ PARKED ── RESUME ──▶ RESUMED ──┐
    RUNNING ──────────┤               │                    │      │
       │              └───────────────┴────── ANSWER ──────┴──────┴──▶ ANSWERED
       ├── REFUSE ──▶ REFUSED      from PARKED and RESUMED too
       ├── EXPIRE ──▶ EXPIRED      its deadline has passed, or the process ends
       └── CLOSE ───▶ GONE         the gateway has closed the connection, or waits no longer

Only a call with a plugin of ``phase="both"`` is ever parked. In the last four stages the gateway gets nothing more of
the call; what its plugins still do (background tasks) goes on.
"""

from enum import Enum
from typing import ClassVar, TypeAlias

__all__ = [
    "ANSWERED",
    "EXPIRED",
    "GONE",
    "OPEN",
    "PARKED",
    "REFUSED",
    "RESUMED",
    "RUNNING",
    "Event",
    "Moves",
    "Stage",
]


class Stage(Enum):
    """How far a call is."""

    RUNNING = "it runs, and has no answer yet"
    PARKED = "its request call is answered; it waits for the response call"
    RESUMED = "the response call has come, and has no answer yet"
    ANSWERED = "the answer of its plugins is out"
    REFUSED = "it was answered with an error, because something went wrong"
    EXPIRED = "it was answered with an error, because it took too long"
    GONE = "nobody waits for its answer"

    # Enum's own hash is a Python function, and every call looks its stage up in a dict.
    __hash__ = object.__hash__


# Access to a member of an Enum costs a function call in Python 3.11.
RUNNING, PARKED, RESUMED = Stage.RUNNING, Stage.PARKED, Stage.RESUMED
ANSWERED, REFUSED, EXPIRED, GONE = Stage.ANSWERED, Stage.REFUSED, Stage.EXPIRED, Stage.GONE
OPEN = (RUNNING, RESUMED)
"""The stages in which the gateway waits for an answer."""

Moves: TypeAlias = dict[Stage, Stage]


class Event:
    """What happens to a call: for each stage in which it may happen the next stage."""

    ANSWER: ClassVar[Moves] = {RUNNING: ANSWERED, PARKED: ANSWERED, RESUMED: ANSWERED, GONE: GONE}
    REFUSE: ClassVar[Moves] = {RUNNING: REFUSED, PARKED: REFUSED, RESUMED: REFUSED, GONE: GONE}
    EXPIRE: ClassVar[Moves] = {RUNNING: EXPIRED, RESUMED: EXPIRED, GONE: EXPIRED}
    PARK: ClassVar[Moves] = {RUNNING: PARKED}
    RESUME: ClassVar[Moves] = {PARKED: RESUMED}
    CLOSE: ClassVar[Moves] = {**dict.fromkeys(Stage, GONE), EXPIRED: EXPIRED}
