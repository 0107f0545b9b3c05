"""The rules of a mount: what its routes may say. The validators of :mod:`.allow` and :mod:`.patterns` use them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pydantic

__all__ = ["Rules", "rules_of", "strings_in"]

_CONTEXT = "asgi_bridge"
"""Key of the rules in pydantic's validation context."""


class Rules(NamedTuple):
    """What the mount of a plugin lets its routes say.

    Attributes:
        allow: Files and servers that a route may name: the option of this name.
        allow_patterns: True: a route may contain regular expressions for Python's `re`.
        own: Strings of the operator's own defaults that do not occur in what the route says.
    """

    allow: Sequence[str]
    allow_patterns: bool
    own: frozenset[str] = frozenset()

    def with_defaults(self, defaults: Mapping[str, Any], configured: Mapping[str, Any]) -> "Rules":
        """Return the rules for a route's object merged over the operator's defaults.

        Args:
            defaults: The operator's values.
            configured: The route's object.
        """
        if not defaults:
            return self
        chosen = {key: value for key, value in configured.items() if key not in defaults or defaults[key] != value}
        kept = [value for key, value in defaults.items() if key not in chosen]
        return Rules(self.allow, self.allow_patterns, frozenset(strings_in(kept)) - frozenset(strings_in(chosen)))

    @property
    def context(self) -> dict[str, Any]:
        """The context with which pydantic has to validate, so that :func:`rules_of` finds the rules."""
        return {_CONTEXT: self}


def strings_in(value: Any) -> list[str]:
    """Return all strings in a JSON value, without the keys of objects."""
    found: list[str] = []
    left = [value]
    while left:  # no recursion: a route may nest deeply
        each = left.pop()
        if isinstance(each, str):
            found.append(each)
        elif isinstance(each, Mapping):
            left += each.values()
        elif isinstance(each, list | tuple):
            left += each
    return found


def rules_of(info: pydantic.ValidationInfo) -> Rules | None:
    """Return the rules under which a value is validated; None: the value is the operator's, and is trusted."""
    found = info.context.get(_CONTEXT) if isinstance(info.context, Mapping) else None
    return found if isinstance(found, Rules) else None
