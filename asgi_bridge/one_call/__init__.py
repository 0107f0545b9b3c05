"""``asgi-bridge call``: one call of plugins, looked at from all sides."""

from .in_process import call_in_process
from .outcome import Outcome, Watch
from .over_socket import call_over_socket
from .report import as_json, as_text
from .request import Request

__all__ = ["Outcome", "Request", "Watch", "as_json", "as_text", "call_in_process", "call_over_socket"]
