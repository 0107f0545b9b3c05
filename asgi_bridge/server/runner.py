"""What the connections of one runner process share: plugins, limits, the calls that run."""

import asyncio
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config

from ..adapter import Call, Host
from ..errors import ConfigurationError
from ..plugins import Bridge, ConfigurationStore

__all__ = ["Runner", "RunnerOptions", "conf_expire_of_environment", "runner_of"]

logger = logging.getLogger("asgi_bridge.server")

TICK_SECONDS = 0.1
"""How often deadlines are looked at: one timer for all calls costs less than one for each."""


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """How a runner process works.

    Attributes:
        limit_concurrency: calls at once; further ones are refused.
        access_log: one line for each call.
        ask_origin: scheme and server of a request are asked for although ``x-forwarded-*`` headers tell.
        conf_expire: seconds that the gateway keeps a configuration token.
    """

    limit_concurrency: int | None = None
    access_log: bool = False
    ask_origin: bool = False
    conf_expire: float = 3600.0


def conf_expire_of_environment() -> float:
    """``APISIX_CONF_EXPIRE_TIME`` in seconds; 3600 without it.

    Raises:
        ConfigurationError: it is no positive number.
    """
    text = os.environ.get("APISIX_CONF_EXPIRE_TIME", "3600")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigurationError(f"APISIX_CONF_EXPIRE_TIME is {text!r}; it is a number of seconds")
    return seconds


class Runner:
    """The runner of one process; to uvicorn an ASGI application that knows lifespan only.

    Args:
        bridge: the plugins.
        options: how to work.

    Attributes:
        store: tokens and chains.
        host: what all calls share.
        calls: those that have no answer yet.
        stopping: no new connections any more.
    """

    def __init__(self, bridge: Bridge, options: RunnerOptions | None = None) -> None:
        self.options = options or RunnerOptions()
        self.store = ConfigurationStore(bridge, expire=self.options.conf_expire)
        self.host = Host(Starlette(), self.options.ask_origin)
        self.calls: set[Call] = set()
        self.stopping = False
        self._ticker: asyncio.Task[None] | None = None
        self._overload_logged = float("-inf")
        self._refused: dict[str, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan", "plugins are called by the gateway, not over HTTP"
        await receive()
        await self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def start(self) -> None:
        """Starts the mounted applications and the watch over deadlines."""
        await self.store.start()
        self._ticker = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Ends what :meth:`start` began."""
        # uvicorn has cancelled what still ran; what ignores that is refused now
        await asyncio.sleep(0)
        self._expire(self.calls, "it was cut off by the shutdown")
        if self._ticker is not None:
            self._ticker.cancel()
        self.host.lot.close()
        await self.store.close()

    def admit(self, names: str) -> bool:
        """Whether one more call may run; `names` of its plugins, for the log."""
        limit = self.options.limit_concurrency
        if limit is None or len(self.calls) < limit:
            return True
        self._refused[names] = self._refused.get(names, 0) + 1
        return False

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = monotonic()
            self._expire(call for call in self.calls if call.deadline <= now)
            self.host.lot.sweep(now)
            if self._refused and now >= self._overload_logged + 1.0:
                self._overload_logged = now
                for names, number in self._refused.items():
                    logger.error(
                        "plugin %s: %d requests refused: more than %d calls at once (--limit-concurrency)",
                        names,
                        number,
                        self.options.limit_concurrency,
                    )
                self._refused.clear()

    def _expire(self, calls: Iterable[Call], reason: str | None = None) -> None:
        for call in list(calls):
            call.deadline = float("inf")  # cancelled once: it may need a while to clear up
            call.expire(reason)


def runner_of(config: Config) -> Runner:
    """The runner that `config` has loaded; at log level "trace" uvicorn wraps applications."""
    app: Any = config.loaded_app
    while not isinstance(app, Runner):
        app = app.app
    return app
