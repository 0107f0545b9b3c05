"""The exceptions of asgi_bridge."""

__all__ = [
    "BridgeError",
    "ConfigurationError",
    "LocalProtocolError",
    "PluginError",
    "ProtocolError",
    "RemoteProtocolError",
]


class BridgeError(Exception):
    """Base class of all exceptions of this package."""


class ProtocolError(BridgeError):
    """One side has broken a rule of the external-plugin protocol."""


class LocalProtocolError(ProtocolError):
    """Our own side wants to send something that the protocol does not allow now, or cannot express."""


class RemoteProtocolError(ProtocolError):
    """The other side has sent something that the protocol does not allow.

    Args:
        message: What is wrong.
        recoverable: True: the end of the frame is known, so the connection can go on with the next one.
    """

    def __init__(self, message: str, *, recoverable: bool = True) -> None:
        super().__init__(message)
        self.recoverable = recoverable


class ConfigurationError(BridgeError):
    """The configuration of an operator or a route cannot work. The message says what is wrong, where and what to do."""


class PluginError(BridgeError):
    """A plugin has done something that ASGI or the protocol does not allow. The call is refused."""
