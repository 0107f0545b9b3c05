"""What uvicorn knows of a running server."""

from uvicorn.server import ServerState

__all__ = ["RunnerState"]


class RunnerState(ServerState):
    """The connections and tasks of a running server, and how many calls there were.

    The compiled core writes into the slots.
    """

    __slots__ = ("connections", "default_headers", "tasks", "total_requests")
