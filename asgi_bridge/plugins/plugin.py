"""A mounted plugin: what was mounted, how a route configures it, and how it is run."""

import copy
import dataclasses
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from starlette.types import ASGIApp

from ..errors import ConfigurationError
from ..hiding import secret_fields
from .advice import Place, SourceKey, result_refusal
from .applications import asgi3
from .configuration import Configuration
from .kinds import judge
from .options import Options, parse_options
from .shadow_record import ShadowRecord

__all__ = ["SOURCE_KEYS", "Plugin", "SourceKey"]

SOURCE_KEYS: tuple[SourceKey, ...] = get_args(SourceKey)
"""The keys of ``[tool.asgi_bridge.plugins.NAME]`` that name what is mounted."""

_KINDS: Mapping[SourceKey, Literal["application", "middleware", "factory"]] = {
    "app": "application",
    "wsgi": "application",
    "middleware": "middleware",
    "wsgi_middleware": "middleware",
    "factory": "factory",
}


class Plugin:
    """A mounted plugin.

    Args:
        place: Its name, by which a route's ``conf`` list calls it, and its ``module:attr``.
        source: The kind of what was mounted: the key of ``[tool.asgi_bridge.plugins.NAME]`` that would name it.
        found: The object that was mounted.
        make: Makes the plugin's application, from a checked configuration and the inner application.
        configuration: What a route may configure.
        options: How it is run.
        application: The mounted ASGI 3 application; None: `make` makes one for each configuration.

    Attributes:
        shadow: What it would have done, if it is mounted with ``shadow=True``; None: it is not.
    """

    def __init__(
        self,
        place: Place,
        source: SourceKey,
        found: Any,
        make: Callable[[Any, ASGIApp], ASGIApp | Awaitable[ASGIApp]],
        configuration: Configuration,
        options: Options,
        application: ASGIApp | None = None,
    ) -> None:
        self.place = place
        self.name = place.name
        self.source = source
        self.found = found
        self.make = make
        self.configuration = configuration
        self.options = options
        self.application = application
        self.shadow = ShadowRecord(self.name) if options.shadow else None

    @property
    def kind(self) -> Literal["application", "middleware", "factory"]:
        """Where its application comes from: it was mounted itself, or a middleware or factory makes it."""
        return _KINDS[self.source]

    def made(self, result: Any) -> ASGIApp:
        """Return what `make` returned, as an ASGI 3 application.

        Raises:
            ConfigurationError: It is no application.
        """
        if self.application is not None:
            return self.application
        verdict = judge(result)
        if not verdict.may_be_application:
            source = "middleware" if self.kind == "middleware" else "factory"
            raise ConfigurationError(result_refusal(result, self.found, verdict, source, self.place))
        return asgi3(result)

    @property
    def is_loaded(self) -> bool:
        """Whether what was mounted is imported. See :class:`~asgi_bridge.plugins.deferred.DeferredPlugin`."""
        return True

    def load(self) -> None:
        """Import what was mounted, if it is not imported yet. That may take long: use a thread.

        Raises:
            ConfigurationError: It cannot be imported, or cannot be mounted.
        """

    @property
    def phases(self) -> list[str]:
        """The phases in whose lists the plugin may stand."""
        phase = self.options.phase
        return [phase] if phase in ("request", "response") else ["request", "response"]

    def allowing(self, entries: Sequence[str]) -> "Plugin":
        """Return the same plugin, whose routes may name these files and servers too.

        Args:
            entries: Files and servers, as in the option ``allow``.

        Raises:
            ConfigurationError: An entry is neither a path nor a URL.
        """
        plugin = copy.copy(self)
        plugin.options = dataclasses.replace(self.options, allow=self.allowed_with(entries))
        plugin.configuration = self.configuration.mounted_with(plugin.options)
        return plugin

    def allowed_with(self, entries: Sequence[str]) -> tuple[str, ...]:
        """Return the option ``allow`` with further entries. Raises ConfigurationError as :meth:`allowing` does."""
        return self.options.allow + parse_options({"allow": entries}).allow

    def acting(self) -> "Plugin":
        """Return the same plugin, which acts on requests also where it is mounted with ``shadow=True``."""
        if self.shadow is None:
            return self
        plugin = copy.copy(self)
        plugin.options = dataclasses.replace(self.options, shadow=False, sample=1.0)
        plugin.shadow = None
        return plugin

    def with_make(self, make: Callable[[Any, ASGIApp], ASGIApp | Awaitable[ASGIApp]]) -> "Plugin":
        """Return the same plugin, whose applications `make` builds."""
        plugin = copy.copy(self)
        plugin.make = make
        return plugin

    @functools.cached_property
    def secret_fields(self) -> frozenset[str]:
        """The fields of its configuration that are secrets by its JSON Schema, as pydantic's SecretStr."""
        return secret_fields(self.configuration.schema())

    def describe(self) -> dict[str, Any]:
        """Return name, kind, the option ``phase``, the phases in whose lists it may stand, and its JSON Schema."""
        return {
            "name": self.name,
            "kind": self.kind,
            "phase": self.options.phase,
            "phases": self.phases,
            "schema": self.configuration.schema(),
        }
