"""What is recorded, and where. The recorder itself is imported by whoever records."""

import os
from dataclasses import dataclass, field

from ..errors import ConfigurationError

__all__ = ["DEFAULT_SIZE", "RecordOptions", "check_file", "opened"]

DEFAULT_SIZE = 100 * 2**20
"""Maximum size of a recording, in bytes, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """What is recorded, and where.

    Attributes:
        path: Path of the file. Lines are appended.
        size: Maximum size of the file, in bytes. The recording ends there.
        secrets: True: secrets are written as they are.
        key: Of the hash that stands for a secret. Processes with the same key write the same placeholders.
    """

    path: str
    size: int = DEFAULT_SIZE
    secrets: bool = False
    key: bytes = field(default_factory=lambda: os.urandom(32), repr=False)


def check_file(path: str, size: int) -> None:
    """Raise ConfigurationError if a recording of at most `size` bytes cannot be written to the file at `path`."""
    if not (type(size) is int and size > 0):
        raise ConfigurationError(f"record_size must be a number of bytes, 1 or more, not {size!r}")
    try:
        os.close(opened(path))
    except OSError as exc:
        raise ConfigurationError(f"--record {path}: the file cannot be written: {exc.strerror}") from None


def opened(path: str) -> int:
    """Open the file of a recording, and return its descriptor. Raises OSError where that fails."""
    # others may not read what clients sent; O_NONBLOCK: a pipe that nobody reads must not block
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
