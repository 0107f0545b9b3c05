"""The token store: what the gateway prepared, and the chains built for it.

A file says which token stands for which configuration (:mod:`.tokens`). This module keeps the chains that are in use. A
chain that was evicted, or that another process prepared, is built again from the file. The file is used in a thread,
and only when the gateway prepares a configuration or names a token that has no chain here.
"""

import asyncio
import logging
import sqlite3
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from ..apisix_constants import Phase
from ..compiled import twin
from ..errors import ConfigurationError, PluginError
from ..tracebacks import shorten
from .build import MAX_CONFIGURATION_BYTES, MAX_KEY_BYTES, SHUTDOWN_SECONDS, Conf, build_chain, check_sizes
from .chain import Chain
from .instances import Instances
from .key import owner_of, phase_of, route_id_of, stripped
from .mounted import MountedLifespans
from .plugin import Plugin
from .tokens import Claims, Text

__all__ = ["ConfigurationStore", "InUse"]

logger = logging.getLogger("asgi_bridge.plugins")

Result = TypeVar("Result")

FAILURE_SECONDS = 2.0
"""Seconds that a first failure is remembered, because the gateway asks again at every request, under a lock."""
MAX_FAILURE_SECONDS = 60.0
"""Maximum of that time in seconds. It doubles with each failure of the same configuration."""
MAX_FAILURES = 4096
"""Maximum number of configurations whose failure is remembered."""
STARTUP_SECONDS = 60.0
"""Seconds that the lifespan start-up of a mounted application may take, before the runner listens."""
KEPT_LONGER = 1.2
"""A claim is kept this many times as long as the gateway keeps its token. The Go runner has the same factor."""
SWEEP_SECONDS = 1.0
"""Seconds between two searches for chains whose time is over, at least."""
MAX_CLOSING = 32
"""Maximum number of chains that a search leaves closing at the same time. More would hold up the calls, and run out of
the time for their shutdowns. The rest is closed with the next configurations, without a wait between."""
MIN_SWEPT = 4
"""Number of chains that a search closes in any case: some chains wait for a long call before they close."""
MAX_CHAINS = 65_536
"""Maximum number of chains. The one that was unused for longest, to the second, is evicted first."""
KEPT_CHAINS = 4096
"""Number of chains that are kept however much memory the process has."""
MAX_REPLACED = 1024
"""Maximum number of chains of lists that were edited since. Some workers of the gateway may still name their tokens."""
MAX_BLOCKS = 4_000_000
"""Maximum number of Python's memory blocks, of the whole process, with more chains than that: about 400 MB. A chain of
one small middleware has 60. A plugin may build an application that has many more, so all blocks are counted."""


@dataclass(slots=True, eq=False, repr=False)
class _Prepared:
    """A chain under its token.

    Attributes:
        chain: The chain.
        digest: Digest of its configuration.
        fresh_until: Time, in seconds of the clock, until which the claim on the token certainly lives. After that the
            file has to be asked, which extends the claim.
        key: The gateway's name for the configuration.
        since: Time, in monotonic seconds, at which the chain was built.
        second: Second of the clock in which a call has found it. The next ones in that second need not look at the
            claim again, which lives to its end, nor move the chain among those used last. -1: no call has found it.
    """

    chain: Chain
    digest: bytes
    fresh_until: float
    key: bytes | None
    since: float = field(default_factory=time.monotonic)
    second: int = -1


class _Chains(OrderedDict[int, _Prepared]):
    """The chains under their tokens, those used in the last second at the end.

    Attributes:
        latest: Key of a list, without its version → the token of its last configuration.
        replaced: The tokens of earlier configurations of such lists, the oldest first.
    """

    __slots__ = ("latest", "replaced")

    def __init__(self) -> None:
        super().__init__()
        self.latest: dict[bytes, int] = {}
        self.replaced: OrderedDict[int, None] = OrderedDict()


