"""The command ``asgi-bridge``, which ``python -m asgi_bridge`` is too."""

import socket
import sys

from .succession.early import begin_at_once
from .supervisor.ahead import start_ahead

__all__ = ["main"]


def main() -> None:
    """Run the command line.

    Before, the first worker begins its imports, and a runner that APISIX has started says HELLO to its predecessor.
    """
    start_ahead(sys.argv[1:], _serve)
    watch = begin_at_once(sys.argv[1:])
    try:
        from .cli import main  # imports much

        main()
    finally:
        if watch is not None:
            watch.close()


def _serve(channel: socket.socket, supervisor: int) -> None:
    from .worker import serve_supervisor

    serve_supervisor(channel, supervisor)


if __name__ == "__main__":
    main()
