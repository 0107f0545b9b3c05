"""The runner of ``asgi-bridge dev``, and its link to the process that shows what it tells.

The link is a unix socket that ``dev`` listens on. What goes over it are JSON objects, one a line: first what this
process has loaded, then news of calls.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from ..adapter import Call, RequestCall, ResponseCall
from ..plugins import Chain, Plugin
from ..server.runner import Runner, RunnerOptions
from ..wire import TextEntry
from .layers import Hooks
from .lines import Lines
from .story import Story

__all__ = ["Link", "MakeRunner", "Teller", "TellingRunner"]

TELL_SECONDS = 0.02
"""Seconds from a change in a call until it is told. Calls are mostly over by then, and told in one piece."""
MAX_STORIES = 500
"""Maximum number of calls that are looked at. The oldest is forgotten first."""
MAX_UNSENT = 16 * 1024 * 1024
"""Bytes that may wait until ``dev`` reads them. News beyond that are dropped."""


class Link:
    """The runner's end of the socket.

    Args:
        path: Of the socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._transport: asyncio.Transport | None = None

    async def start(self) -> None:
        """Connect. Without a listener all news are dropped."""
        with contextlib.suppress(OSError):
            transport, _ = await asyncio.get_running_loop().create_unix_connection(asyncio.Protocol, self._path)
            self._transport = transport

    def stop(self) -> None:
        """Close the connection once everything is sent."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def listens(self) -> bool:
        """Whether somebody takes news, and reads them quickly enough."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and transport.get_write_buffer_size() < MAX_UNSENT

    def tell(self, news: Mapping[str, Any]) -> None:
        """Send a JSON object, if somebody takes it."""
        if self.listens():
            assert self._transport is not None
            self._transport.write(json.dumps(news).encode() + b"\n")


class Teller:
    """Looks at the calls of one runner, and tells what they do.

    Args:
        tell: Takes the news: JSON objects.
        listens: Whether somebody takes news.
    """

    def __init__(self, tell: Callable[[Mapping[str, Any]], None], listens: Callable[[], bool]) -> None:
        self._tell = tell
        self._stories: OrderedDict[int, Story] = OrderedDict()
        self._dirty: dict[int, Story] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hooks = Hooks(self._story_of, self._changed, self._tell_soon)
        self._lines = Lines(self._story_of, self._added, self._alone, listens)

    def start(self) -> None:
        """Begin to listen to log lines and output."""
        self._loop = asyncio.get_running_loop()
        self._lines.start()

    def stop(self) -> None:
        """Tell what is left, and listen no longer."""
        self._lines.stop()
        self._tell_news()

    def prepared(self, chain: Chain, key: bytes | None, conf: Sequence[TextEntry]) -> None:
        """Look at the plugins of a new chain."""
        self._hooks.add_to(chain)

    def _story_of(self, call: Call) -> Story:
        assert isinstance(call, RequestCall | ResponseCall)
        story = self._stories.get(call.number)
        if story is None:
            story = self._stories[call.number] = Story(
                call.number, call.phase, call.route_id, [layer.name for layer in call.chain.acting]
            )
            while len(self._stories) > MAX_STORIES:
                self._stories.popitem(last=False)
        return story

    def _changed(self, story: Story, key: int) -> None:
        story.changed(key)
        self._tell_soon(story)

    def _added(self, story: Story) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell_soon, story)

    def _alone(self, line: dict[str, Any]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, {"line": line})

    def _tell_soon(self, story: Story) -> None:
        if not self._dirty and self._loop is not None:
            self._loop.call_later(TELL_SECONDS, self._tell_news)
        self._dirty[story.number] = story

    def _tell_news(self) -> None:
        dirty, self._dirty = self._dirty, {}
        now = monotonic()
        for story in dirty.values():
            self._tell({"at": now, **story.news()})


class TellingRunner(Runner):
    """A runner whose plugins are looked at.

    Args:
        plugins: The mounted plugins, by name.
        options: How it works.
        path: Of the socket that ``dev`` listens on.
        folder: The user's own modules are in it.
    """

    def __init__(self, plugins: Mapping[str, Plugin], options: RunnerOptions, path: str, folder: str) -> None:
        self.link = Link(path)
        self.teller = Teller(self.link.tell, self.link.listens)
        super().__init__(plugins, options)
        self._loaded = {"loaded": _described(plugins), "modules": _modules(folder), "pid": os.getpid()}

    def _watching(self) -> list[Callable[[Chain, bytes | None, Sequence[TextEntry]], None]]:
        return [self.teller.prepared]

    async def start(self) -> None:
        """Start as a runner does, and tell what is loaded."""
        await self.link.start()
        self.teller.start()
        self.link.tell(self._loaded)
        await super().start()

    async def stop(self) -> None:
        """Stop as a runner does, and tell what is left."""
        await super().stop()
        self.teller.stop()
        self.link.stop()


@dataclasses.dataclass(frozen=True, slots=True)
class MakeRunner:
    """Makes the telling runner, in the process that serves. It is plain data, so that it can be sent to that process.

    Attributes:
        path: Of the socket that ``dev`` listens on.
        folder: The user's own modules are in it.
    """

    path: str
    folder: str

    def __call__(self, plugins: Mapping[str, Plugin], options: RunnerOptions) -> Runner:
        """Make it."""
        return TellingRunner(plugins, options, self.path, self.folder)


def _described(plugins: Mapping[str, Plugin]) -> dict[str, str]:
    """Return for each plugin a digest of its options and of the schema of its configuration."""
    return {
        name: hashlib.blake2b(json.dumps(plugin.describe(), default=repr).encode(), digest_size=8).hexdigest()
        for name, plugin in plugins.items()
    }


def _modules(folder: str) -> dict[str, int]:
    """Return the user's modules that are loaded: file, relative to `folder`, and when it was changed."""
    found = {}
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if isinstance(name, str) and Path(folder) in Path(name).parents:
            relative = Path(name).relative_to(folder)
            if not any(part.startswith(".") or part in ("site-packages", "dist-packages") for part in relative.parts):
                with contextlib.suppress(OSError):
                    found[str(relative)] = os.stat(name).st_mtime_ns
    return found
