"""Which worker has the parked calls of a request: further calls of that request are for it.

A plugin of ``phase="both"`` waits in the worker that had its request half. The response call may reach another worker.
That one asks for ``$request_id``, looks up who has the parked calls, and passes the connection on, together with the
call. So all that belongs to one request meets in one process.
"""

import os

from ..adapter.parked_calls import Parkable, ParkedCalls
from ..plugins.shared_numbers import SharedNumbers, SharedTable

__all__ = ["NotedCalls", "Whereabouts"]

_PARKING = ("processes that park calls",)
"""Key of the first process that has parked a call, and of whether there are several."""


class Whereabouts:
    """Request → the worker that has parked calls of it. All workers share this.

    Args:
        table: The memory. It holds as many requests as there is room for; the oldest go first.
    """

    def __init__(self, table: SharedTable) -> None:
        self._table = table
        self._others = self._noted = False

    def has_others(self) -> bool:
        """Whether other workers, also those of a predecessor, park calls."""
        if not self._others:
            with SharedNumbers(self._table, _PARKING) as pair:
                self._others = pair[0] not in (0, os.getpid()) or bool(pair[1])
        return self._others

    def find(self, request_id: str) -> int:
        """Return the process id of the worker; 0: no worker has parked calls of the request."""
        with SharedNumbers(self._table, request_id) as pair:
            return int(pair[0])

    def note(self, request_id: str, process: int) -> None:
        """Note which worker has parked calls of the request.

        Args:
            request_id: The request.
            process: Its process id; 0: none has any more.
        """
        if not self._noted:
            self._noted = True
            with SharedNumbers(self._table, _PARKING) as pair:
                if pair[0] in (0, process):
                    pair[0] = process
                else:
                    pair[1] = 1
        with SharedNumbers(self._table, request_id) as pair:
            pair[0] = process


class NotedCalls(ParkedCalls):
    """The parked calls of a worker, which the other workers can find.

    Args:
        whereabouts: Where they are noted.
    """

    def __init__(self, whereabouts: Whereabouts) -> None:
        super().__init__()
        self._whereabouts = whereabouts

    def park(self, call: Parkable) -> None:
        """Keep `call`, and note that this worker has it."""
        super().park(call)
        assert call.request_id is not None
        self._whereabouts.note(call.request_id, os.getpid())

    def remove(self, call: Parkable) -> None:
        """Forget `call`, if it is parked, and note it if it was the last one of its request."""
        parked = call in self.of(call.request_id)
        super().remove(call)
        if parked and call.request_id is not None and not self.of(call.request_id):
            self._whereabouts.note(call.request_id, 0)
