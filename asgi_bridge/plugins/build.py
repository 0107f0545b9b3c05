"""Building: one configuration's names and texts to a chain of layers, every plugin's lifespan started."""

import asyncio
import inspect
from collections.abc import Sequence

from ..errors import ConfigurationError, PluginError
from ..spelling import did_you_mean
from .chain import INNERMOST, Chain, Layer, Step
from .configuration import parse_json
from .key import phase_of, route_id_of
from .lifespan import Lifespan
from .registry import Bridge, Plugin

__all__ = ["BUILD_SECONDS", "SHUTDOWN_SECONDS", "Conf", "build_chain"]

Conf = Sequence[tuple[bytes | None, bytes | None]]

BUILD_SECONDS = 4.0
"""What building a chain may take: APISIX's other workers wait 5 s for a PrepareConf."""
SHUTDOWN_SECONDS = 0.2
"""What the lifespan shutdown of one plugin may take: APISIX kills the runner one second after SIGTERM."""


async def build_chain(
    bridge: Bridge, key: bytes | None, conf: Conf, mounted: dict[int, Lifespan | ConfigurationError] | None
) -> Chain:
    """The chain of one configuration, every plugin's lifespan started.

    Args:
        bridge: the plugins.
        key: what the gateway prepares it under.
        conf: names and configurations, outermost first.
        mounted: the lifespans of the mounted applications, by identity; None: no lifespan is run at all.

    Raises:
        ConfigurationError: a plugin is unknown, its configuration does not check, or it cannot be built.
    """
    layers: list[Layer] = []
    plugin: Plugin | None = None
    try:
        async with asyncio.timeout(BUILD_SECONDS):
            for name, text in reversed([_decoded(entry) for entry in conf]):
                plugin = bridge.plugins.get(name)
                if plugin is None:
                    known = ", ".join(sorted(bridge.plugins))
                    guess = did_you_mean(name, bridge.plugins)
                    raise ConfigurationError(f"plugin {name} is not mounted; mounted are: {known}{guess}")
                layers.insert(0, await _build_layer(plugin, key, text, layers[0] if layers else INNERMOST, mounted))
    except BaseException as exc:
        await Chain(layers, None).close(SHUTDOWN_SECONDS)
        if isinstance(exc, TimeoutError):
            blamed = "" if plugin is None else f"plugin {plugin.name}: "
            raise ConfigurationError(f"{blamed}building took more than {BUILD_SECONDS:g} s") from None
        raise
    return Chain(layers, route_id_of(key))


def _decoded(entry: tuple[bytes | None, bytes | None]) -> tuple[str, str]:
    name, text = entry
    if name is None or text is None:
        raise ConfigurationError("an entry of the plugin list lacks its name or value")
    try:
        return name.decode(), text.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"plugin {name!r}: name and configuration must be UTF-8") from None


async def _build_layer(
    plugin: Plugin,
    key: bytes | None,
    text: str,
    following: Step,
    mounted: dict[int, Lifespan | ConfigurationError] | None,
) -> Layer:
    phase = phase_of(key)
    if phase is not None and phase not in plugin.phases:
        place = "ext-plugin-post-resp" if phase == "request" else "ext-plugin-pre-req or ext-plugin-post-req"
        raise ConfigurationError(f"plugin {plugin.name} is for the {plugin.phases[0]} phase: list it under {place}")
    try:
        layer = Layer(plugin.name, plugin.options, parse_json(text), following, route_id_of(key))
        app = plugin.make(plugin.configuration.check(text), following)
        if inspect.isawaitable(app):
            app = await app
        layer.app = plugin.made(app)
    except ConfigurationError as exc:
        raise ConfigurationError(f"plugin {plugin.name}: {exc}") from None
    except (Exception, SystemExit, asyncio.CancelledError) as exc:
        task = asyncio.current_task()
        if isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling():
            raise  # not the factory's own
        raise ConfigurationError(f"plugin {plugin.name}: it could not be built: {type(exc).__name__}: {exc}") from exc
    if mounted is None:
        return layer
    if plugin.application is None:
        lifespan = Lifespan(layer.app, plugin.name)
        try:
            await lifespan.start(BUILD_SECONDS)
        except PluginError as exc:
            raise ConfigurationError(f"plugin {plugin.name}: {exc}") from None
        layer.lifespan = lifespan
        layer.state = lifespan.state
    else:
        found = mounted.get(id(plugin.application))
        if isinstance(found, ConfigurationError):
            raise ConfigurationError(str(found))
        if found is not None:
            layer.state = found.state
    return layer
