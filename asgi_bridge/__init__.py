"""ASGI applications and middleware as plugins of the Apache APISIX gateway.

Example::

    from asgi_bridge import Bridge
    from starlette.middleware.cors import CORSMiddleware

    bridge = Bridge()
    bridge.add_middleware("cors", CORSMiddleware, defaults={"allow_methods": ["*"]})

and then ``asgi-bridge run module:bridge``.

The first use of a public name imports its module. So neither ``import asgi_bridge.wire`` nor ``asgi-bridge --help``
loads Starlette or pydantic.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from . import logs  # noqa: F401  # sets the filter on our loggers
from .errors import (
    BridgeError,
    ConfigurationError,
    LocalProtocolError,
    PluginError,
    ProtocolError,
    RemoteProtocolError,
)

if TYPE_CHECKING:
    from .plugins import Apisix, Bridge, apisix, upstream

__all__ = [
    "Apisix",
    "Bridge",
    "BridgeError",
    "ConfigurationError",
    "LocalProtocolError",
    "PluginError",
    "ProtocolError",
    "RemoteProtocolError",
    "apisix",
    "upstream",
]

_MODULES = {"Apisix": ".plugins", "Bridge": ".plugins", "apisix": ".plugins", "upstream": ".plugins"}
"""Public name → the module that has it."""


if not TYPE_CHECKING:  # a type checker that sees it takes every name for one of the package

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_MODULES[name], __name__), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
