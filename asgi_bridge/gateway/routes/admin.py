"""JSON of the Admin API: what is sent with a PUT, and what a GET of one object or of a list gives."""

import re
from collections.abc import Mapping

from .places import LinedMapping, Part
from .schema import SECTIONS

__all__ = ["read_admin"]

_KEY = re.compile(r"/(\w+)/([^/]+)(?:/credentials/[^/]+)?$")
_ENVELOPES = ("list", "node", "nodes", "data", "rows")
"""Fields of an answer that hold objects: ``list`` in version 3, ``node`` and ``nodes`` in version 2, the others in
the dashboard's answers."""


def read_admin(part: Part) -> LinedMapping | None:
    """Turn JSON of the Admin API into the sections of an ``apisix.yaml``.

    Args:
        part: One object, an answer with objects in it, or a list of these.

    Returns:
        None: the file is something else.

    Raises:
        Misplaced: An object has a key that is none of APISIX's, or the API has answered with an error.
    """
    error = part.get("error_msg")
    if isinstance(error, str):
        raise part.at("error_msg").place.wrong(f"the Admin API has answered with an error: {error:.200}")
    sections = LinedMapping()
    _read(part, sections)
    return sections if sections or part.get("total") == 0 else None


def _read(part: Part, sections: LinedMapping) -> None:
    if isinstance(part.value, list):
        for entry in part.entries():
            _read(entry, sections)
        return
    for envelope in _ENVELOPES:
        if isinstance(part.get(envelope), list | Mapping) and "uri" not in part:
            return _read(part.at(envelope), sections)
    body, key = part.get("value"), part.get("key")
    if isinstance(body, Mapping) and isinstance(key, str):
        found = _KEY.search(key)
        if found is None or found[1] not in SECTIONS:
            raise part.at("key").place.wrong(f"{key!r} is not a key of APISIX like /apisix/routes/1")
        here = part.at("value")
        if "id" not in body and "username" not in body:
            body = here.copied().put("id", found[2], here.place)
        sections.append(found[1], body, here.place)
    elif "uri" in part or "uris" in part:
        sections.append("routes", part.value, part.place)
    elif "username" in part:
        sections.append("consumers", part.value, part.place)
