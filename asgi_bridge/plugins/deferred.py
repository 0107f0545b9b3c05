"""Plugins whose module is imported when the first route lists them."""

import copy
import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ConfigurationError
from .advice import Place, SourceKey
from .options import Options
from .plugin import Plugin
from .shadow_record import ShadowRecord

__all__ = ["DeferredPlugin"]

LOADED = ("found", "make", "configuration")
"""Attributes of a plugin that only its module knows."""


class DeferredPlugin(Plugin):
    """A plugin that is imported when somebody first asks for what only its module knows.

    Args:
        place: Its name and its ``module:attr``.
        source: The kind of what is mounted.
        options: How it is run.
        mount: Imports and mounts it.
    """

    def __init__(self, place: Place, source: SourceKey, options: Options, mount: Callable[[], Plugin]) -> None:
        # nothing of LOADED: that is what waits
        self.place = place
        self.name = place.name
        self.source = source
        self.options = options
        self.application = None
        self.shadow = ShadowRecord(self.name) if options.shadow else None
        self._mount = mount
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        """Import the plugin, if it is not imported yet (only called for attributes that are missing)."""
        if name not in LOADED:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.load()
        return self.__dict__[name]

    def __copy__(self) -> "DeferredPlugin":
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__, _lock=threading.Lock())
        return new

    @property
    def is_loaded(self) -> bool:
        return all(name in self.__dict__ for name in LOADED)

    def load(self) -> None:
        with self._lock:
            if self.is_loaded:
                return
            try:
                plugin = self._mount()
            except ConfigurationError:
                raise
            except Exception as exc:
                raise ConfigurationError(
                    f"plugin {self.name}: {self.place.target} cannot be imported: {type(exc).__name__}: {exc}"
                ) from exc
            known = {
                "found": plugin.found,
                "make": plugin.make,
                "configuration": plugin.configuration.mounted_with(self.options),
            }
            self.__dict__.update({**known, **self.__dict__})

    def allowing(self, entries: Sequence[str]) -> "DeferredPlugin":
        plugin = copy.copy(self)
        plugin.options = dataclasses.replace(self.options, allow=self.allowed_with(entries))
        plugin.__dict__.pop("configuration", None)  # it knows what its routes may name
        return plugin
