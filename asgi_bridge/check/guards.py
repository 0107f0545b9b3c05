"""Applications that look as if they guarded the upstream, and do not."""

from starlette.routing import Mount

from ..plugins import Plugin
from ..plugins.extension import upstream

__all__ = ["unguarded"]


def unguarded(plugin: Plugin) -> str:
    """Return what is wrong if an application's guards do not apply to what it passes on; empty: nothing is, surely.

    FastAPI runs the dependencies of an application before its own routes only. What is mounted gets requests without
    them: ``FastAPI(dependencies=[Depends(login)])`` with ``app.mount("/", upstream)`` lets everybody pass.

    Args:
        plugin: A mounted plugin.
    """
    dependencies = getattr(getattr(plugin.found, "router", None), "dependencies", None)
    if not isinstance(dependencies, list) or not dependencies:
        return ""
    for route in getattr(plugin.found, "routes", ()):
        if isinstance(route, Mount) and route.app is upstream:
            path = route.path or "/"
            return (
                f"requests that app.mount({path!r}, upstream) passes on run no dependencies of the application, so "
                "these guard nothing there; check in a middleware, or in a route whose response calls upstream "
                "(examples/fastapi_auth)"
            )
    return ""
