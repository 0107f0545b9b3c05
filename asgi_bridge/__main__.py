"""``python -m asgi_bridge`` is the command line."""

from .cli import main

if __name__ == "__main__":
    main()
