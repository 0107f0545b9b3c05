"""The key that APISIX prepares a configuration under: ``TYPE#ID#ext-plugin-NAME#VERSION``.

TYPE and ID are those of what lists the plugins: ``route#1``, ``global_rule#1``. Where a route is merged with a service
or a consumer, both are joined by ``&``, the route first: ``route&consumer#1&jack``. Parts are found by their position
alone, since an id may look like another part.
"""

import re

from ..apisix_constants import LISTS, PHASE_OF, Phase

__all__ = ["owner_of", "phase_of", "route_id_of", "stripped"]

_key = re.compile(rb"([^#]*)#(.*)#(%b)(?:#.*)?" % "|".join(LISTS).encode(), re.DOTALL).fullmatch
LONGEST_ID = 256
"""Maximum length of an id, in bytes. APISIX allows 64 characters. A longer id is made up, and would fill the log."""


def _parts(key: bytes | None) -> tuple[bytes, bytes, bytes] | None:
    """Return type, id and list of a key; None: it does not have these parts."""
    match = _key(key or b"")
    if match is not None:
        return match[1], match[2], match[3]
    parts = (key or b"").split(b"#")
    return (parts[0], parts[1], parts[2]) if len(parts) >= 3 else None


def stripped(key: bytes) -> bytes:
    """Return ``TYPE#ID#LIST`` of a key, without its version, or the two versions of a route with a plugin_config.

    A change of one route must not reset the state of the others.
    """
    parts = _parts(key)
    return key if parts is None else b"#".join(parts)


def owner_of(key: bytes | None) -> tuple[bytes, bytes] | None:
    """Return type and id of what lists the plugins, without the service or consumer that is merged into it.

    None: the key does not say it, so nothing may be shared.
    """
    parts = _parts(key)
    if parts is None:
        return None
    kinds = parts[0].split(b"&")
    owner_id = parts[1].split(b"&")[0] if len(kinds) > 1 else parts[1]
    return (kinds[0], owner_id) if kinds[0] and 0 < len(owner_id) <= LONGEST_ID else None


def route_id_of(key: bytes | None) -> str | None:
    """Return the route's id in ``route#ID#ext-plugin-NAME#VERSION`` or ``route&consumer#ID&NAME#…``, or None."""
    owner = owner_of(key)
    return owner[1].decode("utf-8", "replace") if owner is not None and owner[0] == b"route" else None


def phase_of(key: bytes | None) -> Phase | None:
    """Return the phase that a key is prepared for; None: the key does not say it."""
    parts = _parts(key)
    return None if parts is None else PHASE_OF.get(parts[2].decode("latin-1"))
