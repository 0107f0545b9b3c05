"""What several workers do not share."""

import inspect
from collections.abc import Mapping

from ..gateway.routes.places import Finding
from ..plugins import Plugin

__all__ = ["counted_apart"]

READY_MADE = "asgi_bridge_apps"
"""Package of plugins that know of workers: what they count, they count for all together."""
SHOWN = 10
"""Maximum number of plugins that are named."""


def counted_apart(plugins: Mapping[str, Plugin], workers: int) -> list[Finding]:
    """Say which plugins may count in the memory of each worker, where the runner has several.

    Args:
        plugins: The mounted plugins, by name.
        workers: Number of workers.
    """
    own = [name for name, plugin in sorted(plugins.items()) if _package(plugin.found) != READY_MADE]
    if workers == 1 or not own:
        return []
    names = ", ".join(own[:SHOWN]) + (f" and {len(own) - SHOWN} more" if len(own) > SHOWN else "")
    message = (
        f"each of the {workers} workers has its own memory, so what a plugin keeps or counts there is for one worker "
        f"alone (a limit of 10 admits up to {10 * workers}): look at {names}"
    )
    return [Finding("note", None, None, "", message)]


def _package(mounted: object) -> str:
    """Return the package of the code of what was mounted."""
    code = inspect.unwrap(mounted) if callable(mounted) else mounted
    module = getattr(code, "__module__", None) or type(code).__module__
    return str(module).partition(".")[0]
