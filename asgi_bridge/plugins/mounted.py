"""The lifespans of mounted applications: one each in a process, however often the application is mounted."""

import asyncio
from typing import Any

from starlette.types import ASGIApp

from ..errors import ConfigurationError, PluginError
from .lifespan import Lifespan
from .plugin import Plugin

__all__ = ["MountedLifespans"]


class MountedLifespans:
    """The lifespans of the mounted applications of one process.

    Attributes:
        started: Those that run, by the identity of their application, which need not be hashable.
        failed: Why the others could not start, likewise. A text, because a kept exception would hold its traceback.
    """

    def __init__(self) -> None:
        self.started: dict[int, Lifespan] = {}
        self.failed: dict[int, str] = {}

    async def start(self, plugin: Plugin, seconds: float) -> Lifespan | None:
        """Start the application of `plugin`, unless it has been tried before.

        Args:
            plugin: A mounted plugin.
            seconds: Time that the start-up may take.

        Returns:
            The lifespan that was started now; None: the plugin builds its applications, or it has been tried before.

        Raises:
            PluginError: The application cannot start. From now on :meth:`state_of` raises for it.
        """
        key = id(plugin.application)
        if plugin.application is None or key in self.started or key in self.failed:
            return None
        lifespan = Lifespan(plugin.application, plugin.name)
        try:
            await lifespan.start(seconds)
        except PluginError as exc:
            self.failed[key] = f"plugin {plugin.name}: {exc}"
            raise
        self.started[key] = lifespan
        return lifespan

    def state_of(self, application: ASGIApp) -> dict[str, Any]:
        """Return the lifespan state of a mounted application, empty if it was not started.

        Raises:
            ConfigurationError: The application could not start.
        """
        reason = self.failed.get(id(application))
        if reason is not None:
            raise ConfigurationError(reason)
        lifespan = self.started.get(id(application))
        return {} if lifespan is None else lifespan.state

    async def stop(self, seconds: float) -> None:
        """Shut all applications down, side by side.

        Args:
            seconds: Time that each shutdown may take.
        """
        started = list(self.started.values())
        self.started.clear()
        await asyncio.gather(*[lifespan.stop(seconds) for lifespan in started])
