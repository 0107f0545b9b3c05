"""Instances: the applications that plugins build, each shared by all chains that list it.

An instance belongs to a route, a plugin and a configuration. With ``share=True`` it does not depend on the route. So
all lists of a route share it, also with and without a consumer. What it counts is counted once, and what can be built
only once is built once. Its lifespan starts when it is built, and stops when no chain has it any more.
"""

import asyncio
import contextlib
import itertools
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from starlette.types import ASGIApp

from ..errors import ConfigurationError, PluginError
from .check_threads import Checks
from .lifespan import Lifespan
from .memory import Memory

__all__ = ["MAX_SHARED", "Instance", "Instances"]

logger = logging.getLogger("asgi_bridge.plugins")

END_SECONDS = 0.1
"""Seconds that a cancelled factory gets to end. After that nobody waits for it."""
MAX_SHARED = 1000
"""Maximum number of applications with ``share=True`` that are kept although no chain has them."""
KEPT_WARNINGS = 1000
"""Maximum number of warnings that are remembered, so that they are not logged again."""


_numbers = itertools.count(1)


class Instance:
    """One application that a plugin built.

    Attributes:
        name: Name of the plugin.
        key: What it belongs to; None: to one chain alone.
        share: True: all routes that configure the plugin equally share it.
        number: By which people tell the instances of a process apart.
        app: The application, once it is built.
        lifespan: Its lifespan; None: none is run.
        users: Number of chains that have it or wait for it.
        building: The task that builds it, until it is built. It has no result, and raises nothing.
        failure: Why it could not be built.
        ended: Done when its lifespan has been shut down; None: the shutdown has not begun.
    """

    __slots__ = (
        "_instances", "app", "building", "ended", "failure", "key", "lifespan", "name", "number", "share", "users",
        "__weakref__",
    )  # fmt: skip

    def __init__(self, instances: "Instances", name: str, key: Hashable | None, share: bool) -> None:
        self._instances = instances
        self.name = name
        self.key = key
        self.share = share
        self.number = next(_numbers)
        self.app: ASGIApp | None = None
        self.lifespan: Lifespan | None = None
        self.users = 0
        self.building: asyncio.Task[None] | None = None
        self.failure: ConfigurationError | None = None
        self.ended: asyncio.Future[None] | None = None

    @property
    def state(self) -> dict[str, Any]:
        """The state of its lifespan."""
        return {} if self.lifespan is None else self.lifespan.state

    async def release(self, seconds: float) -> None:
        """Note that a chain does not have it any more. After the last chain its lifespan is shut down.

        Args:
            seconds: Time that the shutdown may take.
        """
        self.users -= 1
        if self.users or self.ended is not None:
            return
        ended = self.ended = asyncio.get_running_loop().create_future()
        try:
            await self._shut_down(seconds)
        finally:
            self._instances.forget(self)
            ended.set_result(None)

    async def _shut_down(self, seconds: float) -> None:
        if self.building is not None and not self.building.done():
            self.building.cancel()
            _, running = await asyncio.wait([self.building], timeout=END_SECONDS)
            if running:
                logger.error("plugin %s: its factory does not end although it was cancelled", self.name)
        if self.lifespan is not None:
            await self.lifespan.stop(seconds)


class Instances:
    """The instances of one process.

    Args:
        keep: Seconds that an instance's memory is kept after its end.
        clock: Returns the seconds since the epoch.

    Attributes:
        checks: The checks of configurations that run on threads.
    """

    def __init__(self, keep: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.checks = Checks()
        self._memory = Memory(keep, clock)
        self._instances: dict[Hashable, Instance] = {}
        self._unlisted: OrderedDict[Hashable, ASGIApp] = OrderedDict()
        self._warned: OrderedDict[Hashable, None] = OrderedDict()

    async def take(
        self,
        name: str,
        key: Hashable | None,
        build: Callable[[], Awaitable[ASGIApp]],
        *,
        deadline: float,
        share: bool = False,
        lifespan: float | None = None,
    ) -> Instance:
        """Return the instance with `key`, and build it if there is none. The caller has to release it.

        Args:
            name: Name of the plugin.
            key: What the instance belongs to; None: to this caller alone.
            build: Makes its application. It raises ConfigurationError, and nothing else.
            deadline: Loop time at which waiting ends.
            share: True: the application is kept when the instance ends, for the next one.
            lifespan: Seconds that the lifespan start-up may take; None: no lifespan is run.

        Raises:
            ConfigurationError: It cannot be built.
            TimeoutError: The time is over. Its text is empty, or the reason.
        """
        instance = None if key is None else self._instances.get(key)
        while instance is not None and instance.ended is not None:
            # not while the old one shuts down: it may hold something that only one can have, such as a port
            async with asyncio.timeout_at(deadline):
                await asyncio.wait([instance.ended])
            instance = self._instances.get(key)
        if instance is None:
            instance = Instance(self, name, key, share)
            if key is not None:
                self._instances[key] = instance
            building = self._build(instance, build, lifespan)
            instance.building = asyncio.get_running_loop().create_task(building, name=f"build of {name}")
        instance.users += 1
        try:
            if instance.building is not None:
                async with asyncio.timeout_at(deadline):
                    await asyncio.wait([instance.building])
            if instance.failure is not None:
                # a new exception for each that waits: a shared one would collect their tracebacks
                raise ConfigurationError(str(instance.failure)) from instance.failure.__cause__
        except TimeoutError:
            starting = instance.lifespan
            await instance.release(0.0)
            raise TimeoutError("" if starting is None else starting.timeout_reason(lifespan or 0.0)) from None
        except BaseException:
            await instance.release(0.0)
            raise
        return instance

    async def _build(self, instance: Instance, build: Callable[[], Awaitable[ASGIApp]], lifespan: float | None) -> None:
        key = instance.key
        try:
            if key is not None and key in self._unlisted:
                instance.app = self._unlisted.pop(key)
            else:
                with contextlib.nullcontext() if key is None else self._memory.recalling(key):
                    instance.app = await build()
            if lifespan is not None and instance.ended is None:
                instance.lifespan = Lifespan(instance.app, instance.name)
                await instance.lifespan.start(lifespan)
        except ConfigurationError as exc:
            instance.failure = exc
        except PluginError as exc:
            instance.failure = ConfigurationError(f"plugin {instance.name}: {exc}")
        if instance.failure is not None:
            self.forget(instance)
        instance.building = None  # a task that has ended still holds its coroutine

    def forget(self, instance: Instance) -> None:
        """Remove an instance that has ended, or could not be built."""
        key = instance.key
        if key is None or self._instances.get(key) is not instance:
            return
        del self._instances[key]
        self._memory.released(key)
        if instance.share and instance.app is not None:
            self._unlisted[key] = instance.app
            while len(self._unlisted) > MAX_SHARED:
                self._unlisted.popitem(last=False)

    def first_time(self, about: Hashable) -> bool:
        """Return whether this is the first warning about something."""
        if about in self._warned:
            return False
        self._warned[about] = None
        while len(self._warned) > KEPT_WARNINGS:
            self._warned.popitem(last=False)
        return True
