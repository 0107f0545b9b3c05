"""Django's settings. Add sessions, auth and your applications as in any project."""

import os

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "change me: with it anyone can sign a session")
ALLOWED_HOSTS = ["*"]  # the routes of the gateway name the hosts already
ROOT_URLCONF = "my_plugin.urls"
USE_TZ = True
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware"]
