"""Recordings of calls: the lines of the file, the redaction of secrets, and the thread that writes."""

from .recorder import DEFAULT_SIZE, Preparation, RecordedCall, Recorder, RecordOptions, check_file

__all__ = ["DEFAULT_SIZE", "Preparation", "RecordOptions", "RecordedCall", "Recorder", "check_file"]
