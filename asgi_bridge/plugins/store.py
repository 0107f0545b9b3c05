"""The token store: what the gateway prepared, and the chains built for it.

A token is a digest of the configuration and of the key that it was prepared under, so it means the same after a
restart and in every process, and two routes never share state. The text of a configuration is kept longer than the
gateway keeps its token, since an unknown token makes the gateway flush those of all routes; a chain is rebuilt from
its text when it was evicted. Chains and texts are both bounded.
"""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError, PluginError
from ..tracebacks import shorten
from .build import SHUTDOWN_SECONDS, Conf, build_chain
from .chain import Chain
from .key import route_id_of, stripped
from .lifespan import Lifespan
from .registry import Bridge

__all__ = ["ConfigurationStore", "token_of"]

logger = logging.getLogger("asgi_bridge.plugins")

FAILURE_SECONDS = 2.0
"""How long a failed preparation is remembered: the gateway asks again at every request, under a lock."""
STARTUP_SECONDS = 60.0
"""What the lifespan start-up of a mounted application may take, before the runner listens."""
KEPT_LONGER = 1.2
"""A text is kept this many times as long as the gateway keeps its token (the Go runner's factor)."""
MAX_CHAINS = 4096
MAX_TEXT_BYTES = 64 * 2**20


def token_of(key: bytes | None, conf: Conf) -> int:
    """The token of a configuration: non-zero, 32 bits, a function of nothing but the content."""
    digest = hashlib.blake2b(digest_size=4)
    for part in (None if key is None else stripped(key), *(part for entry in conf for part in entry)):
        digest.update(b"-" if part is None else b"%d:" % len(part) + part)
    return int.from_bytes(digest.digest()) or 1


@dataclass(slots=True)
class _Text:
    key: bytes | None
    conf: list[tuple[bytes | None, bytes | None]]
    size: int
    used: float


