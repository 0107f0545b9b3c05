"""Ready-made plugins. ``asgi-bridge run asgi_bridge_apps:bridge`` mounts them all.

Each plugin is a module of its own: ``jwt-auth`` is ``asgi_bridge_apps.jwt_auth``. Importing one loads only the packages
that this plugin needs.

``say``, ``fault-injection``, ``limit-req``, ``request-body-rewrite`` and ``response-rewrite`` are the examples of the
Go runner; ``stop`` and ``rewrite`` are those of the official Python runner. They have the same names and take the same
configuration, so routes written for those runners keep working. ``cors``, ``trusted-host``, ``https-redirect``,
``session`` and ``gzip`` are Starlette's middleware.

``forward-auth`` asks an ASGI application, which the operator gives::

    from asgi_bridge_apps import ready_made

    bridge = ready_made(auth_app=my_auth_app)

The operator also says which files and servers a route may name, such as ``jwt-auth``'s key sets, ``oidc``'s provider
and ``limit-req``'s Redis. By default a route may name none::

    asgi-bridge run asgi_bridge_apps:bridge --allow https://idp.example.com/ --allow /etc/apisix/keys/

``ready_made(allow=[...])`` does the same, and so does ``allow = [...]`` beside ``bridge`` under ``[tool.asgi_bridge]``.

The extra ``apps`` brings all packages that the plugins need. `bridge` and `ready_made` need every one of them: where
one is missing, their first use raises an error that names it. So a runner that starts has plugins that work. redis-py
is the exception: who names no Redis does without. A plugin's module is imported when the first route lists the plugin.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asgi_bridge import Bridge

    from ._mounts import ready_made

    bridge: Bridge

__all__ = ["bridge", "ready_made"]

if not TYPE_CHECKING:  # or a type checker would accept any name

    def __getattr__(name: str) -> object:
        """Import `ready_made`, or make `bridge`, at its first use (PEP 562).

        Raises:
            ConfigurationError: A package of the extra ``apps`` is missing.
        """
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        ready_made = import_module("._mounts", __name__).ready_made
        value = globals()[name] = ready_made() if name == "bridge" else ready_made
        return value


def __dir__() -> list[str]:
    """List the public names too, before their first use."""
    return sorted({*globals(), *__all__})
