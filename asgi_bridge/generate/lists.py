"""The lists of a route: which plugins it names, in which ``ext-plugin-*``, with which configuration."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..apisix_constants import LISTS, POST_REQ, POST_RESP, PRE_REQ
from ..errors import ConfigurationError
from ..plugins import Plugin
from ..spelling import did_you_mean

__all__ = ["ext_plugins"]


def ext_plugins(
    plugins: Mapping[str, Plugin],
    chosen: Sequence[tuple[str, str]] = (),
    *,
    post_req: Collection[str] = (),
    post_resp: Collection[str] = (),
) -> dict[str, dict[str, Any]]:
    """Put plugins into the lists of their phases.

    A plugin of ``phase="both"`` stands in two lists. A configuration is a text in JSON to APISIX, so what is returned
    has it as a text, and who writes it as JSON encodes it twice.

    Args:
        plugins: The mounted plugins, by name.
        chosen: Names and configurations (JSON), in the order in which they run; empty: all plugins, with ``{}``.
        post_req: Names of those that run in the request phase after APISIX's own plugins.
        post_resp: Names of those that run in the response phase alone.

    Returns:
        List → what a route has under that name.

    Raises:
        ConfigurationError: A plugin is not mounted, is not for that phase, or refuses its configuration.

    Example::

        ext_plugins(bridge.plugins, [("say", '{"body": "hello"}')])
        # {"ext-plugin-pre-req": {"conf": [{"name": "say", "value": '{"body": "hello"}'}]}}
    """
    entries = list(chosen) or [(name, "{}") for name in plugins]
    names = [name for name, _ in entries]
    for option, moved in (("--post-req", post_req), ("--post-resp", post_resp)):
        for name in moved:
            if name not in names:
                raise ConfigurationError(
                    f"{option} {name}: the route does not name this plugin{did_you_mean(name, names)}"
                )
    made: dict[str, dict[str, Any]] = {}
    for name, conf in entries:
        if names.count(name) > 1:
            raise ConfigurationError(f"--plugin {name}: given twice")
        if name not in plugins:
            mounted = ", ".join(sorted(plugins))
            raise ConfigurationError(
                f"plugin {name} is not mounted; mounted are: {mounted}{did_you_mean(name, plugins)}"
            )
        entry = {"name": name, "value": _checked(plugins[name], conf)}
        for place in _places(plugins[name], in_post_req=name in post_req, in_post_resp=name in post_resp):
            made.setdefault(place, {"conf": []})["conf"].append(entry)
    return {place: made[place] for place in LISTS if place in made}


def _checked(plugin: Plugin, conf: str) -> str:
    """Return a configuration as it goes into the route. Raises ConfigurationError if the plugin refuses it."""
    try:
        conf.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"plugin {plugin.name}: the configuration is not UTF-8") from None
    try:
        plugin.configuration.check(conf)
    except ConfigurationError as exc:
        required = plugin.configuration.schema().get("required", [])
        example = json.dumps(dict.fromkeys(required, "…"), ensure_ascii=False) if required else "{…}"
        advice = f"give its configuration: --plugin '{plugin.name}={example}'"
        raise ConfigurationError(f"plugin {plugin.name}: {exc}; {advice}") from exc.__cause__
    return conf.strip() or "{}"


def _places(plugin: Plugin, *, in_post_req: bool, in_post_resp: bool) -> list[str]:
    """Return the lists in which a plugin stands. Raises ConfigurationError for one of another phase."""
    if in_post_req and in_post_resp:
        raise ConfigurationError(f"plugin {plugin.name}: --post-req and --post-resp exclude each other")
    if in_post_resp and "response" not in plugin.phases:
        raise ConfigurationError(f"--post-resp {plugin.name}: this plugin is for the request phase")
    if in_post_req and "request" not in plugin.phases:
        raise ConfigurationError(f"--post-req {plugin.name}: this plugin is for the response phase")
    places = []
    if not in_post_resp and "request" in plugin.phases:
        places.append(POST_REQ if in_post_req else PRE_REQ)
    if in_post_resp or plugin.options.phase in ("response", "both"):
        places.append(POST_RESP)
    return places
