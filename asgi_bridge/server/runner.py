"""What all connections of one runner process share: plugins, limits, and the calls that run."""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from ..adapter import Call, Host, shadow_run
from ..errors import ConfigurationError
from ..lifespan import answer_lifespan
from ..logs import GUARD
from ..plugins import MAX_CONFIGURATION_BYTES, Chain, ConfigurationStore, Plugin
from ..plugins.build import Conf
from ..recording import RecordOptions
from .admin import AdminAddress, AdminServer
from .hangs import HangWatch
from .recorded import Recording
from .sockets import SocketName

if TYPE_CHECKING:
    from ..insight.insight import Insight, Report
    from ..insight.tally import Tally

__all__ = ["Runner", "RunnerOptions", "conf_expire_of_environment"]

logger = logging.getLogger("asgi_bridge.server")

TICK_SECONDS = 0.1
"""Seconds between two looks at the deadlines. One timer for all calls costs less than one for each."""

MAX_REFUSED = 1000
"""Maximum number of configurations whose refused calls are counted apart. A peer can make up any number of tokens."""


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
        record: What is recorded of its calls; None: nothing.
        admin: Where the admin application listens; None: there is none, and nothing is counted.
        socket: By which the runner recognizes its own socket; None: it does not look.
    """

    limit_concurrency: int | None = None
    access_log: bool = False
    ask_origin: bool = False
    conf_expire: float = 3600.0
    folder: str | None = None
    limit_configuration_size: int = MAX_CONFIGURATION_BYTES
    record: RecordOptions | None = None
    admin: AdminAddress | None = None
    socket: SocketName | None = None


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
        recording: What records its calls; None: nothing does.
        observer: Counts what happens; None: nothing is counted.
        watched: True: the end of each call is logged, or counted, or both.
        admin: The server of the admin application; None: there is none.
    """

    def __init__(self, plugins: Mapping[str, Plugin], options: RunnerOptions | None = None) -> None:
        self.options = options or RunnerOptions()
        record = self.options.record
        self.recording = None if record is None else Recording(record, plugins, self.options.ask_origin)
        self.store = ConfigurationStore(
            plugins,
            expire=self.options.conf_expire,
            limit_configuration_size=self.options.limit_configuration_size,
            folder=self.options.folder,
            on_build=self._on_build(),
        )
        self.host = Host(Starlette(), self.options.ask_origin, shadow=shadow_run)
        self._shadows = [plugin.shadow for plugin in plugins.values() if plugin.shadow is not None]
        self.calls: set[Call] = set()
        self.stopping = False
        self.observer: Tally | None = None
        self.admin: AdminServer | None = None
        self._insight: Insight | None = None
        if self.options.admin is not None:
            self._add_insight(self.options.admin)
        self.watched = self.options.access_log or self.observer is not None
        self._started = False
        self._ticker: asyncio.Task[None] | None = None
        self._hangs: HangWatch | None = None
        self._overload_logged = float("-inf")
        self._refused: dict[int, int] = {}

    def _on_build(self) -> Callable[[Chain, bytes | None, Conf], None] | None:
        """Return what is called with each new chain, its key and its configuration; None: nothing is."""
        return None if self.recording is None else self.recording.prepared

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
        if self.recording is not None:
            self.recording.start()
        if self.admin is not None and self._insight is not None:
            self._insight.lines.start()
            await self.admin.start()
        await self.store.start()
        self._hangs = HangWatch()
        self._hangs.start()
        self._ticker = asyncio.get_running_loop().create_task(self._watch())
        self._started = True

    async def stop(self) -> None:
        """Stop what :meth:`start` has started, and refuse the calls that still run."""
        self.stopping = True
        if self.admin is not None and self._insight is not None:
            await self.admin.stop()
            self._insight.lines.stop()
        # uvicorn has cancelled the calls that still ran; those that ignore that are refused now
        await asyncio.sleep(0)
        self._expire(self.calls, "it was cut off by the shutdown")
        if self._ticker is not None:
            self._ticker.cancel()
        if self._hangs is not None:
            self._hangs.stop()
        self.host.parked.close()
        await self.store.close()
        if self.recording is not None:
            self.recording.close()
        self._sweep(float("inf"))

    def _add_insight(self, address: AdminAddress) -> None:
        """Count from now on, and make the server of the admin application."""
        from ..insight.app import admin_app  # only who wants it loads it
        from ..insight.insight import Insight

        insight = Insight(self.store, lambda: len(self.calls), lambda: len(self.host.parked), self.obstacle)

        async def reports() -> "list[Report]":
            return [insight.report()]

        self._insight = insight
        self.observer = insight.tally
        self.admin = AdminServer(admin_app(insight, reports, any_host=address.public), address)

    def obstacle(self) -> str | None:
        """Return why the runner is not ready to take calls; None: it is."""
        if not self._started:
            return "the plugins are being started"
        if self.stopping:
            return "the runner stops"
        name = self.options.socket
        if name is not None and not name.is_there():
            return f"the socket at {name.path} is not this runner's any more"
        return None

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
        now = monotonic()
        while True:
            before = now
            await asyncio.sleep(TICK_SECONDS)
            now = monotonic()
            if self.observer is not None:
                self.observer.turned(max(0.0, now - before - TICK_SECONDS))
            if self._hangs is not None:
                self._hangs.turned()
            self._expire(call for call in self.calls if call.deadline <= now)
            self.host.parked.sweep(now)
            self._sweep(now)
            if self._refused and now >= self._overload_logged + 1.0:
                self._overload_logged = now
                self._log_refused()

    def _sweep(self, now: float) -> None:
        """Log what was only counted until now.

        Args:
            now: Monotonic seconds; infinity: the process ends.
        """
        for record in self._shadows:
            record.sweep(now)
        GUARD.sweep(now)

    def _expire(self, calls: Iterable[Call], reason: str | None = None) -> None:
        for call in list(calls):
            call.deadline = float("inf")  # cancel it only once, because it may need a while to clean up
            call.expire(reason)
