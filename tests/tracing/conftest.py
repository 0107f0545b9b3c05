import pytest
from opentelemetry import trace

from .spans import Spans


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """Set a TracerProvider, for this test alone. OpenTelemetry itself lets a process set one only once."""
    spans = Spans()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", spans.provider)
    return spans
