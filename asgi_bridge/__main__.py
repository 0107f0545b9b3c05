"""``python -m asgi_bridge``."""

from .cli import main

if __name__ == "__main__":
    main()
