"""Parked calls: the request halves of ``phase="both"`` that wait for their response half.

Two halves belong together if they have the same ``$request_id``, which is the same in all calls of one request, and the
same plugin. The key of the configuration does not count: a consumer changes it in between.

Parked calls are bounded in number and time. A route may never send the response half, because its
``ext-plugin-post-resp`` does not list the plugin. It gets one warning and parks no more until a response half comes. A
route that used to send it gets a warning too, but goes on parking as long as there is room: its upstream may be down.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterable
from time import monotonic
from typing import Any, Protocol, TypeAlias, TypeVar

__all__ = ["MAX_PARKED", "PARK_SECONDS", "Parkable", "ParkedCalls"]

logger = logging.getLogger("asgi_bridge.adapter")

MAX_PARKED = 10_000
PARK_SECONDS = 75.0
"""Seconds that a parked call waits for its response. APISIX gives an upstream 60 s by default."""
MISSED_IN_A_ROW = 100
"""Warn after this many consecutive parked calls of a route got no response, where earlier ones did. A few are usual:
clients go away, and upstreams cannot be reached."""
EVIDENT_SECONDS = 1.0
"""A call that was ended to make room after fewer seconds does not count as one without a response."""
KEPT_ROUTES = 10_000
"""Maximum number of pairs of route and plugin that are remembered."""


_Listing: TypeAlias = tuple[str | None, str]
"""A route's id, and the name of a plugin that it lists."""
_Value = TypeVar("_Value")


class Parkable(Protocol):
    """What :class:`ParkedCalls` needs to know of a call."""

    request_id: str | None

    @property
    def route_id(self) -> str | None:
        """The id of the APISIX route, if it is known."""

    @property
    def names(self) -> tuple[str, ...]:
        """The plugins of its list, outermost first."""

    def abandon(self) -> None:
        """End it: no response call will come for it."""


class ParkedCalls:
    """The parked calls of one process.

    Args:
        limit: Parked calls at once; the oldest ends when one more comes.
        seconds: How long one waits.
    """

    def __init__(self, limit: int = MAX_PARKED, seconds: float = PARK_SECONDS) -> None:
        self._limit = limit
        self._seconds = seconds
        self._until: OrderedDict[Parkable, float] = OrderedDict()
        self._by_request: dict[str, list[Parkable]] = {}
        # halves that were missed since the last response call, for those of which one has come
        self._missed: dict[_Listing, int] = {}
        self._unanswered: dict[_Listing, None] = {}
        self._full = False

    def __len__(self) -> int:
        return len(self._until)

    def admits(self, call: Parkable) -> bool:
        """Return whether a response call is expected for `call`."""
        # A list may also hold request-phase plugins; no response call ever comes for those.
        return not all((call.route_id, name) in self._unanswered for name in call.names)

    def park(self, call: Parkable) -> None:
        """Keep `call`, whose ``request_id`` is known, until it is taken or abandoned."""
        assert call.request_id is not None
        while len(self._until) >= self._limit:
            oldest = next(iter(self._until))
            if not self._full:
                self._full = True
                logger.warning(
                    "plugin %s: a parked call was ended early, since %d are parked; so will be the oldest of all that "
                    "come on top", _names_of(oldest), self._limit,
                )  # fmt: skip
            waited = monotonic() + self._seconds - self._until[oldest]
            self.remove(oldest)
            if waited >= EVIDENT_SECONDS:
                self._miss(oldest, crowded=True)
            oldest.abandon()
        self._until[call] = monotonic() + self._seconds
        self._by_request.setdefault(call.request_id, []).append(call)

    def of(self, request_id: str | None) -> list[Any]:
        """Return the parked calls of a request, the one parked first first."""
        return list(self._by_request.get(request_id, ())) if request_id else []

    def remove(self, call: Parkable) -> None:
        """Forget `call`, if it is parked."""
        if self._until.pop(call, None) is None:
            return
        assert call.request_id is not None
        if len(self._until) <= self._limit // 2:
            self._full = False  # worth another warning
        halves = self._by_request[call.request_id]
        halves.remove(call)
        if not halves:
            del self._by_request[call.request_id]

    def take(self, route_id: str | None, request_id: str | None, names: Iterable[str]) -> list[Parkable]:
        """Take out the parked calls of a request that share a plugin with its response call.

        Args:
            route_id: Of the response call.
            request_id: Of the request.
            names: The plugins of the response call.

        Returns:
            These calls, the one parked last first.
        """
        wanted = set(names)
        taken = [
            call for call in reversed(self._by_request.get(request_id or "", ())) if wanted.intersection(call.names)
        ]
        for call in taken:
            self.remove(call)
        # the half may come from a global rule, and its response from a route
        routes = {route_id, *(call.route_id for call in taken)}
        for place in [(route, name) for route in routes for name in wanted]:
            _remember(self._missed, place, 0)
            self._unanswered.pop(place, None)
        for name in wanted:
            self._unanswered.pop((None, name), None)
        return taken

    def sweep(self, now: float) -> None:
        """End those whose time is over.

        Args:
            now: Monotonic seconds.
        """
        while self._until:
            call, until = next(iter(self._until.items()))
            if until > now:
                return
            self.remove(call)
            self._miss(call, crowded=False)
            call.abandon()

    def close(self) -> None:
        """End all."""
        while self._until:
            call = next(iter(self._until))
            self.remove(call)
            call.abandon()

    def _miss(self, call: Parkable, crowded: bool) -> None:
        """Note that no response call came for `call`.

        Args:
            crowded: True: it was ended early, to make room.
        """
        places = [(call.route_id, name) for name in call.names]
        if all(place in self._unanswered for place in places):
            return
        known = [place for place in places if place in self._missed]
        for place in known:
            self._missed[place] += 1
        missed = min((self._missed[place] for place in known), default=None)
        if missed is None:
            logger.warning(
                "plugin %s: no response call came for route %s: list it in ext-plugin-post-resp of that route too; "
                "until one comes it runs there as in the request phase alone",
                _names_of(call),
                call.route_id or "?",
            )
        else:
            # The upstream may be down, and the half be wanted again when it is back: parked as before, but for others.
            if missed == MISSED_IN_A_ROW:
                logger.warning(
                    "plugin %s: no response call came for the last %d requests of route %s: is the upstream down, or "
                    "the plugin not listed in ext-plugin-post-resp any longer?",
                    _names_of(call), missed, call.route_id or "?",
                )  # fmt: skip
            if not crowded or missed < MISSED_IN_A_ROW:
                return
        for place in places:
            self._missed.pop(place, None)
            _remember(self._unanswered, place, None)


def _remember(places: dict[_Listing, _Value], place: _Listing, value: _Value) -> None:
    """Put `value` last, and drop the first ones that are too many."""
    places.pop(place, None)
    places[place] = value
    if len(places) > KEPT_ROUTES:
        del places[next(iter(places))]


def _names_of(call: Parkable) -> str:
    return ", ".join(call.names)
