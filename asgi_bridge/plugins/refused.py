"""The error of a configuration that a plugin does not accept: what is wrong with it, field by field."""

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import ConfigurationError

__all__ = ["RefusedConfiguration", "WrongField"]


class WrongField(NamedTuple):
    """A field of a configuration that the plugin does not accept.

    Attributes:
        path: Keys and indices that lead to the field. There may be pydantic's own among them, as the tag of a union.
        reason: What is wrong, without the value.
        name: The path for people, with dots; a key that may be a secret is hidden. Empty: the configuration as a whole.
    """

    path: tuple[str | int, ...]
    reason: str
    name: str


class RefusedConfiguration(ConfigurationError):
    """A plugin does not accept a configuration.

    Args:
        message: What is wrong, all in one line.
        fields: The wrong fields, for programs; empty: the configuration as a whole is wrong.
        index: Index of the character where reading the JSON ended; None: it is JSON.
    """

    def __init__(self, message: str, fields: Sequence[WrongField] = (), index: int | None = None) -> None:
        super().__init__(message)
        self.fields = tuple(fields)
        self.index = index
