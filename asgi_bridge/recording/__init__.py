"""Recordings of calls: the lines of the file, the redaction of secrets, and the thread that writes.

Most runners record nothing, so the recorder is imported when somebody uses it.
"""

from typing import TYPE_CHECKING

from .options import DEFAULT_SIZE, RecordOptions, check_file

if TYPE_CHECKING:
    from .recorder import Preparation, RecordedCall, Recorder

__all__ = ["DEFAULT_SIZE", "Preparation", "RecordOptions", "RecordedCall", "Recorder", "check_file"]

if not TYPE_CHECKING:  # a type checker would take every name for granted

    def __getattr__(name: str) -> object:
        """Import a name of the recorder at its first use (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from . import recorder

        return getattr(recorder, name)
