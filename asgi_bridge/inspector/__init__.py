"""The inspector of ``asgi-bridge dev``: what became of each request, for the terminal and for a page in the browser."""

from .app import Stage, inspector_app
from .capture import Capture, GatewayLines, observe
from .link import Listener
from .record import Record
from .store import Records

__all__ = ["Capture", "GatewayLines", "Listener", "Record", "Records", "Stage", "inspector_app", "observe"]
