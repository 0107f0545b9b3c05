"""Build a chain of layers from the names and texts of one configuration, and start the lifespan of every plugin."""

import asyncio
import hashlib
import inspect
import json
import logging
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp

from ..apisix_constants import POST_RESP, REQUEST_LISTS
from ..errors import ConfigurationError
from ..hiding import SECRETS
from ..spelling import did_you_mean
from .chain import Chain
from .extension import new_next
from .instances import Instances
from .json_text import parse_json
from .key import owner_of, phase_of, route_id_of
from .layer import Layer
from .mounted import MountedLifespans
from .plugin import Plugin
from .reasons import ends_task, reason_of, shortened, text_of

if TYPE_CHECKING:
    from .shadow import ShadowLayer

__all__ = ["BUILD_SECONDS", "MAX_CONFIGURATION_BYTES", "SHUTDOWN_SECONDS", "Conf", "build_chain", "check_sizes"]

logger = logging.getLogger("asgi_bridge.plugins")

Conf = Sequence[tuple[bytes | None, bytes | None]]
"""Names and configurations of plugins, outermost first, as the gateway sends them."""

BUILD_SECONDS = 4.0
"""Seconds that building a chain may take. APISIX's other workers wait 5 s for a PrepareConf."""
SHADOW_SECONDS = 1.0
"""Seconds that building all shadows of a chain may take, once the other plugins are built."""
SHUTDOWN_SECONDS = 0.2
"""Seconds that the lifespan shutdown of one plugin may take. APISIX kills the runner one second after SIGTERM."""
MAX_CONFIGURATION_BYTES = 128 * 1024
"""Maximum size of one plugin's configuration, in bytes, unless the operator sets another."""
MAX_PLUGINS = 100
"""Maximum number of plugins of one list. Each layer takes some of the interpreter's stack, which ends at about 250."""
MAX_KEY_BYTES = 1024
"""Maximum size of the key of a list, in bytes. A key holds ids and names of up to 64 characters each."""
MAX_NAME_BYTES = 512
"""Maximum size of a plugin's name, in bytes. APISIX's schema allows 128 characters."""
QUICK_BYTES = 4096
"""Maximum size of a configuration that is read in the event loop, in bytes. For a short one a thread costs more."""


async def build_chain(
    plugins: Mapping[str, Plugin],
    key: bytes | None,
    conf: Conf,
    mounted: MountedLifespans | None,
    *,
    instances: Instances | None = None,
    limit: int = MAX_CONFIGURATION_BYTES,
) -> Chain:
    """Build the chain of one configuration, and start the lifespan of every plugin.

    Args:
        plugins: The mounted plugins, by name.
        key: The gateway's name for the configuration.
        conf: Names and configurations of the plugins, outermost first.
        mounted: The lifespans of the mounted applications; None: no lifespan is run at all.
        instances: The instances of the process; None: this chain shares nothing with others.
        limit: Maximum size of one plugin's configuration, in bytes.

    Raises:
        ConfigurationError: A plugin is not mounted, does not accept its configuration, or cannot be built.
    """
    build = Build(plugins, key, mounted, instances or Instances(), limit)
    try:
        await build.run(conf)
        return build.chain()
    except BaseException as exc:
        await Chain(build.layers, None).close(SHUTDOWN_SECONDS)
        if isinstance(exc, TimeoutError):
            prefix = "" if build.plugin is None else f"plugin {build.plugin.name}: "
            reason = str(exc) or f"building took more than {BUILD_SECONDS:g} s"
            raise ConfigurationError(prefix + reason) from None
        raise


