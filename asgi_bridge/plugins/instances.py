"""Instances: the applications that plugins build, each shared by all chains that list it.

An instance belongs to a route, a plugin and a configuration, with ``share=True`` to a plugin and a configuration. So
the lists of a route's phases, and its versions with and without consumers, have one between them: what it counts is
counted once, and what can be built once only is built once. Its lifespan starts when it is built and stops when no
chain has it.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from starlette.types import ASGIApp

from ..errors import ConfigurationError, PluginError
from .checking import Checks
from .lifespan import Lifespan
from .memory import Memory

__all__ = ["MAX_SHARED", "Instance", "Instances"]

logger = logging.getLogger("asgi_bridge.plugins")

END_SECONDS = 0.1
"""Seconds that a cancelled factory gets to end. One that goes on is left behind."""
MAX_SHARED = 1000
"""Maximum number of applications with ``share=True`` that are kept although no chain has them."""
KEPT_WARNINGS = 1000


class Instance:
    """One application that a plugin built.

    Attributes:
        app: the application, once it is built.
        lifespan: its lifespan; None: none is run.
        users: chains that have it or wait for it.
        building: builds it; has no result, and raises nothing.
        failure: why it could not be built.
        ended: done when its lifespan is over; None: nobody has ended it.
    """

    def __init__(self, instances: "Instances", name: str, key: Hashable | None, share: bool) -> None:
        self._instances = instances
        self.name = name
        self.key = key
        self.share = share
        self.app: ASGIApp | None = None
        self.lifespan: Lifespan | None = None
        self.users = 0
        self.building: asyncio.Task[None] | None = None
        self.failure: ConfigurationError | None = None
        self.ended: asyncio.Future[None] | None = None

    @property
    def state(self) -> dict[str, Any]:
        """Its lifespan's state."""
        return {} if self.lifespan is None else self.lifespan.state

    async def release(self, seconds: float) -> None:
        """A chain does not have it any more. After the last one its lifespan is shut down, in so many `seconds`."""
        self.users -= 1
        if self.users or self.ended is not None:
            return
        ended = self.ended = asyncio.get_running_loop().create_future()
        try:
            await self._end(seconds)
        finally:
            self._instances.forget(self)
            ended.set_result(None)

    async def _end(self, seconds: float) -> None:
        assert self.building is not None
        if not self.building.done():
            self.building.cancel()
            _, running = await asyncio.wait([self.building], timeout=END_SECONDS)
            if running:
                logger.error("plugin %s: its factory does not end although it was cancelled", self.name)
        if self.lifespan is not None:
            await self.lifespan.stop(seconds)


class Instances:
    """The instances of one process.

    Args:
        keep: seconds that what an instance remembers is kept after its end.
        clock: seconds since the epoch.

    Attributes:
        checks: the checks of configurations that run on threads.
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
        end: float,
        share: bool = False,
        lifespan: float | None = None,
    ) -> Instance:
        """The instance with `key`, built if there is none. Whoever takes one releases it in the end.

        Args:
            name: of the plugin.
            key: what the instance belongs to; None: to this caller alone.
            build: makes its application; raises ConfigurationError, and nothing else.
            end: loop time at which waiting ends.
            share: the application is kept when the instance ends, for the next one.
            lifespan: seconds that the lifespan start-up may take; None: no lifespan is run.

        Raises:
            ConfigurationError: it cannot be built.
            TimeoutError: the time is over; its text is a reason if there is more to say.
        """
        instance = None if key is None else self._instances.get(key)
        while instance is not None and instance.ended is not None:
            # not beside one that still shuts down: it may hold what there is one of
            async with asyncio.timeout_at(end):
                await asyncio.wait([instance.ended])
            instance = self._instances.get(key)
        if instance is None:
            instance = Instance(self, name, key, share)
            if key is not None:
                self._instances[key] = instance
            building = self._build(instance, build, lifespan)
            instance.building = asyncio.get_running_loop().create_task(building, name=f"build of {name}")
        assert instance.building is not None
        instance.users += 1
        try:
            async with asyncio.timeout_at(end):
                await asyncio.wait([instance.building])
            if instance.failure is not None:
                # not the same one for all who wait: it would gather their tracebacks
                raise ConfigurationError(str(instance.failure)) from instance.failure.__cause__
        except TimeoutError:
            starting = instance.lifespan
            await instance.release(0.0)
            raise TimeoutError("" if starting is None else starting.late(lifespan or 0.0)) from None
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

    def forget(self, instance: Instance) -> None:
        """It has ended, or could not be built."""
        key = instance.key
        if key is None or self._instances.get(key) is not instance:
            return
        del self._instances[key]
        self._memory.leave(key)
        if instance.share and instance.app is not None:
            self._unlisted[key] = instance.app
            while len(self._unlisted) > MAX_SHARED:
                self._unlisted.popitem(last=False)

    def first_time(self, about: Hashable) -> bool:
        """Whether this is the first warning about something."""
        if about in self._warned:
            return False
        self._warned[about] = None
        while len(self._warned) > KEPT_WARNINGS:
            self._warned.popitem(last=False)
        return True
