"""What shadows would have done: counted for each plugin, and logged in bounded number.

The lines have a logger of their own, ``asgi_bridge.shadow``. Its lines of one kind are counted together from the first
level on (:class:`asgi_bridge.logs.Guard`), so no client can fill the log by them.
"""

import logging
from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, Protocol

from starlette.types import Send

if TYPE_CHECKING:
    import asyncio

__all__ = ["MAX_IN_FLIGHT", "SUMMARY_SECONDS", "ShadowRecord", "ShadowRun", "Verdict"]

logger = logging.getLogger("asgi_bridge.shadow")

MAX_IN_FLIGHT = 100
"""Maximum number of runs of one plugin's shadow at once. Requests that come on top are skipped and counted."""
SUMMARY_SECONDS = 60.0
"""Seconds between two lines with the counts of one plugin."""


class Verdict(NamedTuple):
    """What a shadow would have done with one request.

    Attributes:
        outcome: In a word or two, by which it is counted: ``"pass"``, ``"rewrite"``, ``"stop 401"``,
            ``"response 200"``, ``"error"``, ``"timeout"``, ``"unknown"``.
        text: What the log says about it; empty: nothing, because the request would have been the same.
        request: Method and path, for the log.
        level: Of the line.
    """

    outcome: str
    text: str
    request: str
    level: int = logging.WARNING


class ShadowRun(Protocol):
    """One run of a shadow, beside a call. It raises nothing, and never touches that call's answer."""

    task: "asyncio.Task[None] | None"

    @property
    def verdict(self) -> Verdict | None:
        """What the plugin would have done; None: nothing is known yet."""

    @property
    def late(self) -> bool:
        """Whether it asked the gateway for something after the call was answered."""

    async def run(self) -> None:
        """Run the plugin to its end, its background tasks included."""

    def expire(self) -> None:
        """End it: its time is over."""

    async def settle(self) -> None:
        """Wait until the gateway has answered what the plugin asks first, but not long."""

    def watch(self, send: Send) -> Send:
        """Return a `send` that shows the run the response that passes to `send`."""

    def lose(self) -> None:
        """Note that no more of the response will pass."""


class ShadowRecord:
    """What one plugin's shadow would have done, on all routes.

    Args:
        name: Of the plugin.

    Attributes:
        counts: Number of requests by outcome, since the start; ``"skipped"`` are those that it did not run on, because
            too many runs were in flight or because it cannot be built.
        in_flight: Number of runs that have not ended.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()
        self.in_flight = 0
        self._told: Counter[str] = Counter()
        self._told_at = monotonic()

    def note(self, verdict: Verdict, route_id: str | None) -> None:
        """Count a verdict, and log it if the plugin would have changed something.

        Args:
            verdict: The verdict.
            route_id: Id of the route, if it is known.
        """
        self.counts[verdict.outcome] += 1
        if verdict.text:
            # the outcome is in the message, so that a flood of one outcome hides no other
            logger.log(
                verdict.level, "plugin %s: shadow: " + verdict.outcome + ": %s: %s, route %s",
                self.name, verdict.text, verdict.request, route_id or "?",
            )  # fmt: skip

    def sweep(self, now: float) -> None:
        """Log the counts since the last such line, if there are any and that line is old enough.

        Args:
            now: Monotonic seconds; infinity: the line is old enough.
        """
        if now < self._told_at + SUMMARY_SECONDS:
            return
        self._told_at = min(now, monotonic())
        new = self.counts - self._told
        self._told = self.counts.copy()
        if new:
            parts = ", ".join(f"{number} {outcome}" for outcome, number in new.most_common())
            logger.info("plugin %s: shadow: %d requests: %s", self.name, new.total(), parts)
