"""The recorder of a runner process: it takes what calls were, and a thread writes it to the file.

A call costs the event loop a few attributes and a place in a queue. Redacting, encoding and writing is the thread's
work. It works for a millisecond at a time, and a fifth of the time at most. What does not fit into the queue is left
out, so neither many calls nor a slow disk slow a call. Whatever goes wrong ends the recording with one log line, and no
call.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import queue
import stat
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..hiding import secret_fields
from ..wire import HTTPReqCallReq, HTTPRespCallReq, Info, TextEntry
from .lines import VERSION, Answer, Json, action_of, call_of, text
from .options import RecordOptions, opened
from .redact import Redactor, redacted_conf

__all__ = ["Preparation", "RecordedCall", "Recorder"]

logger = logging.getLogger("asgi_bridge.server")

MAX_CALL_BYTES = 256 * 2**10
"""Maximum size of the bodies of one call, in bytes. A call with more is left out: searching it for secrets would hold
the interpreter for many milliseconds."""
MAX_WAITING_BYTES = 16 * 2**20
"""Maximum size of the calls that wait for the thread, in bytes. Further ones are left out."""
CALL_BYTES = 2048
"""Approximate size of a call without bodies while it waits, in bytes."""
BATCH_SECONDS = 0.05
"""Seconds that the thread waits for more calls before it writes some."""
TURN_SECONDS = 0.001
"""Seconds of processor time after which the thread lets the event loop have the interpreter."""
PAUSE_SECONDS = 0.004
"""Seconds of the pause that the thread makes then. It works a fifth of the time at most."""
CLOSE_SECONDS = 0.1
"""Seconds that the thread gets at the end of the process to write what waits."""

_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(slots=True, eq=False)
class Preparation:
    """A configuration as the gateway prepared it.

    Attributes:
        key: The gateway's name for it.
        conf: Names and configurations of the plugins, outermost first.
        id: Its name in the recording; empty: it was not written yet.
        known: Its secrets, and what stands for each in the recording.
    """

    key: bytes | None
    conf: Sequence[TextEntry]
    id: str = ""
    known: dict[bytes, bytes] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class RecordedCall:
    """One call, and what became of it.

    Attributes:
        message: The call.
        preparation: What its token stands for.
        at: When it began, in seconds since the epoch.
        extra: What the gateway was asked for, and its answers.
        answer: The runner's answer.
        milliseconds: From call to answer.
        parked: Whether it was parked; None: none of its plugins has ``phase="both"``.
        halves: Number of parked calls that it resumed.
        size: Of its bodies, in bytes.
    """

    message: HTTPReqCallReq | HTTPRespCallReq
    preparation: Preparation
    at: float
    extra: list[tuple[Info, bytes | None]]
    answer: Answer
    milliseconds: float
    parked: bool | None
    halves: int
    size: int = 0

    def __post_init__(self) -> None:
        body = getattr(getattr(self.answer, "action", self.answer), "body", None)
        size = 0 if body is None else len(body)
        for _, answer in self.extra:
            if answer is not None:
                size += len(answer)
        self.size = size


@dataclass(slots=True)
class _Total:
    """What went through one end of the queue: bytes, as they are counted there, and calls. One thread adds to it."""

    size: int = 0
    calls: int = 0

    def add(self, call: RecordedCall) -> None:
        self.size += CALL_BYTES + call.size
        self.calls += 1


class Recorder:
    """Records the calls of one process.

    Args:
        options: What is recorded, and where.
        schemas: Returns the JSON Schema of each plugin's configuration, by name. It says which fields are secrets.
        asks_origin: Whether the runner asks the gateway for scheme and server of a request.

    Attributes:
        active: True: calls are recorded. False before the start, and after the end of the recording.
    """

    def __init__(
        self, options: RecordOptions, schemas: Callable[[], Mapping[str, Mapping[str, Any]]], asks_origin: bool = False
    ) -> None:
        self.active = False
        self._options = options
        self._schemas = schemas
        self._fields: dict[str, frozenset[str]] = {}
        self._asks_origin = asks_origin
        self._queue: queue.SimpleQueue[RecordedCall | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._put, self._taken = _Total(), _Total()
        self._left_out = self._too_large = 0
        self._file = -1
        self._size = 0
        self._written: set[str] = set()

    def start(self) -> None:
        """Open the file, and start the thread. If the file cannot be opened, one log line says so."""
        try:
            self._fields = {name: secret_fields(schema) for name, schema in self._schemas().items()}
            self._file = opened(self._options.path)
            status = os.fstat(self._file)
            if stat.S_ISREG(status.st_mode) and status.st_size:
                self._size = status.st_size
                if os.pread(self._file, 1, status.st_size - 1) != b"\n":  # a process was killed while it wrote
                    os.write(self._file, b"\n")
        except Exception as exc:
            self._end(f"{type(exc).__name__}: {exc}")
            return
        self.active = True
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()
        logger.info("Calls are recorded in %s, up to %d bytes", self._options.path, self._options.size)

    def take(self, call: RecordedCall) -> None:
        """Record a call. Never blocks, and raises nothing.

        Args:
            call: It and its messages must not change any more.
        """
        if call.size > MAX_CALL_BYTES:
            self._too_large += 1
        elif self._put.size - self._taken.size > MAX_WAITING_BYTES:
            self._left_out += 1
        else:
            self._put.add(call)
            self._queue.put(call)

    def close(self) -> None:
        """Write what waits, for CLOSE_SECONDS at most, and end the recording."""
        if self._thread is not None:
            self._closing.set()
            self._queue.put(None)
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive():
                logger.warning(
                    "Recording %s: the process ends before %d calls are written",
                    self._options.path,
                    self._put.calls - self._taken.calls,
                )

    # the thread

    def _work(self) -> None:
        try:
            self._write([{"recording": VERSION, "asks_origin": self._asks_origin}])
            while self.active:
                calls = [self._queue.get()]
                if calls[0] is not None:
                    self._closing.wait(BATCH_SECONDS)
                    calls += [self._queue.get() for _ in range(self._queue.qsize())]
                self._write_calls(calls)
                if None in calls:
                    if self._left_out or self._too_large:
                        self._write([{"left_out": self._left_out, "too_large": self._too_large}])
                        logger.warning(
                            "Recording %s: %d calls were left out because more came than could be written, and %d "
                            "because their bodies have more than %d bytes",
                            self._options.path, self._left_out, self._too_large, MAX_CALL_BYTES,
                        )  # fmt: skip
                    self.active = False
        except Exception as exc:
            reason = exc.strerror if isinstance(exc, OSError) else None
            self._end(reason or f"{type(exc).__name__}: {exc}")
        finally:
            os.close(self._file)

    def _end(self, reason: str) -> None:
        if self.active or self._thread is None:
            logger.error("Recording %s has ended: %s; calls go on", self._options.path, reason)
        self.active = False

    def _write_calls(self, calls: Sequence[RecordedCall | None]) -> None:
        lines: list[Json] = []
        since = time.thread_time()
        for call in calls:
            if call is None:
                continue
            self._taken.add(call)
            lines += self._lines_of(call)
            if time.thread_time() >= since + TURN_SECONDS:
                self._write(lines)
                lines.clear()
                self._closing.wait(PAUSE_SECONDS)
                since = time.thread_time()
        self._write(lines)

    def _lines_of(self, call: RecordedCall) -> list[Json]:
        """Return the line of a call, after that of its preparation if this is new."""
        lines: list[Json] = []
        preparation = call.preparation
        if not preparation.id:
            line = self._preparation(preparation)
            preparation.id = hashlib.blake2b(json.dumps(line).encode(), digest_size=8).hexdigest()
            if preparation.id not in self._written:
                self._written.add(preparation.id)
                lines.append({"preparation": preparation.id, **line})
        redactor = None if self._options.secrets else Redactor(self._options.key, preparation.known)
        line = {
            "at": round(call.at, 6),
            "milliseconds": round(call.milliseconds, 3),
            "preparation": preparation.id,
            **call_of(call.message, call.extra, redactor),
        }
        line["parked"], line["halves"] = call.parked, call.halves
        line["redacted"] = None if redactor is None else list(redactor.found)
        line["action"] = action_of(call.answer, redactor)
        lines.append(line)
        return lines

    def _preparation(self, preparation: Preparation) -> Json:
        plugins: list[list[str | None]] = []
        redacted: list[str] = []
        for name, value in preparation.conf:
            if value and not self._options.secrets:
                fields = self._fields.get((name or b"").decode("latin-1"), frozenset())
                redactor = Redactor(self._options.key)
                value = redacted_conf(redactor, value, fields)
                redacted += redactor.found
                preparation.known |= redactor.known
            plugins.append([text(name), text(value)])
        return {"key": text(preparation.key), "plugins": plugins, "redacted": redacted}

    def _write(self, lines: Sequence[Json]) -> None:
        data = b"".join([_encode(line).encode() + b"\n" for line in lines])
        if not data or not self.active:
            return
        # in a file system without locks the file may grow beyond its size, by some lines
        with contextlib.suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            self._write_bounded(data)
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _write_bounded(self, data: bytes) -> None:
        """Write as many whole lines as there is room for. Other processes wait: they may write to the file too."""
        status = os.fstat(self._file)
        if stat.S_ISREG(status.st_mode):
            self._size = status.st_size
        if self._size + len(data) > self._options.size:
            data = data[: data.rfind(b"\n", 0, max(0, self._options.size - self._size)) + 1]
            self._append(data)
            self._end(f"it has reached {self._options.size} bytes (--record-size)")
        else:
            self._append(data)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self._file, view)
            self._size += written
            view = view[written:]
