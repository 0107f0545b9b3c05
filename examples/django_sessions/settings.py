"""Django's settings. A real site has them; what the gateway shares with it is SECRET_KEY and the session engine."""

import os

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "change me: with it anyone can sign a session")
ALLOWED_HOSTS = ["*"]  # the gateway's routes have hosts, and a request without a route never comes here
ROOT_URLCONF = "urls"
USE_TZ = True

INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    # every view wants a user, but those that say otherwise, as Django's own login does
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
]

# The session is in the cookie, signed: there is no store to share, and no way to end one from the server's side. With a
# database or a cache, take another engine.
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
# SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True  # as soon as the gateway speaks TLS

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
