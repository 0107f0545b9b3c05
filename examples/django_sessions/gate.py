"""A Django project as plugin: its session and auth middleware decide at the gateway who may pass."""

import os

from django.core.asgi import get_asgi_application

from asgi_bridge import Bridge

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")

bridge = Bridge()
# the view hands the upstream no body of its own, so the request's goes on as it came
bridge.mount("site", get_asgi_application(), request_body=False)
