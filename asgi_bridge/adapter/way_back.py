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


WAYS_BACK: tuple[WayBack, ...] = (
    WayBack("python", headers.checked_headers, changes.differences, answer.response_headers, answer.stop),
)
"""All implementations on this machine. The first one is used."""
_module = twin("adapter._headers")
if _module is not None:
    _compiled = WayBack(
        "compiled", _module.checked_headers, _module.differences, _module.response_headers, _module.stop
    )
    WAYS_BACK = (_compiled, *WAYS_BACK)

checked_headers = WAYS_BACK[0].checked_headers
differences = WAYS_BACK[0].differences
response_headers = WAYS_BACK[0].response_headers
stop = WAYS_BACK[0].stop
