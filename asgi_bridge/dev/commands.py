"""The page of commands that ``asgi-bridge dev`` prints when it has started."""

from collections.abc import Iterator

import click

from ..gateway import Routes

__all__ = ["invitations"]

_COMMANDS = ("curl ", "for ")
"""How a line of a route's description begins that is a command line."""


def invitations(routes: Routes, url: str) -> Iterator[str]:
    """Write what to try: for each route the command lines in its description, or a curl of its uri.

    Args:
        routes: Those of the gateway.
        url: Of the gateway; it replaces ``$GATEWAY`` in the command lines.

    Returns:
        The lines, without their ends, with colours for a terminal.
    """
    yield click.style(f"The gateway listens on {url} (Press CTRL+C to quit). Try:", bold=True)
    for route in routes.routes:
        yield ""
        text = (route.desc or f"Route {route.id}").strip().splitlines()
        if not any(line.startswith(_COMMANDS) for line in text):
            text.append(f"curl -i '$GATEWAY{route.uris[0].removesuffix('*')}'")
        for line in text:
            if line.startswith(_COMMANDS):
                yield click.style(line.replace("$GATEWAY", url), fg="cyan")
            else:
                yield f"# {line}"
