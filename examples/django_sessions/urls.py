"""The views: Django's own login and logout, and two that send the request to the upstream."""

from django.contrib.auth.views import LoginView, LogoutView
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import path, re_path
from django.views.decorators.csrf import csrf_exempt

from asgi_bridge.django import pass_on


@csrf_exempt  # the upstream protects its own forms
async def anything(request: HttpRequest) -> HttpResponse:
    """Send the request to the upstream, with the user's name."""
    user = await request.auser()
    return await pass_on(request, headers={"x-user": user.get_username()})


@csrf_exempt
async def staff_only(request: HttpRequest) -> HttpResponse:
    """Send the request to the upstream if the user is staff; else answer 403."""
    if not (await request.auser()).is_staff:
        raise PermissionDenied
    return await anything(request)


urlpatterns = [
    path("accounts/login/", LoginView.as_view()),
    path("accounts/logout/", LogoutView.as_view()),
    re_path(r"^staff(?:/|$)", staff_only),
    re_path(r"", anything),
]
