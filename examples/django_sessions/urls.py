"""The views: Django's own for signing in and out, and one that sends the request to the upstream."""

from collections.abc import MutableMapping
from typing import Any

from django.contrib.auth.views import LoginView, LogoutView
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import path, re_path
from django.views.decorators.csrf import csrf_exempt

from asgi_bridge import upstream


@csrf_exempt  # the upstream looks after its own forms
async def pass_on(request: HttpRequest) -> HttpResponse:
    """The response of whoever stands behind this plugin.

    Of the upstream there is none yet, only an empty 200; the headers that the middleware adds to it join the real one.
    Another plugin of the route may have answered by itself.
    """
    user = await request.auser()
    # Never the client's own x-user, in neither spelling: APISIX lets underscores through, and to an upstream that
    # speaks WSGI x_user is the same header.
    headers = [pair for pair in request.scope["headers"] if pair[0].replace(b"_", b"-") != b"x-user"]
    headers.append((b"x-user", user.get_username().encode()))
    response = HttpResponse()
    del response["content-type"]  # it is for the upstream to say

    async def receive() -> dict[str, Any]:
        # Django has read the body, the gateway still has it: request_body=False in gate.py
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            response.status_code = message["status"]
            for name, value in message["headers"]:
                if name == b"set-cookie":  # the one that may stand there several times
                    response.cookies.load(value.decode("latin-1"))
                else:
                    response[name.decode("latin-1")] = value.decode("latin-1")
        else:
            response.write(message.get("body", b""))

    await upstream({**request.scope, "headers": headers}, receive, send)
    return response


@csrf_exempt
async def staff_only(request: HttpRequest) -> HttpResponse:
    if not (await request.auser()).is_staff:
        raise PermissionDenied
    return await pass_on(request)


urlpatterns = [
    path("accounts/login/", LoginView.as_view()),
    path("accounts/logout/", LogoutView.as_view()),
    re_path(r"^staff(?:/|$)", staff_only),
    re_path(r"", pass_on),
]
