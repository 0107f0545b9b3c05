"""What a runner records of its calls: the recorder, and the configurations of the chains."""

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from ..plugins import Chain, Plugin
from ..recording import Preparation, Recorder, RecordOptions
from ..wire import TextEntry

__all__ = ["Recording"]


class Recording:
    """The recording of one runner.

    Args:
        options: What is recorded, and where.
        plugins: The mounted plugins, by name.
        asks_origin: Whether the runner asks the gateway for scheme and server of a request.

    Attributes:
        recorder: Takes the calls.
        start: Opens the file. If that fails, one log line says so, and nothing is recorded.
        close: Writes what waits, and ends the recording.
    """

    def __init__(self, options: RecordOptions, plugins: Mapping[str, Plugin], asks_origin: bool) -> None:
        def schemas() -> dict[str, Mapping[str, Any]]:
            return {name: plugin.describe()["schema"] for name, plugin in plugins.items()}

        self.recorder = Recorder(options, schemas, asks_origin)
        self.start = self.recorder.start
        self.close = self.recorder.close
        self._preparations: WeakKeyDictionary[Chain, Preparation] = WeakKeyDictionary()

    def prepared(self, chain: Chain, key: bytes | None, conf: Sequence[TextEntry]) -> None:
        """Note what a new chain was built of."""
        self._preparations[chain] = Preparation(key, conf)

    def of(self, chain: Chain) -> Preparation | None:
        """Return what `chain` was built of."""
        return self._preparations.get(chain)
