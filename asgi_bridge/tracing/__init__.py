"""OpenTelemetry: a span for each call, and one for each plugin that it enters.

Only who traces loads OpenTelemetry, and runs any of this. A call that is traced is of another class
(:mod:`.traced_calls`), and the applications of its plugins are wrapped (:mod:`.plugins`). Both are decided when the
process starts.
"""

from .switch import check_api, find_tracing

__all__ = ["check_api", "find_tracing"]
