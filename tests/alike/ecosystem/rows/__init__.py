"""The table: every package, how it is mounted, and what it is tried with."""

from ..stage import Row
from . import bodies, frameworks, headers, limits, observers, starlette, static, wsgi

__all__ = ["ROWS"]

ROWS: list[Row] = [
    *starlette.ROWS,
    *headers.ROWS,
    *limits.ROWS,
    *bodies.ROWS,
    *static.ROWS,
    *observers.ROWS,
    *frameworks.ROWS,
    *wsgi.ROWS,
]
