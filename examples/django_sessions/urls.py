"""The views: Django's own login and logout, and two that send the request to the upstream."""

from collections.abc import MutableMapping
from typing import Any

from django.contrib.auth.views import LoginView, LogoutView
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import path, re_path
from django.views.decorators.csrf import csrf_exempt

from asgi_bridge import upstream


@csrf_exempt  # the upstream protects its own forms
async def pass_on(request: HttpRequest) -> HttpResponse:
    """Send the request to the next layer, and return its response.

    The upstream has not answered yet, so its response is an empty 200. Headers that Django's middleware adds to it are
    added to the real response. An inner plugin may also have answered by itself.
    """
    user = await request.auser()
    # Remove the client's own x-user, and x_user too: APISIX lets underscores pass, and a WSGI upstream takes both for
    # the same header.
    headers = [pair for pair in request.scope["headers"] if pair[0].replace(b"_", b"-") != b"x-user"]
    headers.append((b"x-user", user.get_username().encode()))
    response = HttpResponse()
    del response["content-type"]  # the upstream sets it

    async def receive() -> dict[str, Any]:
        # Django has read the body. The gateway still has it, and sends it (request_body=False in gate.py).
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            response.status_code = message["status"]
            for name, value in message["headers"]:
                if name == b"set-cookie":  # the only header that may be repeated
                    response.cookies.load(value.decode("latin-1"))
                else:
                    response[name.decode("latin-1")] = value.decode("latin-1")
        else:
            response.write(message.get("body", b""))

    await upstream({**request.scope, "headers": headers}, receive, send)
    return response


@csrf_exempt
async def staff_only(request: HttpRequest) -> HttpResponse:
    """Send the request to the next layer if the user is staff; else answer 403."""
    if not (await request.auser()).is_staff:
        raise PermissionDenied
    return await pass_on(request)


urlpatterns = [
    path("accounts/login/", LoginView.as_view()),
    path("accounts/logout/", LogoutView.as_view()),
    re_path(r"^staff(?:/|$)", staff_only),
    re_path(r"", pass_on),
]
