"""What the doctor finds."""

from dataclasses import dataclass
from typing import Literal

from ..logs import one_line

__all__ = ["Finding", "error", "good", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        severity: ``"ok"``: it is as it has to be. ``"warning"``: something is lost or ignored. ``"error"``: requests
            fail.
        where: A path, or file and line, as ``config.yaml:12``.
        what: What is the case.
        remedy: What to do; empty: nothing.
    """

    severity: Literal["ok", "warning", "error"]
    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        # another user may have chosen the name of a file or process: it must not look like a finding of its own
        text = one_line(f"{self.severity:<8} {self.where}: {self.what}")
        return f"{text}\n{'':<8} → {one_line(self.remedy)}" if self.remedy else text


def good(where: str, what: str) -> Finding:
    """Return a finding of what is as it has to be."""
    return Finding("ok", where, what)


def warning(where: str, what: str, remedy: str) -> Finding:
    """Return a finding of what is lost or ignored."""
    return Finding("warning", where, what, remedy)


def error(where: str, what: str, remedy: str) -> Finding:
    """Return a finding of what makes requests fail."""
    return Finding("error", where, what, remedy)
