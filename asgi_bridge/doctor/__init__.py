"""``asgi-bridge doctor``: finds out why APISIX and a runner do not work together."""

from .examine import Questions, examine
from .findings import Finding

__all__ = ["Finding", "Questions", "examine"]
