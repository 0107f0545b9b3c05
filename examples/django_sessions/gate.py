"""A Django project as a plugin. Its session and auth middleware decide at the gateway who may pass."""

import os

from django.core.asgi import get_asgi_application

from asgi_bridge import Bridge

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")

bridge = Bridge()
# Views never change the request body, so the gateway sends the one that it has.
bridge.mount("site", get_asgi_application(), request_body=False)
