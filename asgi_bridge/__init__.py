"""ASGI applications and middleware as plugins of the Apache APISIX gateway.

Example::

    from asgi_bridge import Bridge
    from starlette.middleware.cors import CORSMiddleware

    bridge = Bridge()
    bridge.add_middleware("cors", CORSMiddleware, defaults={"allow_methods": ["*"]})

and then ``asgi-bridge run module:bridge``.
"""

from . import logs  # noqa: F401  # sets the filter on our loggers
from .bridge import Bridge
from .errors import (
    BridgeError,
    ConfigurationError,
    LocalProtocolError,
    PluginError,
    ProtocolError,
    RemoteProtocolError,
)
from .plugins import Apisix, apisix, upstream

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
