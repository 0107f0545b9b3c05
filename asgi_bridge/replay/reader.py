"""Reads a recording. The file may be large, so only the places of its calls are kept in memory."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..recording.lines import VERSION, Json

__all__ = ["Reader"]


class Reader:
    """The calls of a recording, in the order in which they began.

    Args:
        path: Of the file.

    Attributes:
        preparations: Their lines, by id.
        asks_origin: Whether the runner asked the gateway for scheme and server of a request.
        unreadable: Numbers of the lines that are none of a recording: a process was killed while it wrote.
        left_out: Number of calls that the recorder left out.

    Raises:
        ConfigurationError: The file cannot be read, or is no recording.
    """

    def __init__(self, path: Path) -> None:
        self.preparations: dict[str, Json] = {}
        self.asks_origin = False
        self.unreadable: list[int] = []
        self.left_out = 0
        self._path = path
        self._calls: list[tuple[float, int, int]] = []
        known = False
        try:
            with open(path, "rb") as lines:
                offset = 0
                for number, line in enumerate(lines, 1):
                    known = self._take(number, offset, line) or known
                    offset += len(line)
        except OSError as exc:
            raise ConfigurationError(f"{path} cannot be read: {exc.strerror}") from None
        if not known:
            raise ConfigurationError(f"{path} is no recording: write one with asgi-bridge run --record")
        self._calls.sort()

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[tuple[int, Json]]:
        """Give the calls, each with the number of its line."""
        with open(self._path, "rb") as lines:
            for _, number, offset in self._calls:
                lines.seek(offset)
                yield number, json.loads(lines.readline())

    def _take(self, number: int, offset: int, data: bytes) -> bool:
        """Note what a line holds. Returns whether it begins a recording."""
        try:
            line: Any = json.loads(data)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            if data.strip():
                self.unreadable.append(number)
            return False
        if "recording" in line:
            if line["recording"] != VERSION:
                raise ConfigurationError(
                    f"{self._path}:{number}: version {line['recording']!r} of a recording, and this is {VERSION}"
                )
            self.asks_origin = bool(line.get("asks_origin"))
            return True
        if "left_out" in line:
            self.left_out += int(line["left_out"]) + int(line["too_large"])
        elif "action" in line and isinstance(line.get("at"), int | float):
            self._calls.append((line["at"], number, offset))
        elif "plugins" in line:
            self.preparations[str(line["preparation"])] = line
        else:
            self.unreadable.append(number)
        return False