class Build:
    """One chain while it is built. The arguments are those of :func:`build_chain`.

    Attributes:
        layers: The finished layers, outermost first.
        plugin: The plugin that is checked or built now.
        route_id: Id of the route, where the key has one.
    """

    def __init__(
        self,
        plugins: Mapping[str, Plugin],
        key: bytes | None,
        mounted: MountedLifespans | None,
        instances: Instances,
        limit: int,
    ) -> None:
        self.layers: list[Layer] = []
        self.plugin: Plugin | None = None
        self._plugins = plugins
        self._phase = phase_of(key)
        self._owner = owner_of(key)
        self.route_id = route_id_of(key)
        self._mounted = mounted
        self._instances = instances
        self._limit = limit
        self._deadline = asyncio.get_running_loop().time() + BUILD_SECONDS
        self._listed: Counter[tuple[str, bytes]] = Counter()

    async def run(self, conf: Conf) -> None:
        """Check the whole configuration first, then build the layers from the innermost to the outermost.

        Shadows come last: a request needs none of them, so none of them can refuse the configuration.
        """
        check_sizes(None, conf, self._limit)
        read = []
        for name, text in map(_decoded, conf):
            self.plugin = self._plugins.get(name)
            if self.plugin is None:
                known = shortened(", ".join(sorted(self._plugins)))
                guess = did_you_mean(name, self._plugins)
                raise ConfigurationError(f"plugin {name} is not mounted; mounted are: {known}{guess}")
            if self.plugin.shadow is not None:
                read.append((self.plugin, text, None, b"", 0))
                continue
            self._check_phase(self.plugin)
            parsed, digest = await self._read(self.plugin, text)
            read.append((self.plugin, text, parsed, digest, self._number(name, digest)))
        shadows = []
        for self.plugin, text, parsed, digest, number in reversed(read):
            inner = self.layers[0] if self.layers else None
            options, record = self.plugin.options, self.plugin.shadow
            if record is not None:
                from .shadow import ShadowLayer  # few plugins are shadows

                shadow = ShadowLayer(self.plugin.name, options, inner, self.route_id, record)
                self.layers.insert(0, shadow)
                shadows.append((shadow, self.plugin, text))
                continue
            layer = Layer(self.plugin.name, options, parsed, inner, self.route_id)
            self.layers.insert(0, layer)
            await self._fill(layer, self.plugin, text, digest, number)
        if shadows:
            self._deadline = min(self._deadline, asyncio.get_running_loop().time() + SHADOW_SECONDS)
            for shadow, plugin, text in shadows:
                await self._fill_shadow(shadow, plugin, text)

    def _number(self, name: str, digest: bytes) -> int:
        """Return 1 for the first of equal entries of the list, 2 for the second, and so on."""
        self._listed[name, digest] += 1
        return self._listed[name, digest]

    async def _fill(self, layer: Layer, plugin: Plugin, text: str, digest: bytes, number: int) -> None:
        """Give a layer its application."""
        if plugin.application is None:
            await self._build(layer, plugin, text, self._key(plugin, digest, number))
        else:
            self._add_mounted(layer, plugin.application)

    async def _fill_shadow(self, layer: "ShadowLayer", plugin: Plugin, text: str) -> None:
        """Give a shadow its application. If that fails, requests pass without it, and the log says why."""
        try:
            self._check_phase(plugin)
            parsed, digest = await self._read(plugin, text)
            layer.configure(parsed)
            await self._fill(layer, plugin, text, digest, self._number(plugin.name, digest))
        except (ConfigurationError, TimeoutError) as exc:
            layer.absent = True
            reason = text_of(exc) or f"building took more than {SHADOW_SECONDS:g} s"
            logger.error(
                "plugin %s: route %s: it is mounted with shadow=True, so requests pass without it: %s",
                plugin.name, self.route_id or "?", reason.removeprefix(f"plugin {plugin.name}: "),
            )  # fmt: skip

    def chain(self) -> Chain:
        """Return the chain, once all layers are built."""
        chain = Chain(self.layers, self.route_id)
        for one, other, key in chain.states.conflicts:
            if self._instances.first_time((one.name, other.name, key)):
                chain.warn_once(
                    f"state {key}",
                    "the lifespans of %s and %s both give scope['state'] the key %r: each of the two sees its own "
                    "value, and no other plugin sees either",
                    one.name, other.name, key,
                )  # fmt: skip
        return chain

    def _check_phase(self, plugin: Plugin) -> None:
        if self._phase is not None and self._phase not in plugin.phases:
            lists = POST_RESP if self._phase == "request" else REQUEST_LISTS
            raise ConfigurationError(f"plugin {plugin.name} is for the {plugin.phases[0]} phase: list it under {lists}")

    async def _read(self, plugin: Plugin, text: str) -> tuple[Any, bytes]:
        """Parse the JSON `text`. Return its value, and a digest of the value."""
        if not plugin.is_loaded:  # imports take long, and meanwhile other calls go on
            async with asyncio.timeout_at(self._deadline):
                await self._instances.checks.run(plugin.name, plugin.load)
        try:
            if len(text) <= QUICK_BYTES:
                read = _read(text)
            else:
                async with asyncio.timeout_at(self._deadline):
                    read = await self._instances.checks.run("", lambda: _read(text))
        except ConfigurationError as exc:
            raise ConfigurationError(f"plugin {plugin.name}: {exc}") from None
        SECRETS.learn(read[0], plugin.secret_fields)  # before anything says what is wrong with it
        return read

    def _key(self, plugin: Plugin, digest: bytes, number: int) -> Hashable | None:
        """Return what the instance belongs to; None: to this chain alone.

        The second of two equal entries of a list has an instance of its own, as it would have under a server. It is
        called while the first one runs.

        Args:
            number: 1 for the first of equal entries, 2 for the second, and so on.
        """
        if plugin.options.share:
            return plugin.name, digest
        return None if self._owner is None else (self._owner, plugin.name, digest, number)

    async def _build(self, layer: Layer, plugin: Plugin, text: str, key: Hashable | None) -> None:
        async def build() -> ASGIApp:
            return await _application(plugin, text, self._instances)

        layer.instance = await self._instances.take(
            plugin.name,
            key,
            build,
            deadline=self._deadline,
            share=plugin.options.share,
            lifespan=None if self._mounted is None else BUILD_SECONDS,
        )
        assert layer.instance.app is not None
        layer.app = layer.instance.app
        layer.state = layer.instance.state

    def _add_mounted(self, layer: Layer, application: ASGIApp) -> None:
        """Give a layer its mounted application, which the process has started."""
        layer.app = application
        if self._mounted is not None:
            layer.state = self._mounted.state_of(application)


