"""The leaky bucket of ``limit-req`` in Redis, for several gateways or worker processes together.

A script in Redis does what :class:`~asgi_bridge_apps.limit_req.LeakyBucket` does, in one atomic step for each request.
It uses the clock of Redis, so the gateways' clocks may differ. A bucket is one key, which Redis deletes soon after the
bucket is empty.
"""

from collections.abc import Callable

from asgi_bridge import ConfigurationError, PluginError

__all__ = ["SharedBuckets"]

SECONDS = 1.0
"""Timeout for connecting to Redis, and for its answer, in seconds."""
CONNECTIONS = 16
"""Maximum number of connections of one configuration in one process. A request waits while all are busy."""

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
        # not at the top: redis-py takes longer to import than all plugins together, and few routes need it
        try:
            from redis.asyncio import BlockingConnectionPool, Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import ConnectionError
        except ModuleNotFoundError as exc:
            raise ConfigurationError(f'redis needs {exc.name}: pip install "asgi_bridge[apps]"') from None
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS,
                timeout=SECONDS,
                socket_connect_timeout=SECONDS,
                socket_timeout=SECONDS,
                # Retry once when Redis has closed the connection, never after a timeout: the script may have run.
                retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
            )
        except ValueError:  # its text contains the URL, which may contain a password
            raise ConfigurationError("field 'redis': redis-py does not accept this URL") from None
        self._redis: Redis = Redis.from_pool(pool)
        self._script = self._redis.register_script(SCRIPT)
        self._arguments = [repr(float(rate)), repr(float(holds))]
        self._clock = clock

    async def pour(self, name: str) -> float | None:
        """Add one request to the bucket `name`.

        Returns:
            Seconds that the request has to wait; None if the bucket is full.

        Raises:
            PluginError: Redis does not answer, or answers with an error.
        """
        from redis.exceptions import RedisError

        now = "" if self._clock is None else repr(self._clock())
        try:
            answer: bytes | str = await self._script(
                keys=[f"asgi_bridge:limit-req:{name}"], args=[*self._arguments, now, str(KEPT_MILLISECONDS)]
            )
        except (RedisError, OSError) as exc:
            # its text says where Redis is, and the URL may contain a password
            raise PluginError(f"no answer from Redis: {type(exc).__name__}") from None
        return float(answer) if answer else None

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
