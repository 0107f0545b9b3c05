"""What ``asgi-bridge dev`` prints when it has started, and after each reload."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..gateway import Route, Routes

__all__ = ["Loaded", "changed_routes", "opening"]

MAX_ROUTES = 20
"""Maximum number of routes that are listed."""


def opening(
    plugins: Sequence[str], routes: Routes, file: Path, inspector: str | None, watched: str | None
) -> Iterator[str]:
    """Write what is mounted, which routes list what, where the inspector is, and what is watched.

    Args:
        plugins: Names of the mounted plugins; empty: they are not known here.
        routes: Those of the gateway.
        file: The route file.
        inspector: URL of the inspector; None: there is none.
        watched: The folder whose Python files are watched; None: the runner is somebody else's.

    Returns:
        The lines, without their ends, with colours for a terminal.
    """
    if plugins:
        yield _line("Plugins", ", ".join(plugins))
    yield _line("Routes", file.name if file.exists() else "one for each plugin")
    shown = [(route.id, _matches(route), _lists(route)) for route in routes.routes[:MAX_ROUTES]]
    first = max((len(each[0]) for each in shown), default=0)
    second = min(40, max((len(each[1]) for each in shown), default=0))
    for number, match, lists in shown:
        yield "           " + f"{number:<{first}}  {match:<{second}}  " + click.style(lists, dim=True)
    if len(routes.routes) > MAX_ROUTES:
        yield click.style(f"           and {len(routes.routes) - MAX_ROUTES} more", dim=True)
    for rule, ext in routes.global_rules.ext.items():
        yield _line("", "global rules  " + click.style(f"{_short(rule)} {', '.join(ext.names)}", dim=True))
    if inspector is not None:
        yield _line("Inspector", click.style(inspector, bold=True))
    watches = ([f"*.py in {watched}"] if watched is not None else []) + ([file.name] if file.exists() else [])
    if watches:
        yield _line("Watched", ", ".join(watches))
    yield ""


def _line(head: str, content: str) -> str:
    return click.style(f"{head:<10} ", dim=True) + content


def _matches(route: Route) -> str:
    methods = ",".join(sorted(route.methods))
    return " ".join(filter(None, [methods, *route.hosts, " ".join(route.uris)]))


def _lists(route: Route) -> str:
    lists = [f"{_short(name)} {', '.join(ext.names)}" for name, ext in route.plugins.ext.items()]
    return "; ".join(lists) or "no plugins"


def _short(name: str) -> str:
    return name.removeprefix("ext-plugin-")


def changed_routes(old: Routes, new: Routes) -> str:
    """Say which routes have changed: ``changed a; new b; gone c``; empty: none has."""
    before, after = {route.id: route for route in old.routes}, {route.id: route for route in new.routes}
    parts = {
        "changed": [number for number in after if number in before and after[number] != before[number]],
        "new": [number for number in after if number not in before],
        "gone": [number for number in before if number not in after],
    }
    found = [f"{word} {', '.join(numbers)}" for word, numbers in parts.items() if numbers]
    if old.global_rules != new.global_rules:
        found.append("changed global rules")
    return "; ".join(found)


class Loaded:
    """What the runner has loaded.

    Attributes:
        first: Set once the first runner has loaded its plugins.
    """

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self._plugins: Mapping[str, str] | None = None
        self._modules: Mapping[str, int] = {}

    def reloaded(self, news: Mapping[str, Any]) -> str | None:
        """Take what a runner has loaded.

        Args:
            news: ``loaded``: a digest for each plugin; ``modules``: for each file when it was changed.

        Returns:
            What is different from the runner before; None: it is the first one.
        """
        before, self._plugins = self._plugins, news["loaded"]
        files, self._modules = self._modules, news["modules"]
        if before is None:
            self.first.set()
            return None
        changed = [name for name, at in self._modules.items() if files.get(name) != at]
        plugins = self._plugins or {}
        parts = {
            "new": [name for name in plugins if name not in before],
            "gone": [name for name in before if name not in plugins],
            "other options or configuration": [
                name for name in plugins if name in before and plugins[name] != before[name]
            ],
        }
        found = [f"{', '.join(changed)} changed"] if changed else []
        found += [f"{word}: {', '.join(names)}" for word, names in parts.items() if names]
        return "; ".join(found) or "no plugin has changed"
