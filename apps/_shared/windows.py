"""Windows of time that ``limit-count`` counts requests in: in this process, or by a script in Redis.

A *fixed* window begins with the first request, and the count begins anew when the window is over. So a client may send
twice the count in a short time: at the end of one window and at the beginning of the next. A *sliding* window has the
length of a fixed one and ends now. Its count is the one since the last whole window, and a share of the one in the
window before: the share that the sliding window still covers.

A request that is refused does not count.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from asgi_bridge.plugins.numbers_by_name import NumbersByName

from .redis_script import RedisScript

__all__ = ["MAX_COUNT", "Counter", "Kind", "SharedCounter", "Taken", "Window"]

Kind = Literal["fixed", "sliding"]

MAX_COUNT = 10_000_000
"""Maximum number of requests in a window. Two counts have to fit into one number exactly."""
KEPT_MILLISECONDS = 1000
"""Milliseconds that Redis keeps a key after its count has lost its effect."""

_SHIFT = 2.0**24
"""Factor of the first of two counts in one number."""
_ROUNDING = 1e-9
"""By so much a count may exceed the limit: sums of shares are rounded."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a window says to a request.

    Attributes:
        passed: Whether the request may pass.
        remaining: Number of requests that may follow at once.
        reset: Seconds until the window ends.
        wait: Seconds until a request may pass; 0: now.
    """

    passed: bool
    remaining: int
    reset: float
    wait: float


@dataclass(frozen=True, slots=True)
class Window:
    """A number of requests in a time.

    Attributes:
        count: Number of requests that may pass.
        seconds: Length of the window.
        kind: Whether it is fixed or slides.
    """

    count: int
    seconds: float
    kind: Kind

    def take(self, pair: list[float], now: float) -> Taken:
        """Count a request, if it may pass.

        Args:
            pair: What was counted before; two zeros: nothing. This changes it.
            now: Monotonic seconds, the same in all processes that share `pair`.
        """
        return self._take_fixed(pair, now) if self.kind == "fixed" else self._take_sliding(pair, now)

    def _take_fixed(self, pair: list[float], now: float) -> Taken:
        counted, started = pair
        if not counted or now - started >= self.seconds:
            counted, started = 0.0, now
        passed = counted < self.count
        pair[:] = counted + passed, started
        reset = self.seconds - (now - started)  # in this order exact for the first request
        return Taken(passed, self.count - int(pair[0]), reset, 0.0 if passed else reset)

    def _take_sliding(self, pair: list[float], now: float) -> Taken:
        last, both = pair
        before, counted = divmod(both, _SHIFT)
        index = now // self.seconds
        if index > last:
            before, counted = (counted if index == last + 1 else 0.0), 0.0
        into = now / self.seconds - index
        room = self.count + _ROUNDING - before * (1 - into) - counted
        passed = room >= 1
        counted += passed
        pair[:] = index, before * _SHIFT + counted
        remaining = max(math.floor(room - passed), 0)
        wait = 0.0 if passed else (self._free_at(before, counted) - into) * self.seconds
        return Taken(passed, remaining, (1 - into) * self.seconds, max(wait, 0.0))

    def _free_at(self, before: float, counted: float) -> float:
        """Return when a request may pass, in windows since this one began."""
        if counted + 1 <= self.count:
            return 1 - (self.count - 1 - counted) / before
        return 1 + 1 - (self.count - 1) / counted


class Counter:
    """Counts of one route in this process.

    Args:
        window: What may pass.
        numbers: The counts.
        clock: Returns monotonic seconds.
    """

    def __init__(self, window: Window, numbers: NumbersByName, clock: Callable[[], float]) -> None:
        self._window = window
        self._numbers = numbers
        self._clock = clock

    def take(self, name: bytes) -> Taken:
        """Count a request under a name, if it may pass."""
        with self._numbers.of(name) as pair:
            return self._window.take(pair, self._clock())


# The scripts do what Window.take does. Numbers are passed as text, because Redis cuts a Lua number down to an integer.
# If the clock goes back (another Redis took over), a script behaves as if the clock had stood still.
_NOW = """
local count, seconds, kept, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local function text(number) return string.format('%.17g', number) end
local function keep(left, ...)
    redis.call('HSET', KEYS[1], ...)
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', left * 1000 + kept))
end
"""
_SCRIPTS: dict[Kind, str] = {
    "fixed": _NOW
    + """
local state = redis.call('HMGET', KEYS[1], 'counted', 'started')
local counted, started = tonumber(state[1] or 0), tonumber(state[2] or now)
now = math.max(now, started)
if now - started >= seconds then counted, started = 0, now end
local passed = counted < count
local reset = seconds - (now - started)
if passed then
    counted = counted + 1
    keep(reset, 'counted', text(counted), 'started', text(started))
end
local left = math.max(count - counted, 0)
return table.concat({passed and 1 or 0, text(left), text(reset), passed and 0 or text(reset)}, ' ')
""",
    "sliding": _NOW
    + """
local state = redis.call('HMGET', KEYS[1], 'index', 'before', 'counted')
local last, before, counted = tonumber(state[1] or 0), tonumber(state[2] or 0), tonumber(state[3] or 0)
now = math.max(now, last * seconds)
local index = math.max(math.floor(now / seconds), last)
if index > last then
    before = index == last + 1 and counted or 0
    counted = 0
end
local into = now / seconds - index
local room = count + 1e-9 - before * (1 - into) - counted
local passed = room >= 1
local wait = 0
if passed then
    counted, room = counted + 1, room - 1
    keep((2 - into) * seconds, 'index', text(index), 'before', text(before), 'counted', text(counted))
elseif counted + 1 <= count then
    wait = (1 - (count - 1 - counted) / before - into) * seconds
else
    wait = (2 - (count - 1) / counted - into) * seconds
end
return table.concat({passed and 1 or 0, text(math.max(math.floor(room), 0)), text((1 - into) * seconds),
    text(math.max(wait, 0))}, ' ')
""",
}


class SharedCounter:
    """Counts in a Redis, for all who name the same Redis and the same key.

    Args:
        url: A URL for redis-py.
        window: What may pass.
        clock: Returns the time in seconds; None uses the clock of Redis.

    Raises:
        ConfigurationError: redis-py refuses the URL, or is not installed.
    """

    def __init__(self, url: str, window: Window, clock: Callable[[], float] | None = None) -> None:
        self._script = RedisScript(url, _SCRIPTS[window.kind])
        self._kind = window.kind
        self._arguments = [str(window.count), repr(float(window.seconds)), str(KEPT_MILLISECONDS)]
        self._clock = clock

    async def take(self, name: str) -> Taken:
        """Count a request under a name, if it may pass.

        Raises:
            PluginError: Redis does not answer, or answers with an error.
        """
        now = "" if self._clock is None else repr(self._clock())
        answer = await self._script.run(f"asgi_bridge:limit-count:{self._kind}:{name}", [*self._arguments, now])
        passed, remaining, reset, wait = map(float, answer.split())
        return Taken(bool(passed), int(remaining), reset, wait)

    async def close(self) -> None:
        """Close the connections."""
        await self._script.close()
