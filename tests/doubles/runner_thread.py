"""A real runner on a thread of the test's process."""

import threading
from typing import Any

from asgi_bridge import Bridge
from asgi_bridge.server.process import GRACEFUL_SECONDS, RunnerServer, runner_config
from asgi_bridge.server.runner import Runner, RunnerOptions
from asgi_bridge.succession.sockets import bind

from .connection import Connection
from .waiting import SECONDS, until

__all__ = ["ThreadRunner"]


class ThreadRunner:
    """What `Bridge.run` starts, on a thread.

    Args:
        path: path of the socket.
        loop: name of the event loop, as uvicorn takes it.
        bridge: has the plugins.
        options: fields of `RunnerOptions`.
    """

    def __init__(self, path: str, loop: str, bridge: Bridge, **options: Any) -> None:
        self.path = path
        self.runner = Runner(bridge.plugins, RunnerOptions(**options))
        self.config = runner_config(lambda: self.runner, loop=loop, timeout_graceful_shutdown=GRACEFUL_SECONDS)
        self.listening = bind(path)
        self.server = RunnerServer(self.config, path, finally_=self.listening.unlink, seconds=SECONDS)
        self.thread = threading.Thread(target=self.server.run, args=([self.listening.sock],))
        self.thread.start()
        until(lambda: self.server.started or not self.thread.is_alive())

    def connect(self) -> Connection:
        return Connection(self.path)

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
        self.server.release()
        self.listening.sock.close()
