"""Applications that look as if they guarded the upstream, and do not."""

from collections.abc import Iterator
from typing import Any

from starlette.routing import Host, Mount

from .extension import is_upstream

__all__ = ["unguarded"]


def unguarded(app: object) -> str:
    """Return what is wrong if an application's guards do not apply to what it passes on; empty: nothing is, surely.

    FastAPI runs the dependencies of an application or router before its own routes only. What is mounted gets requests
    without them: ``FastAPI(dependencies=[Depends(login)])`` with ``app.mount("/", upstream)`` lets everybody pass.

    Args:
        app: An application.
    """
    for way in _ways(app, guarded=False, seen=set()):
        return (
            f"requests that {way} passes on run no dependencies of the application, so these guard nothing there; "
            "write a route that returns PassOn() in its place, or check in a middleware (docs/passing.md)"
        )
    return ""


def _ways(app: Any, guarded: bool, seen: set[int]) -> Iterator[str]:
    """Find where an application hands requests to the upstream past its dependencies.

    Args:
        app: An application or a router.
        guarded: True: dependencies around it look as if they applied to it.
        seen: The ids of those that were looked at already.

    Returns:
        The lines that do so, as a person writes them.
    """
    router = getattr(app, "router", app)
    if id(router) in seen:
        return
    seen.add(id(router))
    guarded = guarded or _has_dependencies(router)
    if guarded and is_upstream(getattr(router, "default", None)):
        yield "app.router.default = upstream"
    routes = getattr(router, "routes", None)
    for route in routes if isinstance(routes, list) else ():
        included = getattr(route, "original_router", None)
        if included is not None:  # a router that FastAPI included
            around = guarded or _has_dependencies(getattr(route, "include_context", None))
            yield from _ways(included, around, seen)
        elif isinstance(route, Mount | Host):
            if not is_upstream(route.app):
                yield from _ways(route.app, guarded, seen)
            elif guarded:
                yield (
                    f"app.mount({route.path or '/'!r}, upstream)"
                    if isinstance(route, Mount)
                    else f"app.host({route.host!r}, upstream)"
                )


def _has_dependencies(found: object) -> bool:
    dependencies = getattr(found, "dependencies", None)
    return isinstance(dependencies, list) and bool(dependencies)
