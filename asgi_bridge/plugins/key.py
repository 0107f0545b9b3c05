"""The key that APISIX prepares a configuration under: ``route#ID#ext-plugin-NAME#VERSION``."""

from typing import Literal

__all__ = ["phase_of", "route_id_of", "stripped"]


def stripped(key: bytes) -> bytes:
    """``TYPE#ID#PLUGIN`` of `key`, without the version behind it, or the two that a route with a plugin_config has:
    editing one route must not reset the others' state."""
    return b"#".join(key.split(b"#")[:3])


def route_id_of(key: bytes | None) -> str | None:
    """The route's id in ``route#ID#ext-plugin-NAME#VERSION`` or ``route&consumer#ID&NAME#…``."""
    parts = (key or b"").decode("utf-8", "replace").split("#")
    return parts[1].split("&")[0] if len(parts) >= 3 and parts[0].split("&")[0] == "route" else None


def phase_of(key: bytes | None) -> Literal["request", "response"] | None:
    """The phase that a key is prepared for; None: it does not tell."""
    parts = (key or b"").split(b"#")
    if b"ext-plugin-post-resp" in parts:
        return "response"
    return "request" if b"ext-plugin-pre-req" in parts or b"ext-plugin-post-req" in parts else None
