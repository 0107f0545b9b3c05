"""What all connections of one runner process share: plugins, limits, and the calls that run."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from ..adapter import Call, Host
from ..errors import ConfigurationError
from ..lifespan import answer_lifespan
from ..logs import GUARD
from ..plugins import MAX_CONFIGURATION_BYTES, Chain, ConfigurationStore, Plugin
from ..succession.sockets import SocketName
from ..tracing import find_tracing
from ..wire import TextEntry
from .admin import AdminAddress
from .call_tasks import CallTasks
from .garbage import GARBAGE
from .hangs import HangWatch
from .overload import Overload

if TYPE_CHECKING:
    from ..insight.tally import Tally
    from ..plugins import ShadowRun
    from ..recording import RecordOptions
    from .recorded import Recording
    from .reporting import Reporting

__all__ = ["Give", "Runner", "RunnerOptions", "conf_expire_of_environment"]

logger = logging.getLogger("asgi_bridge.server")

TICK_SECONDS = 0.1
"""Seconds between two looks at the deadlines. One timer for all calls costs less than one for each."""

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
        record: What is recorded of its calls; None: nothing.
        admin: Where the admin application listens; None: there is none, and nothing is counted.
        socket: By which the runner recognizes its own socket at its start; None: it does not know it yet.
        otel: Whether OpenTelemetry gets spans; None: if a TracerProvider is set once the plugins are loaded.
    """

    limit_concurrency: int | None = None
    access_log: bool = False
    ask_origin: bool = False
    conf_expire: float = 3600.0
    folder: str | None = None
    limit_configuration_size: int = MAX_CONFIGURATION_BYTES
    record: "RecordOptions | None" = None
    admin: AdminAddress | None = None
    socket: SocketName | None = None
    otel: bool | None = None


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
        watched: True: each call is logged, counted or traced, so it looks at the clock.
        reporting: Reports what it counts; None: it counts nothing.
        give: Takes a connection's descriptor and unread bytes, for another process; None: connections stay here.
        socket: By which the runner recognizes its own socket; None: it does not look.
        tracing: Makes the spans of its calls; None: nobody wants any.
    """

    __slots__ = (
        "__weakref__", "_overload", "_tasks", "_ticker", "calls", "give", "host", "observer", "options",
        "recording", "reporting", "socket", "stopping", "store", "tracing", "watched",
    )  # fmt: skip

    def __init__(self, plugins: Mapping[str, Plugin], options: RunnerOptions | None = None) -> None:
        self.options = options or RunnerOptions()
        record = self.options.record
        self.recording = None if record is None else _recording(record, plugins, self.options.ask_origin)
        self.tracing = find_tracing(self.options.otel)
        own = [each.prepared for each in (self.recording, self.tracing) if each is not None]
        watching = [*own, *self._watching()]

        def prepared(chain: Chain, key: bytes | None, conf: Sequence[TextEntry]) -> None:
            for watch in watching:
                watch(chain, key, conf)

        self.store = ConfigurationStore(
            plugins,
            expire=self.options.conf_expire,
            limit_configuration_size=self.options.limit_configuration_size,
            folder=self.options.folder,
            on_build=prepared if watching else None,
        )
        self.host = Host(Starlette(), self.options.ask_origin, shadow=_shadow_run)
        self.calls: set[Call] = set()
        self.stopping = False
        self.reporting = None if self.options.admin is None else _reporting(self, self.options.admin)
        self.observer: Tally | None = None if self.reporting is None else self.reporting.insight.tally
        self.watched = self.options.access_log or self.observer is not None or self.tracing is not None
        self.give: Give | None = None
        self.socket = self.options.socket
        self._overload = Overload(self.options.limit_concurrency, self.store.find)
        self._ticker: asyncio.Task[None] | None = None
        self._tasks: CallTasks | None = None

    def tasks(self, loop: asyncio.AbstractEventLoop) -> CallTasks:
        """Return what begins the calls."""
        tasks = self._tasks
        if tasks is None or tasks.loop is not loop:
            tasks = self._tasks = CallTasks(loop)
        return tasks

    def _watching(self) -> list[Callable[[Chain, bytes | None, Sequence[TextEntry]], None]]:
        """Return what else is called with each new chain, its key and its configuration."""
        return []

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
        if self.reporting is not None:
            await self.reporting.start()
        await self.store.start()
        self._ticker = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Stop what :meth:`start` has started, and refuse the calls that still run."""
        self.stopping = True
        if self.reporting is not None:
            await self.reporting.stop()
        # uvicorn has cancelled the calls that still ran; those that ignore that are refused now
        await asyncio.sleep(0)
        self.cut_off()
        if self._ticker is not None:
            self._ticker.cancel()
        if self._tasks is not None:
            self._tasks.close()
        self.host.parked.close()
        await self.store.close()
        if self.tracing is not None:
            await self.tracing.flush()
        if self.recording is not None:
            self.recording.close()
        self._sweep(float("inf"))

    async def leave_admin(self) -> None:
        """Leave the admin address to the next process."""
        if self.reporting is not None:
            await self.reporting.admin.stop()

    def obstacle(self) -> str | None:
        """Return why the runner is not ready to take calls; None: it is."""
        if self._ticker is None:
            return "the plugins are being started"
        if self.stopping:
            return "the runner stops"
        name = self.socket
        if name is not None and not name.is_there():
            return f"the socket at {name.path} is not this runner's any more"
        return None

    def admit(self, token: int) -> bool:
        """Whether one more call may run.

        Args:
            token: Of the call's configuration, for the log.
        """
        return self._overload.admits(len(self.calls), token)

    async def _watch(self) -> None:
        hangs = HangWatch()
        hangs.start()
        try:
            now = monotonic()
            while True:
                before = now
                await asyncio.sleep(TICK_SECONDS)
                now = monotonic()
                hangs.turned()
                self._tick(before, now)
        finally:
            hangs.stop()

    def _tick(self, before: float, now: float) -> None:
        """Look at the deadlines, and what else has to be looked at from time to time.

        Args:
            before: Monotonic seconds of the last tick.
            now: Monotonic seconds.
        """
        if self.observer is not None:
            self.observer.turned(max(0.0, now - before - TICK_SECONDS))
        self._expire(call for call in self.calls if call.deadline <= now)
        self.host.parked.sweep(now)
        self._sweep(now)
        self._overload.sweep(now)
        GARBAGE.look()

    def _sweep(self, now: float) -> None:
        """Log what was only counted until now.

        Args:
            now: Monotonic seconds; infinity: the process ends.
        """
        for plugin in self.store.plugins.values():
            if plugin.shadow is not None:
                plugin.shadow.sweep(now)
        GUARD.sweep(now)

    def cut_off(self) -> None:
        """Refuse the calls that still run."""
        self._expire(self.calls, "it was cut off by the shutdown")

    def _expire(self, calls: Iterable[Call], reason: str | None = None) -> None:
        for call in list(calls):
            call.deadline = float("inf")  # cancel it only once, because it may need a while to clean up
            call.expire(reason)


def _shadow_run(real: Call, host: Host, chain: Chain, scope: Scope, receive: Receive) -> "ShadowRun":
    from ..adapter.shadow import shadow_run

    return shadow_run(real, host, chain, scope, receive)


def _recording(options: "RecordOptions", plugins: Mapping[str, Plugin], ask_origin: bool) -> "Recording":
    from .recorded import Recording

    return Recording(options, plugins, ask_origin)


def _reporting(runner: Runner, address: AdminAddress) -> "Reporting":
    from .reporting import Reporting  # only who wants it loads it

    return Reporting(runner, address)