def check_sizes(key: bytes | None, conf: Conf, limit: int) -> None:
    """Check the size of a configuration before anything in it is read.

    Args:
        key: The gateway's name for the configuration.
        conf: Names and configurations of the plugins.
        limit: Maximum size of one plugin's configuration, in bytes.

    Raises:
        ConfigurationError: Something is too large.
    """
    if len(key or b"") > MAX_KEY_BYTES:
        raise ConfigurationError(f"its key has {len(key or b'')} bytes, and at most {MAX_KEY_BYTES} are taken")
    if len(conf) > MAX_PLUGINS:
        raise ConfigurationError(f"the list has {len(conf)} plugins, and at most {MAX_PLUGINS} can be nested")
    for name, text in conf:
        if len(name or b"") > MAX_NAME_BYTES:
            raise ConfigurationError(
                f"the name of a plugin has {len(name or b'')} bytes, and at most {MAX_NAME_BYTES} are taken"
            )
        if len(text or b"") > limit:
            raise ConfigurationError(
                f"plugin {(name or b'?').decode('utf-8', 'replace')}: its configuration has {len(text or b'')} bytes, "
                f"and at most {limit} are taken (--limit-configuration-size)"
            )


def _decoded(entry: tuple[bytes | None, bytes | None]) -> tuple[str, str]:
    name, text = entry
    if name is None or text is None:
        raise ConfigurationError("an entry of the plugin list lacks its name or value")
    try:
        return name.decode(), text.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"plugin {name!r}: name and configuration must be UTF-8") from None


def _read(text: str) -> tuple[Any, bytes]:
    parsed = parse_json(text)
    return parsed, hashlib.blake2b(json.dumps(parsed).encode(), digest_size=16).digest()


async def _application(plugin: Plugin, text: str, instances: Instances) -> ASGIApp:
    """Let `plugin` make an application of a configuration.

    Raises:
        ConfigurationError: The plugin refuses the configuration, or raises anything else.
    """
    task = asyncio.current_task()
    try:
        if plugin.configuration.runs_code or len(text) > QUICK_BYTES:
            conf = await instances.checks.run(plugin.name, lambda: plugin.configuration.check(text))
        else:
            conf = plugin.configuration.check(text)
        app = plugin.make(conf, new_next())
        if inspect.isawaitable(app):
            app = await app
        return plugin.made(app)
    except ConfigurationError as exc:
        raise ConfigurationError(f"plugin {plugin.name}: {text_of(exc)}") from None
    except BaseException as exc:
        if ends_task(exc, task):
            raise
        raise ConfigurationError(f"plugin {plugin.name}: it could not be built: {reason_of(exc)}") from exc
