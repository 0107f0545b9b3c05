"""Whether this process traces."""

import logging
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..extras import install

if TYPE_CHECKING:
    from .tracer import Tracing

__all__ = ["check_api", "find_tracing"]

logger = logging.getLogger("asgi_bridge.tracing")


def check_api() -> None:
    """Raise ConfigurationError if OpenTelemetry's API is not installed."""
    try:
        found = find_spec("opentelemetry.trace")
    except ModuleNotFoundError:  # not even the namespace is there
        found = None
    if found is None:
        raise ConfigurationError(f"--otel needs opentelemetry-api: {install('otel')}")


def find_tracing(wanted: bool | None) -> "Tracing | None":
    """Return what makes the spans of this process; None: it does not trace.

    Call it once the plugins are loaded, because their modules may set the TracerProvider.

    Args:
        wanted: Whether it traces; None: if a TracerProvider is set.

    Raises:
        ConfigurationError: It shall trace, and OpenTelemetry's API is not installed.
    """
    if wanted is False or (wanted is None and not _has_provider()):
        return None
    if wanted:
        check_api()
    from importlib import metadata  # only who traces loads these

    from opentelemetry import trace

    from .tracer import Tracing

    if not _has_provider():
        logger.warning(
            "--otel: no TracerProvider is set, so no span is recorded until a plugin sets one: start the runner with "
            "opentelemetry-instrument, or call opentelemetry.trace.set_tracer_provider in a module of the plugins"
        )
    tracer = trace.get_tracer("asgi_bridge", metadata.version("asgi_bridge"))
    return None if isinstance(tracer, trace.NoOpTracer) else Tracing(tracer)


def _has_provider() -> bool:
    """Whether somebody has set a TracerProvider. It does not load OpenTelemetry: whoever sets one has loaded it."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return False
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)