class InUse(NamedTuple):
    """A configuration that is in use, for people to look at.

    Attributes:
        chain: Its chain.
        owner: Type and id of what lists the plugins, such as ``"route 1"``; None: the key does not say it.
        phase: The phase of the list; None: the key does not say it.
        seconds: Time since the chain was built.
    """

    chain: Chain
    owner: str | None
    phase: Phase | None
    seconds: float


class _Failure(NamedTuple):
    """Why a configuration was refused. An exception that is raised again and again would collect tracebacks.

    Attributes:
        reason: The exception's text.
        seconds: Time that it is remembered.
        until: The end of that time, in seconds of the clock.
    """

    reason: str
    seconds: float
    until: float


class ConfigurationStore:
    """Tokens and chains of one runner process.

    Args:
        plugins: The mounted plugins, by name.
        expire: Seconds that the gateway keeps a token (``APISIX_CONF_EXPIRE_TIME``).
        limit_configuration_size: Maximum size of one plugin's configuration, in bytes.
        clock: Returns the seconds since the epoch.
        folder: Path of the private folder of the socket, where tokens outlive the process; None: they do not.
        on_build: Called with each new chain, its key and its configuration; None: nobody wants to know.
    """

    __slots__ = ("__dict__", "_clock", "_prepared")  # the compiled core reads these two in each call

    def __init__(
        self,
        plugins: Mapping[str, Plugin],
        *,
        expire: float = 3600.0,
        limit_configuration_size: int = MAX_CONFIGURATION_BYTES,
        clock: Callable[[], float] = time.time,
        folder: str | None = None,
        on_build: Callable[[Chain, bytes | None, Conf], None] | None = None,
    ) -> None:
        self._plugins = plugins
        self._expire = expire
        self._limit = limit_configuration_size
        self._on_build = on_build
        self._instances = Instances(KEPT_LONGER * expire, clock)
        self._clock = clock
        self._claims = Claims(folder, KEPT_LONGER * expire, clock)
        self._generation = 0
        self._thread: ThreadPoolExecutor | None = ThreadPoolExecutor(1, thread_name_prefix="tokens")  # until `close`
        self._swept = 0.0
        self._prepared = _Chains()
        self._building: dict[tuple[int, bytes], asyncio.Task[Chain | None]] = {}
        self._failures: OrderedDict[bytes, _Failure] = OrderedDict()
        self._mounted = MountedLifespans()
        self._retiring: dict[Chain, asyncio.Task[None]] = {}

    @property
    def plugins(self) -> Mapping[str, Plugin]:
        """The mounted plugins, by name."""
        return self._plugins

    @property
    def size(self) -> int:
        """The number of configurations that are in use."""
        return len(self._prepared)

    def in_use(self) -> list[InUse]:
        """Return the configurations that are in use, those used last at the end."""
        now = time.monotonic()
        found = []
        for prepared in self._prepared.values():
            owner = owner_of(prepared.key)
            named = None if owner is None else b" ".join(owner).decode("utf-8", "replace")
            found.append(InUse(prepared.chain, named, phase_of(prepared.key), now - prepared.since))
        return found

    async def start(self) -> None:
        """Start the mounted applications, each once however often it is mounted.

        If one cannot start, the routes that list it are refused, and no others.
        """
        for plugin in self._plugins.values():
            try:
                await self._mounted.start(plugin, STARTUP_SECONDS)
            except PluginError as exc:
                logger.error("plugin %s: %s; routes that list it are refused", plugin.name, exc)

    async def close(self) -> None:
        """Run all shutdowns, side by side: the gateway gives the runner one second."""
        chains = [prepared.chain for prepared in self._prepared.values()]
        ending: list[asyncio.Task[Any]] = list(self._building.values())
        for task in ending:
            task.cancel()
        for chain, retiring in self._retiring.items():
            ending.append(retiring)
            if chain.calls:  # the calls had their time to finish
                retiring.cancel()
                chains.append(chain)
        self._prepared.clear()
        thread, self._thread = self._thread, None
        if thread is not None:
            ending.append(asyncio.ensure_future(asyncio.wrap_future(thread.submit(self._claims.close))))
            thread.shutdown(wait=False)
        # Most lifespans end within a turn of the loop. To wait for each of thousands would take longer than there is.
        for chain in chains:
            chain.begin_close()
        await asyncio.sleep(0)
        await asyncio.gather(
            *[chain.close(SHUTDOWN_SECONDS) for chain in chains],
            self._mounted.stop(SHUTDOWN_SECONDS),
            *([asyncio.wait(ending, timeout=SHUTDOWN_SECONDS)] if ending else []),
        )

    async def prepare(self, key: bytes | None, conf: Conf) -> int:
        """Build the chain of a configuration, and return its token.

        Args:
            key: The gateway's name for the configuration.
            conf: Names and configurations of the plugins, outermost first.

        Raises:
            ConfigurationError: The chain cannot be built. The message names the plugin, the field and the reason.
        """
        self._check_sizes(key, conf)
        text = Text(key, tuple(conf))
        while True:
            self._refuse_failed(text.digest)
            token, generation = await self._in_thread(lambda: self._claims.claim(text))
            prepared = self._prepared.get(token)
            if prepared is not None and prepared.digest == text.digest:
                prepared.fresh_until = self._clock() + self._expire
                self._note_latest(key, token)
            else:
                await self._build(token, text, generation)
            if generation == self._generation:
                return token

    def find(self, token: int) -> Chain | None:
        """Return the chain of `token`; None: it is not here, and :meth:`restore` may build it."""
        prepared = self._prepared.get(token)
        if prepared is None:
            return None
        now = self._clock()
        second = int(now)
        if prepared.second != second:
            if prepared.fresh_until <= now:
                return None
            self._prepared.move_to_end(token)
            if prepared.fresh_until >= second + 1:
                prepared.second = second
        return prepared.chain

    def is_unknown(self, token: int) -> bool:
        """Return whether `token` is certainly unknown, without a look into the file. :meth:`restore` looks."""
        return self._thread is not None and token in self._claims.unknown

    async def restore(self, token: int) -> Chain | None:
        """Return the chain of `token`, and build it if it is not here; None: the token is unknown.

        Raises:
            ConfigurationError: It could not be built.
        """
        if self.is_unknown(token):
            return None
        text, generation = await self._in_thread(lambda: self._claims.find(token))
        if text is None:
            return None
        prepared = self._prepared.get(token)
        if prepared is not None and prepared.digest == text.digest:
            prepared.fresh_until = self._clock() + self._expire
            return prepared.chain
        self._refuse_failed(text.digest)
        return await self._build(token, text, generation)

    async def _in_thread(self, work: Callable[[], Result]) -> tuple[Result, int]:
        """Return the result of `work`, which uses the claims, and the generation of the tokens in it."""

        def both() -> tuple[Result, int]:
            return work(), self._claims.generation

        try:
            if self._thread is not None:
                result, generation = await asyncio.get_running_loop().run_in_executor(self._thread, both)
        except sqlite3.Error as exc:
            logger.error("Tokens cannot be kept, so a route is refused: %s", exc)
            raise ConfigurationError(f"tokens cannot be kept: {exc}") from None
        if self._thread is None:  # also if it was closed meanwhile
            raise ConfigurationError("the runner is stopping")
        if generation > self._generation:  # a new secret: the tokens of the old one mean nothing
            self._generation = generation
            for token in list(self._prepared):
                self._retire(token)
        return result, generation

    def _check_sizes(self, key: bytes | None, conf: Conf) -> None:
        try:
            check_sizes(key, conf, self._limit)
        except ConfigurationError as exc:
            # remembered by its key: the digest of a large configuration would cost too much
            about = b"size of " + (key or b"")[:MAX_KEY_BYTES]
            self._refuse_failed(about)
            logger.error("route %s refused: %s", route_id_of(key) or "?", exc)
            self._fail(about, str(exc))
            raise

    def _refuse_failed(self, digest: bytes) -> None:
        failure = self._failures.get(digest)
        # if it would end too late, it was noted while the clock was ahead
        if failure is not None and failure.until - failure.seconds <= self._clock() < failure.until:
            raise ConfigurationError(failure.reason)

    def _fail(self, digest: bytes, reason: str) -> None:
        before = self._failures.pop(digest, None)
        now = self._clock()
        seconds = FAILURE_SECONDS
        if before is not None and now < before.until + MAX_FAILURE_SECONDS:
            seconds = min(2 * before.seconds, MAX_FAILURE_SECONDS)
        self._failures[digest] = _Failure(reason, seconds, now + seconds)
        while len(self._failures) > MAX_FAILURES:
            self._failures.popitem(last=False)

    async def _build(self, token: int, text: Text, generation: int) -> Chain | None:
        which = token, text.digest
        if which not in self._building:
            task = asyncio.get_running_loop().create_task(self._build_once(token, text, generation))
            self._building[which] = task
            task.add_done_callback(lambda done: self._building.pop(which, None))
        # shielded: others may be waiting for the same chain
        return await asyncio.shield(self._building[which])

    async def _build_once(self, token: int, text: Text, generation: int) -> Chain | None:
        try:
            chain = await build_chain(
                self._plugins, text.key, text.conf, self._mounted, instances=self._instances, limit=self._limit
            )
        except ConfigurationError as exc:
            logger.error("route %s refused: %s", route_id_of(text.key) or "?", exc, exc_info=shorten(exc.__cause__))
            self._fail(text.digest, str(exc))
            raise
        self._failures.pop(text.digest, None)
        if generation != self._generation:
            self._retire_chain(chain)
            return None
        if self._on_build is not None:
            self._on_build(chain, text.key, text.conf)
        self._sweep()
        self._retire(token)  # that of a configuration whose claim has expired
        prepared = _Prepared(chain, text.digest, self._clock() + self._expire, text.key)
        self._prepared[token] = prepared
        self._note_latest(text.key, token)
        while len(self._prepared) > MAX_CHAINS:
            self._retire(next(iter(self._prepared)))
        return chain

    def _note_latest(self, key: bytes | None, token: int) -> None:
        """Note the last configuration of a list. Those before it are needed by few calls, and for a short time."""
        if key is None:
            return
        self._prepared.replaced.pop(token, None)
        before = self._prepared.latest.get(name := stripped(key))
        self._prepared.latest[name] = token
        if before is not None and before != token:
            self._prepared.replaced[before] = None
            while len(self._prepared.replaced) > MAX_REPLACED:
                self._retire(next(iter(self._prepared.replaced)))

    def _sweep(self) -> None:
        """Close the chains whose claim is over, and those for which there is no memory, and forget old failures."""
        now = self._clock()
        if 0 <= now - self._swept < SWEEP_SECONDS:
            return
        over = now - (KEPT_LONGER - 1) * self._expire
        swept = [token for token, prepared in self._prepared.items() if prepared.fresh_until < over]
        left = len(self._prepared) - len(swept)
        if not swept and left > KEPT_CHAINS and sys.getallocatedblocks() > MAX_BLOCKS:
            kept = max(KEPT_CHAINS, left * 3 // 4)
            swept = list(self._prepared)[:-kept]
        portion = max(MIN_SWEPT, MAX_CLOSING - len(self._retiring))
        for token in swept[:portion]:
            self._retire(token)
        if len(swept) <= portion:
            self._swept = now
        over = now - MAX_FAILURE_SECONDS
        for digest in [digest for digest, failure in self._failures.items() if failure.until < over]:
            del self._failures[digest]

    def _retire(self, token: int) -> None:
        prepared = self._prepared.pop(token, None)
        self._prepared.replaced.pop(token, None)
        if prepared is not None:
            if prepared.key is not None and self._prepared.latest.get(name := stripped(prepared.key)) == token:
                del self._prepared.latest[name]
            self._retire_chain(prepared.chain)

    def _retire_chain(self, chain: Chain) -> None:
        task = asyncio.get_running_loop().create_task(chain.retire(SHUTDOWN_SECONDS))
        self._retiring[chain] = task
        task.add_done_callback(lambda done: self._retiring.pop(chain, None))


_compiled = twin("plugins._chains")
if _compiled is not None:
    ConfigurationStore.find = _compiled.find  # type: ignore[method-assign]
