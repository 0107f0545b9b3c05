"""The command ``asgi-bridge``, which ``python -m asgi_bridge`` is too."""

import sys

from .succession.early import begin_at_once

__all__ = ["main"]


def main() -> None:
    """Run the command line. A runner that APISIX has started says HELLO to its predecessor before."""
    watch = begin_at_once(sys.argv[1:])
    try:
        from .cli import main  # imports much

        main()
    finally:
        if watch is not None:
            watch.close()


if __name__ == "__main__":
    main()
