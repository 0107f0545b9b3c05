"""Choose what makes an answer of what a chain did. This is the one place that names both implementations.

The functions here are those of the first of `WAYS_BACK`. All other code takes them from here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

from ..compiled import twin
from ..wire import Rewrite, Stop, TextEntry
from . import answer, changes, headers
from .changes import Warn
from .scope import Headers

__all__ = ["WAYS_BACK", "WayBack", "checked_headers", "differences", "response_headers", "stop"]


@dataclass(frozen=True)
class WayBack:
    """An implementation of these functions. Those in pure Python say what each must do.

    Attributes:
        name: Name of the implementation, for test reports.
        checked_headers: As in `headers`.
        differences: As in `changes`.
        response_headers: As in `answer`.
        stop: As in `answer`.
    """

    name: str
    checked_headers: Callable[[Iterable[Any], Iterable[tuple[bytes, bytes]]], Headers]
    differences: Callable[[Scope, Scope, list[TextEntry] | None, bytes | None, Warn], Rewrite | None]
    response_headers: Callable[[Headers, Warn], list[TextEntry]]
    stop: Callable[[str, int, Headers, bytes, bool, Warn], Stop]


def _way_back(name: str, *modules: Any) -> WayBack:
    """Return the functions of `modules`, which are one module or the three in pure Python."""
    first, last = modules[0], modules[-1]
    return WayBack(
        name, first.checked_headers, modules[len(modules) // 2].differences, last.response_headers, last.stop
    )


WAYS_BACK: tuple[WayBack, ...] = (_way_back("python", headers, changes, answer),)
"""All implementations on this machine. The first one is used."""
_compiled = twin("adapter._headers")
if _compiled is not None:
    WAYS_BACK = (_way_back("compiled", _compiled), *WAYS_BACK)

checked_headers = WAYS_BACK[0].checked_headers
differences = WAYS_BACK[0].differences
response_headers = WAYS_BACK[0].response_headers
stop = WAYS_BACK[0].stop
