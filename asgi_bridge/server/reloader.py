"""uvicorn's reloader, which here begins to watch before its first child reads a file.

By itself it begins a quarter of a second after the start of the child, and so would miss a change in between.
"""

import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from uvicorn.supervisors import ChangeReload
from uvicorn.supervisors.basereload import BaseReload

__all__ = ["watching_reloader"]

LOOK_MILLISECONDS = 100
"""How long one look for changes takes, where there are none."""


def watching_reloader(
    config: uvicorn.Config, target: Callable[[Any], None], sockets: Sequence[socket.socket]
) -> BaseReload:
    """Return uvicorn's reloader. It watches already.

    Args:
        config: With ``reload=True``, and the folders to watch.
        target: What a child runs, with the sockets.
        sockets: For the children.
    """
    reloader: Any = ChangeReload(config, target=target, sockets=list(sockets))
    if hasattr(reloader, "watcher"):
        import watchfiles

        reloader.watcher = watchfiles.watch(
            *reloader.reload_dirs,
            watch_filter=None,
            stop_event=reloader.should_exit,
            rust_timeout=LOOK_MILLISECONDS,
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )
        next(reloader.watcher)
    else:  # without watchfiles it compares the times of files
        next(reloader)
    found: BaseReload = reloader
    return found
