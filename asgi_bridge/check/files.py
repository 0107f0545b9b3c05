"""Checks whole route files: what APISIX does not accept, and what the runner cannot run."""

from collections.abc import Iterable, Mapping

from ..gateway.routes.load import parse_files
from ..gateway.routes.places import Finding
from ..gateway.routes.route import TWO_LISTS
from ..plugins import Plugin
from ..plugins.build import MAX_CONFIGURATION_BYTES
from .routes import check_routes

__all__ = ["check_files"]


def check_files(
    files: Iterable[tuple[str, str | bytes]], plugins: Mapping[str, Plugin], *, limit: int = MAX_CONFIGURATION_BYTES
) -> list[Finding]:
    """Find what is wrong with the routes of files, and about these routes and plugins together.

    What only our stand-in for APISIX cannot do is no finding.

    Args:
        files: Names and contents of the files, in any form that `asgi_bridge.gateway.load_routes` reads. Each
            ``apisix.yaml`` stands for itself; other files are parts of one configuration.
        plugins: The mounted plugins, by name (`Bridge.plugins`).
        limit: Maximum size of one plugin's configuration in bytes (``--limit-configuration-size``).

    Returns:
        The findings, in the order of the files and their lines.

    Example::

        findings = check_files([("apisix.yaml", Path("apisix.yaml").read_text())], bridge.plugins)
    """
    files = list(files)
    order = {name: number for number, (name, _) in enumerate(files)}
    found: list[Finding] = []
    for routes in parse_files(files):
        found += (finding for finding in routes.findings if not finding.stand_in)
        found += check_routes(routes, plugins, limit=limit)
        for route in routes.clashing:
            line = route.where.rpartition(":")[2]
            number = int(line) if line.isdecimal() else None
            found.append(Finding("warning", route.id, None, route.where, TWO_LISTS % route.id, number))
    return sorted(found, key=lambda each: (order.get(each.file, -1), each.line or 0))
