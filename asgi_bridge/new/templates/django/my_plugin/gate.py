"""The plugin: a Django project in front of the upstream."""

import os

from asgi_bridge import Bridge
from django.core.asgi import get_asgi_application
from starlette.types import ASGIApp, Receive, Scope, Send

from .conf import Conf

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "my_plugin.settings")
django_app = get_asgi_application()  # a process has one

bridge = Bridge()


@bridge.plugin("my-plugin", phase="request")
def make(conf: Conf) -> ASGIApp:
    """Make the application for one route. Its views find the configuration in ``request.scope["conf"]``."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":  # Django has no lifespan
            await django_app({**scope, "conf": conf}, receive, send)

    return app
