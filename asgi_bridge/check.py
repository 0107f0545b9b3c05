"""Checks routes against the plugins that a runner has: what would only show when requests come, or never."""

from collections.abc import Iterator, Mapping

from .gateway.routes.places import Finding
from .gateway.routes.route import ExtPlugin, Plugins, Routes
from .plugins import Plugin
from .spelling import did_you_mean

__all__ = ["Finding", "check_routes"]

POST_RESP = "ext-plugin-post-resp"
_PHASE = {"ext-plugin-pre-req": "request", "ext-plugin-post-req": "request", POST_RESP: "response"}
_PLACES = {"request": "ext-plugin-pre-req or ext-plugin-post-req", "response": POST_RESP}


def check_routes(routes: Routes, plugins: Mapping[str, Plugin]) -> list[Finding]:
    """Find what routes ask of a runner and it cannot give, or not whole.

    Found are plugins that are not mounted, plugins in the list of a phase that they are not for, and plugins of
    ``phase="both"`` in the lists of one phase only. What the reader of the routes has found is in
    `Routes.findings`, and not here.

    Args:
        routes: as they were read.
        plugins: those that are mounted, by name (`Bridge.plugins`).

    Returns:
        What was found, each thing once, in the order of the routes. An ``"error"``: requests fail (or, with
        ``allow_degradation``, go on without the plugins).
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
        # its plugins come over those of the routes, which may have the other half
        for finding in _of_one(what, None, consumer.plugins, plugins, beside=everywhere):
            found.setdefault((finding.where, finding.message), finding)
    return list(found.values())


def _of_one(
    what: str, route_id: str | None, held: Plugins, plugins: Mapping[str, Plugin], beside: list[Plugins] | None = None
) -> Iterator[Finding]:
    names = {phase: _names_in(held, phase) for phase in ("request", "response")}
    for other in beside or ():
        names = {phase: found | _names_in(other, phase) for phase, found in names.items()}
    for place, listed in held.ext.items():
        phase = _PHASE[place]
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
                text = f"plugin {name} is for the {own} phase{_consequence(listed)}; list it under {_PLACES[own]}"
                yield Finding("error", route_id, name, where, f"{what}: {path}: {text}")
            elif plugin.options.phase == "both" and name not in names["response" if phase == "request" else "request"]:
                text = (
                    f'plugin {name} has phase="both" and stands in the request phase only, so responses pass it '
                    f"unseen; list it under {POST_RESP} too"
                    if phase == "request"
                    else f'plugin {name} has phase="both" and stands in {POST_RESP} only: there is no request half, so '
                    f"{_without_request(plugin)}; list it under {_PLACES['request']} too"
                )
                yield Finding("warning", route_id, name, where, f"{what}: {path}: {text}")


def _names_in(held: Plugins, phase: str) -> set[str]:
    return {name for place, listed in held.ext.items() if _PHASE[place] == phase for name in listed.names}


def _consequence(listed: ExtPlugin) -> str:
    if listed.allow_degradation:
        return ", so requests go on without the plugins of this list (allow_degradation)"
    return ", so requests get 503"


def _without_request(plugin: Plugin) -> str:
    if plugin.options.on_missing == "refuse":
        return "each request is refused"
    return "it runs in the form of the response phase, and cannot change what goes upstream"
