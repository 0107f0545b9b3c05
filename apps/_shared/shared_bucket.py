"""The leaky bucket of ``limit-req`` in Redis, for several gateways or worker processes together.

A script in Redis does what :class:`~asgi_bridge_apps.limit_req.LeakyBucket` does, in one atomic step for each request.
It uses the clock of Redis, so the gateways' clocks may differ. A bucket is one key, which Redis deletes soon after the
bucket is empty.
"""

from collections.abc import Callable

from .redis_script import RedisScript

__all__ = ["SharedBuckets"]

KEPT_MILLISECONDS = 1000
"""Milliseconds that Redis keeps a key after its bucket is empty."""

# A level counts requests, not seconds, so that a burst at one moment is counted without rounding. Numbers are passed as
# text, because Redis cuts a Lua number down to an integer. If the clock goes back (another Redis took over), the bucket
# behaves as if the clock had stood still.
SCRIPT = """
local rate, holds, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local state = redis.call('HMGET', KEYS[1], 'level', 'looked')
local level, looked = tonumber(state[1] or 0), tonumber(state[2] or now)
local above = math.max(level - math.max(now - looked, 0) * rate, 0)
local full = above > holds
if not full or now < looked then
    local kept = full and above or above + 1
    redis.call('HSET', KEYS[1], 'level', string.format('%.17g', kept), 'looked', string.format('%.17g', now))
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.min(kept / rate * 1000 + ARGV[4], 1e13)))
end
return full and '' or string.format('%.17g', above / rate)
"""


class SharedBuckets:
    """Buckets in one Redis that leak at one rate.

    Args:
        url: A URL for redis-py: ``redis://``, ``rediss://`` or ``unix://``.
        rate: Requests per second.
        holds: Number of requests that may wait.
        clock: Returns the time in seconds; None uses the clock of Redis.

    Raises:
        ConfigurationError: redis-py refuses the URL, or is not installed.
    """

    def __init__(self, url: str, rate: float, holds: float, clock: Callable[[], float] | None = None) -> None:
        self._script = RedisScript(url, SCRIPT)
        self._arguments = [repr(float(rate)), repr(float(holds))]
        self._clock = clock

    async def pour(self, name: str) -> float | None:
        """Add one request to the bucket `name`.

        Returns:
            Seconds that the request has to wait; None if the bucket is full.

        Raises:
            PluginError: Redis does not answer, or answers with an error.
        """
        now = "" if self._clock is None else repr(self._clock())
        answer = await self._script.run(
            f"asgi_bridge:limit-req:{name}", [*self._arguments, now, str(KEPT_MILLISECONDS)]
        )
        return float(answer) if answer else None

    async def close(self) -> None:
        """Close the connections."""
        await self._script.close()
