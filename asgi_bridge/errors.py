"""Everything that asgi_bridge raises on purpose."""

__all__ = [
    "BridgeError",
    "ConfigurationError",
    "LocalProtocolError",
    "PluginError",
    "ProtocolError",
    "RemoteProtocolError",
]


class BridgeError(Exception):
    """The base of all errors of this package."""


class ProtocolError(BridgeError):
    """A rule of the external-plugin protocol was broken."""


class LocalProtocolError(ProtocolError):
    """Our own side asked for something that the protocol does not allow or cannot express now."""


class RemoteProtocolError(ProtocolError):
    """The other side sent what the protocol does not allow.

    Args:
        recoverable: True when the frame's borders are still known, so the connection can go on with the next frame.
    """

    def __init__(self, message: str, *, recoverable: bool = True) -> None:
        super().__init__(message)
        self.recoverable = recoverable


class ConfigurationError(BridgeError):
    """What an operator or a route configured cannot work; the message says what, where and what to do."""


class PluginError(BridgeError):
    """A plugin did what ASGI or the protocol does not allow; the call is refused."""
