"""The last requests, and who wants to know of changes in them."""

import asyncio
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any

from .record import CallRecord, Exchanged, Record

__all__ = ["KEPT", "KEPT_BYTES", "Records", "Subscription"]

KEPT = 500
"""Maximum number of requests that are kept."""
KEPT_BYTES = 64 * 1024 * 1024
"""Maximum size of all that is kept of them, in bytes, about."""
MAX_SUBSCRIPTIONS = 32
"""Maximum number of pages that are told of changes at the same time."""


class Subscription:
    """One page that is told which requests have changed.

    Attributes:
        over: True: no change will come any more.
    """

    def __init__(self) -> None:
        self.over = False
        self._changed: dict[int, None] = {}
        self._wake = asyncio.Event()

    def end(self) -> None:
        """End it: no change will come any more."""
        self.over = True
        self._wake.set()

    def wake(self) -> None:
        """Tell the page something else than changes of requests."""
        self._wake.set()

    def note(self, number: int) -> None:
        """Note that a request has changed. Of many, only the last ones are remembered."""
        self._changed.pop(number, None)
        self._changed[number] = None
        if len(self._changed) > KEPT:
            del self._changed[next(iter(self._changed))]
        self._wake.set()

    async def changes(self, seconds: float) -> list[int]:
        """Wait for changes, at most so many seconds. Returns the numbers of the changed requests."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return []
        self._wake.clear()
        changed, self._changed = self._changed, {}
        return list(changed)


class Records:
    """The last requests: at most KEPT, and at most KEPT_BYTES of memory. The oldest goes first.

    Attributes:
        total: Number of requests that there were.
        paused: No further requests are kept, but those that the page sends.
        on_change: Called with each record that has changed.
    """

    def __init__(self) -> None:
        self.total = 0
        self.paused = False
        self.on_change: list[Callable[[Record], None]] = []
        self._records: OrderedDict[int, Record] = OrderedDict()
        self._numbers = itertools.count(1)
        self._calls: dict[int, tuple[Record, CallRecord]] = {}
        self._passing: OrderedDict[int, tuple[Record, CallRecord]] = OrderedDict()  # of records that are not kept
        self._subscriptions: set[Subscription] = set()
        self._size = 0
        self._sizes: dict[int, int] = {}
        self._errors: deque[dict[str, Any]] = deque(maxlen=20)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        """Return the records, the oldest first."""
        return iter(list(self._records.values()))

    def get(self, number: int) -> Record | None:
        """Return a record; None: there is none any more."""
        return self._records.get(number)

    def begin(self, client: Exchanged, again: int | None) -> Record:
        """Make the record of a request that has come.

        Args:
            client: The client's side.
            again: Number of the record that it repeats; None: none.
        """
        record = Record(next(self._numbers), client, again)
        self.total += 1
        if not self.paused or again is not None:
            self._records[record.number] = record
        self.changed(record)
        return record

    def changed(self, record: Record) -> None:
        """Note that a record has changed, and drop old records if there are too many."""
        if record.number in self._records:
            self._size += record.size - self._sizes.get(record.number, 0)
            self._sizes[record.number] = record.size
        while len(self._records) > KEPT or (self._size > KEPT_BYTES and len(self._records) > 1):
            number, oldest = self._records.popitem(last=False)
            self._drop(oldest)
            self._size -= self._sizes.pop(number)
        for subscription in self._subscriptions:
            subscription.note(record.number)
        for each in self.on_change:
            each(record)

    def calls(self, record: Record, call: CallRecord) -> None:
        """Note that a call of the runner belongs to a record, so that news of it are added there."""
        if call.number is None or record.dropped:
            return
        if record.number in self._records:
            self._calls[call.number] = (record, call)
            return
        self._passing[call.number] = (record, call)
        while len(self._passing) > 4 * KEPT:
            self._passing.popitem(last=False)

    def explain(self, record: Record) -> None:
        """Add the runner's errors about the route of a record, if a call of it failed before it could begin."""
        route = record.about.get("route")
        if route is not None and any(each.number is None for each in record.calls):
            end = record.finished or float("inf")
            for line in list(self._errors):
                about_it = line["text"].startswith(f"route {route} refused: ")
                if about_it and record.started <= line["at"] <= end and line not in record.lines:
                    record.add_line(line)

    def tell(self, news: dict[str, Any]) -> None:
        """Add what the runner tells of a call to the record that the call belongs to, if that is still kept.

        An error about no call belongs to the requests whose preparation it was.
        """
        if "line" in news:
            self._errors.append(news["line"])
            for each in list(self._records.values())[-10:]:
                self.explain(each)
            return
        found = self._calls.get(news["call"]) or self._passing.get(news["call"])
        if found is not None:
            record, call = found
            record.add_news(call, news)
            self.changed(record)

    def pause(self, paused: bool) -> None:
        """Keep no further requests, or keep them again. All pages are told."""
        self.paused = paused
        for subscription in self._subscriptions:
            subscription.wake()

    def clear(self) -> None:
        """Forget all requests."""
        for record in self._records.values():
            self._drop(record)
        self._records.clear()
        self._passing.clear()
        self._sizes.clear()
        self._size = 0

    def _drop(self, record: Record) -> None:
        """Note that a record is not kept any more."""
        record.dropped = True
        for call in record.calls:
            if call.number is not None:
                self._calls.pop(call.number, None)

    def subscribe(self) -> Subscription | None:
        """Begin to tell a page of changes; None: too many pages are open."""
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            return None
        subscription = Subscription()
        self._subscriptions.add(subscription)
        return subscription

    def close(self) -> None:
        """End all subscriptions."""
        for subscription in self._subscriptions:
            subscription.end()

    def unsubscribe(self, subscription: Subscription) -> None:
        """Tell that page nothing any more."""
        self._subscriptions.discard(subscription)
