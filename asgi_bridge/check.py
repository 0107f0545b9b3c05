"""Check routes against the plugins of a runner, before the first request comes."""

from collections.abc import Iterator, Mapping

from .apisix_constants import PHASE_OF, POST_RESP, REQUEST_LISTS
from .gateway.routes.places import Finding
from .gateway.routes.route import ExtPlugin, Plugins, Routes
from .plugins import Plugin
from .spelling import did_you_mean

__all__ = ["Finding", "check_routes"]

_LISTS = {"request": REQUEST_LISTS, "response": POST_RESP}
"""Phase → the lists for its plugins, as messages name them."""


def check_routes(routes: Routes, plugins: Mapping[str, Plugin]) -> list[Finding]:
    """Find the plugins in routes that the runner cannot run as the routes say.

    These are plugins that are not mounted, plugins in the list of a phase that they are not for, and plugins of
    ``phase="both"`` that stand in the lists of one phase only. `Routes.findings` has what is wrong about the routes
    alone.

    Args:
        routes: The routes.
        plugins: The mounted plugins, by name (`Bridge.plugins`).

    Returns:
        The findings, each once, in the order of the routes. With an ``"error"`` requests get 503; with
        ``allow_degradation`` they go on without the plugins.

    Example::

        for finding in check_routes(load_routes("apisix.yaml"), bridge.plugins):
            print(finding)
    """
    holders: list[tuple[str, str | None, Plugins]] = [("the global rules", None, routes.global_rules)]
    holders += [(f"route {route.id!r}", route.id, route.plugins) for route in routes.routes]
    found: dict[tuple[str, str], Finding] = {}
    for what, route_id, held in holders:
        for finding in _of_one(what, route_id, held, plugins):
            found.setdefault((finding.where, finding.message), finding)
    everywhere = [routes.global_rules, *(route.plugins for route in routes.routes)]
    for consumer in routes.consumers.values():
        what = f"consumer {consumer.username!r}"
        # a route may list the plugin in the other phase
        for finding in _of_one(what, None, consumer.plugins, plugins, beside=everywhere):
            found.setdefault((finding.where, finding.message), finding)
    return list(found.values())


def _of_one(
    what: str, route_id: str | None, held: Plugins, plugins: Mapping[str, Plugin], beside: list[Plugins] | None = None
) -> Iterator[Finding]:
    """Check the lists of one holder of plugins: a route, a consumer, or the global rules.

    Args:
        what: The holder, for messages.
        route_id: Id of the route; None: it is no route.
        held: The plugins of the holder.
        plugins: The mounted plugins, by name.
        beside: Plugins of other holders that may run in the same request.
    """
    names = {phase: _names_in(held, phase) for phase in ("request", "response")}
    for other in beside or ():
        names = {phase: found | _names_in(other, phase) for phase, found in names.items()}
    for place, listed in held.ext.items():
        phase = PHASE_OF[place]
        for number, name in enumerate(listed.names):
            where = listed.places[number] if number < len(listed.places) else listed.where
            path = f"{place}.conf[{number}]"
            plugin = plugins.get(name)
            if plugin is None:
                mounted = ", ".join(sorted(plugins)) or "none"
                text = f"plugin {name} is not mounted{_consequence(listed)}; mounted are: {mounted}"
                yield Finding("error", route_id, name, where, f"{what}: {path}: {text}{did_you_mean(name, plugins)}")
            elif phase not in plugin.phases:
                own = plugin.phases[0]
                text = f"plugin {name} is for the {own} phase{_consequence(listed)}; list it under {_LISTS[own]}"
                yield Finding("error", route_id, name, where, f"{what}: {path}: {text}")
            elif plugin.options.phase == "both" and name not in names["response" if phase == "request" else "request"]:
                text = (
                    f'plugin {name} has phase="both" and stands in the request phase only, so it sees no responses; '
                    f"list it under {POST_RESP} too"
                    if phase == "request"
                    else f'plugin {name} has phase="both" and stands in {POST_RESP} only: it has no request half, so '
                    f"{_without_request(plugin)}; list it under {REQUEST_LISTS} too"
                )
                yield Finding("warning", route_id, name, where, f"{what}: {path}: {text}")


def _names_in(held: Plugins, phase: str) -> set[str]:
    return {name for place, listed in held.ext.items() if PHASE_OF[place] == phase for name in listed.names}


def _consequence(listed: ExtPlugin) -> str:
    if listed.allow_degradation:
        return ", so requests go on without the plugins of this list (allow_degradation)"
    return ", so requests get 503"


def _without_request(plugin: Plugin) -> str:
    if plugin.options.on_missing == "refuse":
        return "each request is refused"
    return "it runs in the form of the response phase, and cannot change what goes upstream"
