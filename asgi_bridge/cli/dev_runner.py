"""``python -m asgi_bridge.cli.dev_runner SOCKET FOLDER run …``: ``asgi-bridge run`` as ``asgi-bridge dev`` starts it.

The runner tells ``dev``, which listens on SOCKET, what its plugins do. The user's own modules are in FOLDER.
"""

import sys

from ..dev_runner.runner import MakeRunner
from . import main

if __name__ == "__main__":
    path, folder, *arguments = sys.argv[1:]
    main(arguments, MakeRunner(path, folder))
