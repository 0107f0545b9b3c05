"""A script in Redis that decides about a request in one atomic step, for several gateways or worker processes together.

Scripts use the clock of Redis, so the gateways' clocks may differ.
"""

from collections.abc import Sequence

from asgi_bridge import ConfigurationError, PluginError

__all__ = ["RedisScript"]

SECONDS = 1.0
"""Timeout for connecting to Redis, and for its answer, in seconds."""
CONNECTIONS = 16
"""Maximum number of connections of one configuration in one process. A request waits while all are busy."""


class RedisScript:
    """A script in one Redis.

    Args:
        url: A URL for redis-py: ``redis://``, ``rediss://`` or ``unix://``.
        text: The script, in Lua.

    Raises:
        ConfigurationError: redis-py refuses the URL, or is not installed.
    """

    def __init__(self, url: str, text: str) -> None:
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
        self._script = self._redis.register_script(text)

    async def run(self, key: str, arguments: Sequence[str]) -> bytes | str:
        """Run the script on one key, and return its answer, a text.

        Raises:
            PluginError: Redis does not answer, or answers with an error.
        """
        from redis.exceptions import RedisError

        try:
            answer: bytes | str = await self._script(keys=[key], args=[*arguments])
        except (RedisError, OSError) as exc:
            # its text says where Redis is, and the URL may contain a password
            raise PluginError(f"no answer from Redis: {type(exc).__name__}") from None
        return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
