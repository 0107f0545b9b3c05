"""The table: every package, how it is mounted, and what it is tried with."""

from tests.alike.ecosystem.rows import bodies, frameworks, headers, limits, observers, starlette, static, wsgi
from tests.alike.ecosystem.stage import Row

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
