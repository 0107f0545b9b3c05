"""What all connections of one runner process share: plugins, limits, and the calls that run."""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TypeAlias

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from ..adapter import Call, Host
from ..errors import ConfigurationError
from ..lifespan import answer_lifespan
from ..logs import GUARD
from ..plugins import MAX_CONFIGURATION_BYTES, ConfigurationStore, Plugin
from .hangs import HangWatch

__all__ = ["Give", "Runner", "RunnerOptions", "conf_expire_of_environment"]

logger = logging.getLogger("asgi_bridge.server")

TICK_SECONDS = 0.1
"""Seconds between two looks at the deadlines. One timer for all calls costs less than one for each."""

MAX_REFUSED = 1000
"""Maximum number of configurations whose refused calls are counted apart. A peer can make up any number of tokens."""

Give: TypeAlias = Callable[[int, bytes], object]
"""Gives a connection to another process: its descriptor, which belongs to the callee, and bytes that nobody handled."""


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """How a runner process works.

    Attributes:
        limit_concurrency: Maximum number of calls that run at once. Further ones are refused. None: no limit.
        access_log: True: log a line for each call.
        ask_origin: True: ask the gateway for scheme and server of a request, and ignore its ``x-forwarded-*`` headers.
        conf_expire: Seconds that the gateway keeps a configuration token.
        folder: Path of the private folder, where tokens outlive the process; None: they do not outlive it.
        limit_configuration_size: Maximum size of a route's configuration of one plugin, in bytes.
    """

    limit_concurrency: int | None = None
    access_log: bool = False
    ask_origin: bool = False
    conf_expire: float = 3600.0
    folder: str | None = None
    limit_configuration_size: int = MAX_CONFIGURATION_BYTES


def conf_expire_of_environment() -> float:
    """Return the environment variable ``APISIX_CONF_EXPIRE_TIME``, in seconds; 3600 where it is not set.

    Raises:
        ConfigurationError: It is not a positive number.
    """
    text = os.environ.get("APISIX_CONF_EXPIRE_TIME", "3600")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigurationError(f"APISIX_CONF_EXPIRE_TIME is {text!r}; it must be a positive number of seconds")
    return seconds


class Runner:
    """The runner of one process. For uvicorn it is an ASGI application that has a lifespan and nothing else.

    Args:
        plugins: The mounted plugins, by name.
        options: How it works; None: the defaults.

    Attributes:
        options: How it works.
        store: The configuration tokens and their chains.
        host: What all calls share.
        calls: The calls that have no answer yet.
        stopping: True: the process ends, and takes no new connections.
        give: Takes a connection's descriptor and unread bytes, for another process; None: connections stay here.
    """

    def __init__(self, plugins: Mapping[str, Plugin], options: RunnerOptions | None = None) -> None:
        self.options = options or RunnerOptions()
        self.store = ConfigurationStore(
            plugins,
            expire=self.options.conf_expire,
            limit_configuration_size=self.options.limit_configuration_size,
            folder=self.options.folder,
        )
        self.host = Host(Starlette(), self.options.ask_origin)
        self.calls: set[Call] = set()
        self.stopping = False
        self.give: Give | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._hangs: HangWatch | None = None
        self._overload_logged = float("-inf")
        self._refused: dict[int, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan", "plugins are called by the gateway, not over HTTP"
        await answer_lifespan(receive, send, self._running())

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        await self.start()
        yield
        await self.stop()

    async def start(self) -> None:
        """Start the mounted applications, and the watches over deadlines and over plugins that block the loop."""
        await self.store.start()
        self._hangs = HangWatch()
        self._hangs.start()
        self._ticker = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Stop what :meth:`start` has started, and refuse the calls that still run."""
        # uvicorn has cancelled the calls that still ran; those that ignore that are refused now
        await asyncio.sleep(0)
        self._expire(self.calls, "it was cut off by the shutdown")
        if self._ticker is not None:
            self._ticker.cancel()
        if self._hangs is not None:
            self._hangs.stop()
        self.host.parked.close()
        await self.store.close()
        GUARD.sweep(float("inf"))

    def admit(self, token: int) -> bool:
        """Whether one more call may run.

        Args:
            token: Of the call's configuration, for the log.
        """
        limit = self.options.limit_concurrency
        if limit is None or len(self.calls) < limit:
            return True
        if token not in self._refused and len(self._refused) >= MAX_REFUSED:
            token = 0
        self._refused[token] = self._refused.get(token, 0) + 1
        return False

    def _log_refused(self) -> None:
        refused: Counter[str] = Counter()
        for token, number in self._refused.items():
            chain = self.store.find(token)
            refused["?" if chain is None else chain.names] += number
        self._refused.clear()
        for names, number in refused.items():
            logger.error(
                "plugin %s: %d requests refused: more than %d calls at once (--limit-concurrency)",
                names,
                number,
                self.options.limit_concurrency,
            )

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = monotonic()
            if self._hangs is not None:
                self._hangs.turned()
            self._expire(call for call in self.calls if call.deadline <= now)
            self.host.parked.sweep(now)
            GUARD.sweep(now)
            if self._refused and now >= self._overload_logged + 1.0:
                self._overload_logged = now
                self._log_refused()

    def _expire(self, calls: Iterable[Call], reason: str | None = None) -> None:
        for call in list(calls):
            call.deadline = float("inf")  # cancel it only once, because it may need a while to clean up
            call.expire(reason)
