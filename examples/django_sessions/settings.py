"""Django's settings. The real site and the gateway have to share SECRET_KEY and SESSION_ENGINE."""

import os

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "change me: with it anyone can sign a session")
ALLOWED_HOSTS = ["*"]  # the routes of the gateway name the hosts already
ROOT_URLCONF = "urls"
USE_TZ = True

INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    # every view requires a user, except those that say otherwise, as Django's login does
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
]

# The signed cookie holds the session, so there is no store to share. But the server cannot end a session. If you have a
# database or a cache, choose another engine.
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
# SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True  # once the gateway uses TLS

AUTHENTICATION_BACKENDS = ["users.InMemoryBackend"]
LOGIN_URL = "/accounts/login/"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = LOGIN_URL

LOGIN_PAGE = """<form method="post">
{% csrf_token %}{{ form.as_p }}<input type="hidden" name="next" value="{{ next }}"><button>Sign in</button>
</form>
"""
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "loaders": [("django.template.loaders.locmem.Loader", {"registration/login.html": LOGIN_PAGE})],
        },
    },
]
