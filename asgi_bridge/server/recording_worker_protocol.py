"""The protocol classes of a worker that records its calls."""

from .recording_protocol import RecordingProtocol
from .worker_protocol import SteeringProtocol, WorkerProtocol

__all__ = ["RecordingSteeringProtocol", "RecordingWorkerProtocol"]


class RecordingWorkerProtocol(WorkerProtocol, RecordingProtocol):
    """A connection of a worker whose answered calls are recorded."""


class RecordingSteeringProtocol(RecordingProtocol, SteeringProtocol):
    """Both. What was asked for before a call is recorded when the call asks for it."""
