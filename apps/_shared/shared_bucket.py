"""The leaky bucket of ``limit-req`` in Redis, so that several gateways, or several worker processes, have one.

A script in Redis does what :class:`~asgi_bridge_apps.limit_req.LeakyBucket` does, at once for each request and by the
clock of Redis: gateways need not agree on the time. A bucket is one key, which goes when the bucket is empty.
"""

from collections.abc import Callable

from asgi_bridge import ConfigurationError, PluginError

__all__ = ["SharedBuckets"]

SECONDS = 1.0
"""For connecting, and for an answer."""
CONNECTIONS = 16
"""Of one configuration, in one process; who comes when all are busy waits."""

KEPT_MILLISECONDS = 1000
"""Milliseconds that Redis keeps a key after its bucket is empty."""

# Levels are in requests, not in seconds, so that a burst at one moment is counted without rounding; numbers come and go
# as text, since Redis cuts a Lua number down to an integer. A clock that went back (another Redis took over) counts as
# one that stood still.
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
    """Buckets in one Redis, of one rate.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, as redis-py takes it.
        rate: requests a second.
        holds: requests that may wait.
        clock: seconds; None: the clock of Redis.

    Raises:
        ConfigurationError: the URL cannot be used, or redis-py is not installed.
    """

    def __init__(self, url: str, rate: float, holds: float, clock: Callable[[], float] | None = None) -> None:
        # not at the top: it takes longer to import than all other plugins, and few routes want it
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
                # Once more on a connection that Redis has closed; never after a timeout: the script may have run.
                retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
            )
        except ValueError:  # its text has the URL in it, and with it the password
            raise ConfigurationError("field 'redis': no URL that redis-py takes") from None
        self._redis: Redis = Redis.from_pool(pool)
        self._script = self._redis.register_script(SCRIPT)
        self._arguments = [repr(float(rate)), repr(float(holds))]
        self._clock = clock

    async def pour(self, name: str) -> float | None:
        """Takes one request into the bucket `name`: the seconds that it has to wait; None: the bucket is full.

        Raises:
            PluginError: Redis does not answer, or not as it should.
        """
        from redis.exceptions import RedisError

        now = "" if self._clock is None else repr(self._clock())
        try:
            answer: bytes | str = await self._script(
                keys=[f"asgi_bridge:limit-req:{name}"], args=[*self._arguments, now, str(KEPT_MILLISECONDS)]
            )
        except (RedisError, OSError) as exc:
            # its own text tells where, and the URL may hold a password
            raise PluginError(f"Redis cannot be asked: {type(exc).__name__}") from None
        return float(answer) if answer else None

    async def close(self) -> None:
        """Closes the connections."""
        await self._redis.aclose()