class ConfigurationStore:
    """Tokens, texts and chains of one runner process.

    Args:
        bridge: the plugins.
        expire: seconds that the gateway keeps a token (``APISIX_CONF_EXPIRE_TIME``).
        clock: monotonic seconds.
    """

    def __init__(self, bridge: Bridge, *, expire: float = 3600.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.bridge = bridge
        self._keep = KEPT_LONGER * expire
        self._clock = clock
        self._texts: dict[int, _Text] = {}
        self._text_bytes = 0
        self._swept = clock()
        self._chains: OrderedDict[int, Chain] = OrderedDict()
        self._building: dict[int, tuple[_Text, asyncio.Task[Chain]]] = {}
        # the reasons, not the exceptions: one that is raised again and again gathers a traceback without end
        self._failures: dict[int, tuple[float, str]] = {}
        self._mounted: dict[int, Lifespan | ConfigurationError] = {}
        self._retiring: dict[Chain, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Runs the lifespan start-up of the mounted applications, each once however often it is mounted.

        One that fails refuses the routes that list it, and nothing else.
        """
        for plugin in self.bridge.plugins.values():
            app = plugin.application
            if app is not None and id(app) not in self._mounted:
                lifespan = Lifespan(app, plugin.name)
                try:
                    await lifespan.start(STARTUP_SECONDS)
                except PluginError as exc:
                    logger.error("plugin %s: %s; routes that list it are refused", plugin.name, exc)
                    self._mounted[id(app)] = ConfigurationError(f"plugin {plugin.name}: {exc}")
                else:
                    self._mounted[id(app)] = lifespan

    async def close(self) -> None:
        """Runs all shutdowns, side by side: the gateway leaves a runner one second."""
        chains = list(self._chains.values())
        ending: list[asyncio.Task[Any]] = [task for _, task in self._building.values()]
        for task in ending:
            task.cancel()
        for chain, retiring in self._retiring.items():
            ending.append(retiring)
            if chain.calls:  # they had their time
                retiring.cancel()
                chains.append(chain)
        mounted = [each for each in self._mounted.values() if isinstance(each, Lifespan)]
        self._chains.clear()
        self._mounted.clear()
        await asyncio.gather(
            *[chain.close(SHUTDOWN_SECONDS) for chain in chains],
            *[lifespan.stop(SHUTDOWN_SECONDS) for lifespan in mounted],
            *([asyncio.wait(ending, timeout=SHUTDOWN_SECONDS)] if ending else []),
        )

    async def prepare(self, key: bytes | None, conf: Conf) -> int:
        """The token of a configuration, once its chain stands.

        Raises:
            ConfigurationError: it cannot be run; the message says which plugin, which field and why.
        """
        token = token_of(key, conf)
        self._sweep()
        text = self._texts.get(token)
        if text is None:
            text = self._building[token][0] if token in self._building else _text(key, conf)
        if text.conf != list(conf) or _parts(text.key) != _parts(key):
            reason = "two configurations have the same token; change either a little (a blank in its JSON will do)"
            logger.error("route %s refused: %s", route_id_of(key) or "?", reason)
            raise ConfigurationError(reason)
        text.used = self._clock()
        await self._build(token, text)
        return token

    def find(self, token: int) -> Chain | None:
        """The chain of `token`, if it stands; :meth:`restore` may rebuild it if not."""
        chain = self._chains.get(token)
        if chain is not None:
            self._chains.move_to_end(token)
            self._texts[token].used = self._clock()
        return chain

    async def restore(self, token: int) -> Chain | None:
        """The chain of `token`, rebuilt if need be; None: the token is unknown.

        Raises:
            ConfigurationError: it could not be rebuilt.
        """
        text = self._texts.get(token)
        if text is None:
            return None
        text.used = self._clock()
        return await self._build(token, text)

    async def _build(self, token: int, text: _Text) -> Chain:
        chain = self._chains.get(token)
        if chain is not None:
            return chain
        failure = self._failures.get(token)
        if failure is not None:
            if self._clock() < failure[0]:
                raise ConfigurationError(failure[1])
            del self._failures[token]
        if token not in self._building:
            task = asyncio.get_running_loop().create_task(self._build_once(token, text))
            self._building[token] = text, task
            task.add_done_callback(lambda done: self._building.pop(token, None))
        # shielded: others may be waiting for the same chain
        return await asyncio.shield(self._building[token][1])

    async def _build_once(self, token: int, text: _Text) -> Chain:
        try:
            chain = await build_chain(self.bridge, text.key, text.conf, self._mounted)
        except ConfigurationError as exc:
            logger.error("route %s refused: %s", route_id_of(text.key) or "?", exc, exc_info=shorten(exc.__cause__))
            self._failures[token] = self._clock() + FAILURE_SECONDS, str(exc)
            raise
        # in one step: wherever there is a chain there is its text
        if token not in self._texts:
            self._texts[token] = text
            self._text_bytes += text.size
        self._chains[token] = chain
        while len(self._chains) > MAX_CHAINS:
            self._retire(next(iter(self._chains)))
        return chain

    def _retire(self, token: int) -> None:
        chain = self._chains.pop(token, None)
        if chain is not None:
            task = asyncio.get_running_loop().create_task(chain.retire(SHUTDOWN_SECONDS))
            self._retiring[chain] = task
            task.add_done_callback(lambda done: self._retiring.pop(chain, None))

    def _sweep(self) -> None:
        """Forgets what nobody has used for long, and what is too much."""
        now = self._clock()
        if now < self._swept + 1.0 and self._text_bytes <= MAX_TEXT_BYTES:
            return
        self._swept = now
        self._failures = {token: failure for token, failure in self._failures.items() if now < failure[0]}
        for token, text in sorted(self._texts.items(), key=lambda item: item[1].used):
            if text.used + self._keep >= now and self._text_bytes <= MAX_TEXT_BYTES:
                break
            del self._texts[token]
            self._text_bytes -= text.size
            self._retire(token)


def _text(key: bytes | None, conf: Conf) -> _Text:
    size = len(key or b"") + sum(len(part or b"") for entry in conf for part in entry) + 200
    return _Text(key, list(conf), size, 0.0)


def _parts(key: bytes | None) -> bytes | None:
    return None if key is None else stripped(key)
