"""ASGI applications and middleware as plugins of the Apache APISIX gateway.

Example::

    from asgi_bridge import Bridge
    from starlette.middleware.cors import CORSMiddleware

    bridge = Bridge()
    bridge.add_middleware("cors", CORSMiddleware, defaults={"allow_methods": ["*"]})

and then ``asgi-bridge run module:bridge``.

Python imports the names of this module when they are first used. So ``import asgi_bridge.wire`` loads neither pydantic
nor Starlette.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from . import logs  # noqa: F401  # sets the filter on our loggers

if TYPE_CHECKING:
    from .bridge import Bridge
    from .errors import (
        BridgeError,
        ConfigurationError,
        LocalProtocolError,
        PluginError,
        ProtocolError,
        RemoteProtocolError,
    )
    from .passing import PassOn
    from .plugins import Apisix, apisix, upstream

    __version__: str

__all__ = [
    "Apisix",
    "Bridge",
    "BridgeError",
    "ConfigurationError",
    "LocalProtocolError",
    "PassOn",
    "PluginError",
    "ProtocolError",
    "RemoteProtocolError",
    "__version__",
    "apisix",
    "upstream",
]

_HOMES = {
    "Apisix": ".plugins",
    "Bridge": ".bridge",
    "BridgeError": ".errors",
    "ConfigurationError": ".errors",
    "LocalProtocolError": ".errors",
    "PassOn": ".passing",
    "PluginError": ".errors",
    "ProtocolError": ".errors",
    "RemoteProtocolError": ".errors",
    "apisix": ".plugins",
    "upstream": ".plugins",
}
"""Public names and the modules that define them."""

if not TYPE_CHECKING:  # a type checker would take every name for granted

    def __getattr__(name: str) -> object:
        """Import a public name at its first use (PEP 562)."""
        if name in _HOMES:
            value = getattr(import_module(_HOMES[name], __name__), name)
        elif name == "__version__":
            value = import_module("importlib.metadata").version(__name__)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the public names too, before their first use."""
    return sorted({*globals(), *__all__})
